"""Crowds: texts that many people labelled, and votes one by one.

A vote that is learned from is never judged by. People who marked single texts
(DICES, vader) give each vote a label of one text; of two texts that people
compared (humour, convarg) one wins and the other loses, a label of each.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of

# Of vader's snippets, of jokes and of debates, those that a hash names first.
SNIPPETS, JOKES, DEBATES = 1200, 1500, 7
VOTES = (1, 3, 10, 50)
# Marks from -4 to 4 as five labels, the best first.
FIVE = np.array([4, 4, 3, 3, 2, 1, 1, 0, 0])


@dataclasses.dataclass(frozen=True, eq=False)
class Crowd:
  """Texts and the votes on them.

  Attributes:
    texts: (prompt, text), [N].
    utilities: worth of the d labels, the best first.
    numbers: of votes on a training text to try.
    votes: takes a seed and the text whose votes each text has, [N]; returns
      counts of votes to judge by [N, d], and to learn from one by one, [N][n].
  """

  texts: list[tuple[str, str]]
  utilities: tuple[float, ...]
  numbers: tuple[int, ...]
  votes: Callable[[int, np.ndarray], tuple[np.ndarray, list[np.ndarray]]]


def named_first(names: Sequence[str], number: int) -> set[str]:
  """Some of the names, those that a hash puts first."""
  digest = lambda name: hashlib.sha256(name.encode()).digest()
  return {*sorted({*names}, key=digest)[:number]}


def debate_of(prompt: str) -> str:
  """The debate that an argument is for, without the side."""
  return prompt.partition(" Give one argument")[0]


def taken(texts: Sequence[tuple[str, str]]) -> np.ndarray:
  """Jokes, which have no prompt, or arguments that take part, bool [N]."""
  if any(prompt for prompt, _ in texts):
    debates = [debate_of(prompt) for prompt, _ in texts]
    chosen = named_first(debates, DEBATES)
    return np.array([debate in chosen for debate in debates])
  chosen = named_first([text for _, text in texts], JOKES)
  return np.array([text in chosen for _, text in texts])


def ordered_votes(counts: np.ndarray, seed: int) -> list[np.ndarray]:
  """The votes on each text one by one, in an order drawn from a seed."""
  rng = np.random.default_rng(seed)
  labels = np.arange(counts.shape[1])
  return [rng.permutation(np.repeat(labels, row)) for row in counts]


def counted(votes: Sequence[np.ndarray], labels: int) -> np.ndarray:
  """Counts of the labels in some votes on each text, [N, labels]."""
  return np.stack([np.bincount(one, minlength=labels) for one in votes])


def of_counts(
  found: dict[tuple[str, str], np.ndarray],
  utilities: tuple[float, ...],
  numbers: tuple[int, ...],
) -> Crowd:
  """People who labelled single texts; half of the votes on each judge.

  Args:
    found: counts of the labels by text.
    utilities: of the labels.
    numbers: of votes to try.
  """
  counts = np.stack([*found.values()])

  def votes(
    seed: int, order: np.ndarray
  ) -> tuple[np.ndarray, list[np.ndarray]]:
    each = ordered_votes(counts[order], seed)
    judged = counted([one[: len(one) // 2] for one in each], len(utilities))
    return judged, [one[len(one) // 2 :] for one in each]

  return Crowd([*found], utilities, numbers, votes)


def of_duels(
  texts: list[tuple[str, str]], duels: np.ndarray, who: np.ndarray, labels: int
) -> Crowd:
  """People who compared two texts; half of them judge, or half of the votes.

  Args:
    texts: (prompt, text), [N].
    duels: of each vote the text that won and the other one, and 1 for a tie,
      int [V, 3].
    who: of each vote, numbers; votes of one number are never parted.
    labels: 3 with ties (wins, even, loses), or 2.
  """
  win, tie, lose = 0, 1, labels - 1

  def halves(seed: int) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    judge = rng.random(int(who.max()) + 1)[who] < 0.5
    shuffled = rng.permutation(len(duels))
    each = []
    for half in (judge, ~judge):
      rows = shuffled[half[shuffled]]
      a, b, even = duels[rows].T
      text = np.concatenate([a, b])
      label = np.concatenate(
        [np.where(even, tie, win), np.where(even, tie, lose)]
      )
      mixed = rng.permutation(len(text))  # wins and losses in one order
      text, label = text[mixed], label[mixed]
      by = np.argsort(text, kind="stable")
      ends = np.cumsum(np.bincount(text, minlength=len(texts)))[:-1]
      each.append(np.split(label[by], ends))
    return each

  def votes(
    seed: int, order: np.ndarray
  ) -> tuple[np.ndarray, list[np.ndarray]]:
    judge, learn = halves(seed)
    judged = counted([judge[n] for n in order], labels)
    return judged, [learn[n] for n in order]

  utilities = (1.0, 0.0, -1.0) if labels == 3 else (1.0, -1.0)
  numbers = VOTES if labels == 3 else VOTES[:3]
  return Crowd(texts, utilities, numbers, votes)


def read_duels(folder: str, name: str) -> Crowd:
  """The votes of humour, each by itself, or of convarg, parted by people.

  Left out are texts with fewer than ten votes, of which one half may be empty.
  """
  texts: dict[tuple[str, str], int] = {}
  people: dict[str, int] = {}
  duels, who = [], []
  for record in reader.RecordStream([f"{folder}/{name}/votes_*"]):
    # All jokes have one prompt, which says nothing.
    prompt = text_of(record.prompt) if record.annotator else ""
    first, second = (
      texts.setdefault((prompt, text_of(one)), len(texts))
      for one in record.responses[:2]
    )
    if record.annotator is None:
      given = [(first, second, 0)] * (record.votes_chosen or 0)
      given += [(second, first, 0)] * (record.votes_rejected or 0)
      who += range(len(duels), len(duels) + len(given))
    else:
      given = [(first, second, int(bool(record.tie)))]
      who.append(people.setdefault(record.annotator, len(people)))
    duels += given
  votes, voter = np.array(duels), np.array(who)
  there = enough_votes(votes, taken([*texts]))
  kept = there[votes[:, 0]] & there[votes[:, 1]]
  votes[:, :2] = (np.cumsum(there) - 1)[votes[:, :2]]
  return of_duels(
    [text for text, enough in zip(texts, there, strict=True) if enough],
    votes[kept], voter[kept], 3 if votes[:, 2].any() else 2,
  )  # fmt: skip


def enough_votes(
  duels: np.ndarray, there: np.ndarray, least: int = 10
) -> np.ndarray:
  """Texts with at least some votes on pairs of such texts, bool [N].

  Args:
    duels: of each vote two texts, and what else is known, [V, ...].
    there: texts that may take part, bool [N].
    least: votes.
  """
  number = len(there)
  while True:
    kept = there[duels[:, 0]] & there[duels[:, 1]]
    votes = np.bincount(duels[kept, :2].ravel(), minlength=number)
    if not np.any(there & (votes < least)):
      return there
    there = there & (votes >= least)


def read(folder: str, name: str) -> Crowd:
  """A crowd by name.

  Args:
    folder: of the data.
    name: "dices350", "dices990", "vader", "humour" or "convarg".
  """
  if name in ("humour", "convarg"):
    return read_duels(folder, name)
  spec = "vader_sentiment/snippets_*" if name == "vader" else f"dices/{name}*"
  found = {}
  for record in reader.RecordStream([f"{folder}/{spec}"]):
    text = text_of(record.prompt), text_of(record.responses[0])
    if record.label_votes is not None:
      found[text] = np.array(record.label_votes[0])
  if name != "vader":
    return of_counts(found, (1.0, 0.0, -1.0), VOTES)
  names = named_first([text for _, text in found], SNIPPETS)
  chosen = {
    one: np.bincount(FIVE, counts, 5).astype(int)
    for one, counts in found.items()
    if one[1] in names
  }
  return of_counts(chosen, (1.0, 0.5, 0.0, -0.5, -1.0), VOTES[:3])
