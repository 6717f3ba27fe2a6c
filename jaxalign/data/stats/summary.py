"""Dataset summary: counts of lengths, votes, annotators and sides."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.batching import token_store
from jaxalign.data.records.chat import Text, text_of
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.encoding import pieces
from jaxalign.data.tokenization.tokenizer import Tokenizer

PARTS = ("prompt", "chosen", "rejected")


class Share(NamedTuple):
  """A share of pairs with its 95 % interval by Wilson's score.

  Attributes:
    value: the share; NaN of nothing.
    low: lower end.
    high: upper end.
    count: pairs it is a share of.
  """

  value: float
  low: float
  high: float
  count: int


def share(successes: float, count: int) -> Share:
  """`successes` of `count`; half a success is a tie.

  References:
    Wilson, "Probable inference, the law of succession, and statistical
    inference", 1927.
  """
  if count == 0:
    return Share(float("nan"), 0.0, 1.0, 0)
  z2 = 1.959964**2
  p = successes / count
  middle = (p + z2 / (2 * count)) / (1 + z2 / count)
  half = np.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2)))
  half = half / (1 + z2 / count)
  return Share(p, float(middle - half), float(middle + half), count)


def quantiles(values: np.ndarray) -> dict[str, float]:
  """`min`, `p10`, `median`, `p90`, `max` and `mean` of at least one value."""
  at = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}
  found = {name: float(np.quantile(values, q)) for name, q in at.items()}
  return found | {"mean": float(np.mean(values))}


def characters(records: Sequence[Record]) -> dict[str, np.ndarray]:
  """Characters of the `PARTS` of each pair, int64 [N]."""
  return {
    part: np.array([len(text_of(text)) for text in texts], np.int64)
    for part, texts in _parts(records).items()
  }


def tokens(
  records: Sequence[Record], tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
  """Tokens of the `PARTS` of each pair, each alone and uncut, int64 [N]."""
  known: dict[str, int] = {}
  parts = {
    part: [text_of(text) for text in texts]
    for part, texts in _parts(records).items()
  }
  distinct = dict.fromkeys(text for part in parts.values() for text in part)
  found_in = ((text, piece) for text in distinct for piece in pieces(text))
  for chunk in token_store.grouped(found_in, lambda pair: len(pair[1])):
    encoded = tokenizer.encode_batch([piece for _, piece in chunk])
    for (text, _), found in zip(chunk, encoded, strict=True):
      known[text] = known.get(text, 0) + len(found.ids)
  return {
    part: np.array([known[text] for text in texts], np.int64)
    for part, texts in parts.items()
  }


def _parts(records: Sequence[Record]) -> dict[str, list[Text]]:
  return {
    "prompt": [record.prompt for record in records],
    "chosen": [record.responses[0] for record in records],
    "rejected": [record.responses[1] for record in records],
  }


def vote_counts(records: Sequence[Record]) -> np.ndarray:
  """Votes for the first, for the second and for neither, float64 [M, 3].

  Records with counted votes give a row each. Records of single annotators that
  share a prompt and both responses give one row together, in which the response
  with more votes is the first.
  """
  rows = []
  alone: dict[object, list[Record]] = {}
  for record in records:
    if record.votes_chosen is not None and record.votes_rejected is not None:
      ties = 0 if record.votes_tie is None else record.votes_tie
      rows.append([record.votes_chosen, record.votes_rejected, ties])
    elif record.annotator is not None:
      key = record.prompt, frozenset(map(text_of, record.responses))
      alone.setdefault(key, []).append(record)
  for votes in alone.values():
    if len(votes) > 1:
      first = text_of(votes[0].responses[0])
      counts = [0, 0, 0]
      for vote in votes:
        side = 0 if text_of(vote.responses[0]) == first else 1
        counts[2 if vote.tie else side] += 1
      rows.append([*sorted(counts[:2], reverse=True), counts[2]])
  return np.array(rows, np.float64).reshape(-1, 3)


def longer_wins(records: Sequence[Record]) -> np.ndarray:
  """1 where the chosen response has more characters, 0.5 as many, 0 fewer."""
  sizes = characters(records)
  return (np.sign(sizes["chosen"] - sizes["rejected"]) + 1) / 2


def first_wins(records: Sequence[Record]) -> np.ndarray:
  """1 where the response shown first was chosen, else 0; float64 [M].

  Pairs of unknown position and ties are left out.
  """
  return np.array(
    [
      1.0 - record.position
      for record in records
      if record.position is not None and not record.tie
    ]
  )


def pairs_per_annotator(records: Sequence[Record]) -> Mapping[str, int]:
  """Pairs each named annotator judged, the busiest first."""
  counts = collections.Counter(
    record.annotator for record in records if record.annotator is not None
  )
  return dict(counts.most_common())
