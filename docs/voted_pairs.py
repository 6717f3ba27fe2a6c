"""Pairs of real texts with the votes on them, for studies of wrong labels.

Pairs are of humour or convarg, where up to five people say which of two texts
wins, or of HH, where one label is all there is. A unit is what a pair shares
with others: its two texts, or the prompt of both.
"""

import dataclasses
import hashlib
from typing import Any

import crowd_labels
import numpy as np
import tabulate_sources
import words_and_length

from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines

CLEAR = 0.8  # of three votes or more: a label that is taken to be right
BASELINES = ("always longer", "bag of words", "bag of words + length")
DRAWS = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Pairs as numbers, the side with more votes first.

  Attributes:
    texts: (prompt, text), [I].
    sides: numbers of the texts, int [N, 2].
    votes: for the first side, for the other, and for neither, int [N, 3].
    units: numbers of the two units of a pair, equal for a prompt, int [N, 2].
    names: of units, by which they are parted, [U].
    kind: source or debate of each pair by number, int [N].
  """

  texts: list[tuple[str, str]]
  sides: np.ndarray
  votes: np.ndarray
  units: np.ndarray
  names: list[str]
  kind: np.ndarray

  @property
  def clear(self) -> np.ndarray:
    """Pairs whose label is taken to be right, bool [N]; all of single votes."""
    total = self.votes.sum(axis=1)
    clear = (total >= 3) & (self.votes[:, 0] >= CLEAR * total)
    return clear if total.max() > 1 else np.ones(len(total), bool)


def read(folder: str, name: str) -> Pairs:
  """Pairs by name, "hh", "humour" or "convarg"; ties are left out.

  Args:
    folder: of the data.
    name: of the source.
  """
  if name == "hh":
    found = tabulate_sources.read(folder, ("hh_helpful", "hh_harmless"))
    votes = np.tile([1, 0, 0], (len(found.sides), 1))
    names = [""] * (int(found.prompt.max()) + 1)
    for record, prompt in zip(found.records, found.prompt, strict=True):
      names[prompt] = text_of(record.prompt)
    units = np.stack([found.prompt, found.prompt], axis=1)
    return Pairs(found.texts, found.sides, votes, units, names, found.source)
  texts: dict[tuple[str, str], int] = {}
  debates: dict[str, int] = {}
  counts: dict[tuple[int, int], np.ndarray] = {}
  kinds = {}
  for record in reader.RecordStream([f"{folder}/{name}/votes_*"]):
    # All jokes have one prompt, which says nothing.
    prompt = text_of(record.prompt) if record.annotator else ""
    first, second = (
      texts.setdefault((prompt, text_of(one)), len(texts))
      for one in record.responses[:2]
    )
    key = min(first, second), max(first, second)
    if first == second:
      continue
    if record.annotator:
      given = np.array([not record.tie, 0, bool(record.tie)], int)
    else:
      given = np.array([record.votes_chosen, record.votes_rejected, 0], int)
    given = given if first == key[0] else given[[1, 0, 2]]
    counts[key] = counts.get(key, 0) + given
    debate = crowd_labels.debate_of(prompt)
    kinds[key] = debates.setdefault(debate, len(debates))
  sides, votes = np.array([*counts]), np.array([*counts.values()])
  turned = votes[:, 1] > votes[:, 0]
  sides[turned] = sides[turned, ::-1]
  votes[turned] = votes[turned][:, [1, 0, 2]]
  there = crowd_labels.taken([*texts])
  kept = (votes[:, 0] > votes[:, 1]) & there[sides].all(axis=1)
  # Texts that take part, and they alone.
  sides = (np.cumsum(there) - 1)[sides]
  chosen = [text for text, one in zip(texts, there, strict=True) if one]
  names = [f"{prompt}\n{text}" for prompt, text in chosen]
  _, kind = np.unique(np.array([*kinds.values()])[kept], return_inverse=True)
  return Pairs(chosen, sides[kept], votes[kept], sides[kept], names, kind)


def share_of(names: list[str], seed: int) -> np.ndarray:
  """A number in [0, 1) of each name that it and a seed decide."""
  digests = [
    hashlib.sha256(f"{seed}|{name}".encode()).digest() for name in names
  ]
  return np.array([int.from_bytes(one[:6]) / 2**48 for one in digests])


def within(pairs: Pairs, units: np.ndarray) -> np.ndarray:
  """Pairs both of whose units are among some, bool [N].

  Args:
    pairs: all of them.
    units: bool [U].
  """
  both: np.ndarray = units[pairs.units].all(axis=1)
  return both


def scaled_loss(gaps: np.ndarray) -> np.ndarray:
  """Mean loss of gaps [..., n] under the one scale that suits them best."""
  scales = np.geomspace(0.05, 20, 25).reshape(-1, *np.ones(gaps.ndim, int))
  lost: np.ndarray = np.logaddexp(0, -scales * gaps).mean(axis=-1).min(axis=0)
  return lost


def baseline_gaps(
  pairs: Pairs, fit: np.ndarray, tune: np.ndarray, asked: np.ndarray
) -> np.ndarray:
  """Gaps by length, words and both, [B, n].

  Args:
    pairs: all of them.
    fit: texts of pairs that words learn from, the preferred first, [m, 2].
    tune: the same of pairs that weigh words and length.
    asked: the same of pairs to be told, [n, 2].
  """
  del_ = [Record("", (pairs.texts[a][1], pairs.texts[b][1])) for a, b in fit]
  words = baselines.BagOfWords.fit(del_)
  both = np.concatenate([tune, asked])
  gaps = words.gaps(
    [Record("", (pairs.texts[a][1], pairs.texts[b][1])) for a, b in both]
  )
  sizes = np.log1p([len(text) for _, text in pairs.texts])
  longer = sizes[both[:, 0]] - sizes[both[:, 1]]
  joined = words_and_length.together(gaps, longer, np.arange(len(tune)))
  return np.stack([longer, gaps, joined])[:, len(tune) :]


class Draws:
  """Units drawn again and again, the data themselves first.

  Attributes:
    times: how often each draw has each unit, [1 + draws, U].
  """

  def __init__(self, runs: list[dict[str, Any]]) -> None:
    """Draws among the units of the held-out pairs of some runs."""
    units = [run["units"] for run in runs]
    seen = np.unique(np.concatenate(units))
    rng = np.random.default_rng(0)
    self.times = np.zeros((DRAWS + 1, int(seen.max()) + 1))
    self.times[0, seen] = 1
    for drawn in self.times[1:]:
      np.add.at(drawn, rng.choice(seen, len(seen)), 1)

  def weights(self, units: np.ndarray) -> np.ndarray:
    """How much each pair counts, [1 + draws, n]: both its units are drawn."""
    one, other = units.T
    second = np.where(one == other, 1, self.times[:, other])
    weights: np.ndarray = self.times[:, one] * second
    return weights


def apart(own: np.ndarray, other: np.ndarray) -> str:
  """A value less another in the data, its 95 % and the least that shows.

  Args:
    own: in the data and in each draw, [1 + draws].
    other: the same of what it is compared with.
  """
  gap = own - other
  low, high = np.quantile(gap[1:], (0.025, 0.975))
  least = 2.8 * gap[1:].std()
  return f"{gap[0]:+.3f} [{low:+.3f}, {high:+.3f}], least {least:.3f}"
