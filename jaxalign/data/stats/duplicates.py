"""Exact and near duplicates, within a file and across splits.

Equality is judged after folding case and leaving out all but letters and
digits. Near-equality is a Jaccard similarity of word triples, candidates for
which are found by min-wise hashing, so that a million texts need no comparison
of every two.
"""

import re
import zlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record

SHINGLE = 3  # words
BANDS, ROWS = 16, 4  # finds 99.98 % of neighbours at similarity 0.8

_WORDS = re.compile(r"\w+")


class Repeats(NamedTuple):
  """How often pairs of one split repeat one another.

  Attributes:
    prompts: distinct prompts.
    repeated: pairs whose prompt and two responses occurred before.
    contradicted: those of them that prefer the response another one rejects.
    near: further pairs that almost repeat an earlier one.
  """

  prompts: int
  repeated: int
  contradicted: int
  near: int


class Leakage(NamedTuple):
  """What held-out pairs share with training pairs.

  Attributes:
    prompts: held-out pairs whose prompt occurs in training.
    near_prompts: further ones whose prompt almost does.
    responses: held-out pairs with a response that occurs in training.
    pairs: held-out pairs whose prompt and two responses occur in training.
    annotators: held-out pairs by a person who also judged training pairs.
    ids: held-out pairs whose id is also one of a training pair.
  """

  prompts: int
  near_prompts: int
  responses: int
  pairs: int
  annotators: int
  ids: int


def folded(text: str) -> str:
  """Text by which equality is judged; without a letter or digit as it is."""
  return " ".join(_WORDS.findall(text.casefold())) or text.strip()


def pair_key(record: Record) -> Hashable:
  """Equal for pairs of equal prompt and responses, whichever is preferred."""
  responses = sorted(folded(text_of(text)) for text in record.responses)
  return folded(text_of(record.prompt)), *responses


def find_repeats(records: Sequence[Record], *, similarity: float) -> Repeats:
  """Counts pairs that repeat others of the same split.

  Args:
    records: pairs.
    similarity: Jaccard similarity of word triples from which two pairs are near
      to one another, in (0, 1].

  Returns:
    The counts. Several votes on one pair, each by a named annotator, repeat
    nothing; they contradict each other as people do, which votes report.
  """
  first: dict[Hashable, int] = {}
  preferred: dict[Hashable, set[str]] = {}
  repeated = 0
  distinct = []
  contradicted: dict[Hashable, int] = {}
  for i, record in enumerate(records):
    key = pair_key(record)
    if key not in first:
      first[key] = i
      distinct.append(i)
    by = (key, record.annotator)
    choice = folded(text_of(record.responses[0]))
    if by in preferred:
      repeated += 1
      contradicted[by] = contradicted.get(by, 0) + (choice not in preferred[by])
    preferred.setdefault(by, set()).add(choice)
  texts = [" ".join(map(str, pair_key(records[i]))) for i in distinct]
  return Repeats(
    prompts=len({folded(text_of(record.prompt)) for record in records}),
    repeated=repeated,
    contradicted=sum(contradicted.values()),
    near=int((near_earlier(texts, similarity=similarity) >= 0).sum()),
  )


def find_leakage(
  train: Sequence[Record], held_out: Sequence[Record], *, similarity: float
) -> Leakage:
  """Counts held-out pairs that share something with training pairs.

  Args:
    train: pairs to learn from.
    held_out: pairs to be scored on.
    similarity: see `find_repeats`.

  Returns:
    The counts, each of at most all held-out pairs.
  """
  prompts = {folded(text_of(r.prompt)) for r in train}
  responses = {folded(text_of(t)) for r in train for t in r.responses}
  pairs = {pair_key(r) for r in train}
  annotators = {r.annotator for r in train} - {None}
  ids = {r.id for r in train} - {None}
  own = [folded(text_of(r.prompt)) for r in held_out]
  new = sorted(set(own) - prompts)
  known = sorted(prompts)
  near = near_earlier(known + new, similarity=similarity)[len(known) :]
  close = {
    text for text, at in zip(new, near, strict=True) if 0 <= at < len(known)
  }
  return Leakage(
    prompts=sum(text in prompts for text in own),
    near_prompts=sum(text in close for text in own),
    responses=sum(
      any(folded(text_of(t)) in responses for t in r.responses)
      for r in held_out
    ),
    pairs=sum(pair_key(r) in pairs for r in held_out),
    annotators=sum(r.annotator in annotators for r in held_out),
    ids=sum(r.id in ids for r in held_out),
  )


def near_earlier(texts: Sequence[str], *, similarity: float) -> np.ndarray:
  """For each text an earlier one that is nearly the same.

  Args:
    texts: folded texts, distinct.
    similarity: smallest Jaccard similarity of the sets of word triples, in
      (0, 1].

  Returns:
    Index of such a text, -1 where none was found, int64 [N]. What is found is
    verified; about 2 in 10 000 neighbours at similarity 0.8 are missed, and
    more below.

  Raises:
    ValueError: the similarity is out of range.
  """
  if not 0.0 < similarity <= 1.0:
    raise ValueError(f"similarity must be in (0, 1], got {similarity}")
  found = np.full(len(texts), -1, np.int64)
  if not texts:
    return found
  shingles = [_shingles(text) for text in texts]
  bands = _band_hashes(shingles)
  seen: dict[tuple[int, int], int] = {}
  for i, hashes in enumerate(bands.tolist()):
    candidates = {
      seen.setdefault((band, value), i) for band, value in enumerate(hashes)
    }
    for j in sorted(candidates - {i}):
      if _jaccard(shingles[i], shingles[j]) >= similarity:
        found[i] = j
        break
  return found


def _shingles(text: str) -> np.ndarray:
  """Hashes of the word triples, sorted, uint64; of the text if it is short."""
  words = text.split()
  triples = {
    " ".join(words[k : k + SHINGLE])
    for k in range(max(len(words) - SHINGLE + 1, 1))
  }
  return np.array(sorted(zlib.crc32(t.encode()) for t in triples), np.uint64)


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
  common = len(np.intersect1d(a, b, assume_unique=False))
  return common / (len(a) + len(b) - common)


def _band_hashes(shingles: Sequence[np.ndarray]) -> np.ndarray:
  """One hash per band of each text's min-hashes, uint64 [N, BANDS]."""
  rng = np.random.default_rng(0)
  values = np.concatenate(shingles)
  starts = np.cumsum([0, *map(len, shingles[:-1])])
  bands = np.zeros((len(shingles), BANDS), np.uint64)
  factors = rng.integers(0, 2**63, (BANDS, ROWS), np.uint64) | np.uint64(1)
  offsets = rng.integers(0, 2**63, (BANDS, ROWS), np.uint64)
  mix = np.uint64(0x9E3779B97F4A7C15)
  for band in range(BANDS):
    for row in range(ROWS):
      # Multiply-shift: the upper half of a product modulo 2**64.
      hashed = (values * factors[band, row] + offsets[band, row]) >> np.uint64(
        32
      )
      smallest = np.minimum.reduceat(hashed, starts)
      bands[:, band] = (bands[:, band] ^ smallest) * mix
  return bands
