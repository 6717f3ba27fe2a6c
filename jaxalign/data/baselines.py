"""What a reward model must beat: response length, and a bag of words."""

import collections
import dataclasses
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from jaxalign.data.record import Record
from jaxalign.data.transcripts import text_of

NUM_FEATURES = 2**18
WORD = re.compile(r"\w+|[^\w\s]")


def always_longer_accuracy(records: Sequence[Record]) -> float:
  """Accuracy of preferring the response with more characters, ties one half.

  Args:
    records: at least one pair.

  Returns:
    The accuracy; the first response counts as the right one.
  """
  gaps = np.array(
    [
      len(text_of(r.responses[0])) - len(text_of(r.responses[1]))
      for r in records
    ]
  )
  return float(np.mean((np.sign(gaps) + 1) / 2))


@dataclasses.dataclass(frozen=True)
class _Sparse:
  """A matrix as entries `values` at (`rows`, `columns`)."""

  values: np.ndarray
  columns: np.ndarray
  rows: np.ndarray
  num_rows: int

  def times(self, vector: np.ndarray) -> np.ndarray:
    return np.bincount(
      self.rows, self.values * vector[self.columns], self.num_rows
    )

  def transposed_times(self, vector: np.ndarray) -> np.ndarray:
    return np.bincount(
      self.columns, self.values * vector[self.rows], NUM_FEATURES
    )


@dataclasses.dataclass(frozen=True, eq=False)
class BagOfWords:
  """Bradley-Terry logistic regression on hashed words and word pairs.

  The reward of a response is linear in its unigram and bigram counts, scaled to
  unit length; the prompt is not seen.

  Attributes:
    weights: float64 [NUM_FEATURES].
  """

  weights: np.ndarray

  @classmethod
  def fit(
    cls, records: Sequence[Record], *, l2: float = 1.0, num_steps: int = 100
  ) -> "BagOfWords":
    """Minimises -sum_i [p_i log s(g_i) + (1 - p_i) log s(-g_i)] + l2/2 |w|^2.

    g_i is the gap of pair i and p_i its `target_prob`. Nesterov's method with
    the step 1 / L that is safe for this loss.

    Args:
      records: training pairs.
      l2: weight of the penalty.
      num_steps: iterations.

    Returns:
      The fitted model.
    """
    matrix = _gap_matrix(records)
    target = np.array([record.target_prob for record in records])
    weights = ahead = np.zeros(NUM_FEATURES)
    # Largest eigenvalue of X'X by power iteration; the loss has L <= l2 + it/4.
    vector = np.random.default_rng(0).normal(size=NUM_FEATURES)
    for _ in range(20):
      vector = matrix.transposed_times(matrix.times(vector))
      norm = np.linalg.norm(vector)
      vector /= max(norm, 1e-30)
    smoothness = l2 + 1.1 * norm / 4
    for step in range(num_steps):
      prob = 1 / (1 + np.exp(-matrix.times(ahead)))
      gradient = matrix.transposed_times(prob - target) + l2 * ahead
      new = ahead - gradient / smoothness
      ahead = new + step / (step + 3) * (new - weights)
      weights = new
    return cls(weights)

  def gaps(self, records: Sequence[Record]) -> np.ndarray:
    """Reward of the first response minus that of the second, float64 [N]."""
    return _gap_matrix(records).times(self.weights)

  def accuracy(self, records: Sequence[Record]) -> float:
    """Share of pairs whose first response scores higher, ties one half."""
    return float(np.mean((np.sign(self.gaps(records)) + 1) / 2))


def _gap_matrix(records: Sequence[Record]) -> _Sparse:
  """Features of the first response minus those of the second, per pair."""
  values, columns, rows = [], [], []
  for i, record in enumerate(records):
    for text, sign in zip(record.responses, (1.0, -1.0), strict=True):
      counts = collections.Counter(_features(text_of(text)))
      norm = np.sqrt(sum(count * count for count in counts.values()))
      for column, count in counts.items():
        values.append(sign * count / norm)
        columns.append(column)
        rows.append(i)
  return _Sparse(
    np.array(values),
    np.array(columns, np.int64),
    np.array(rows, np.int64),
    len(records),
  )


def _features(text: str) -> Iterator[int]:
  """Hashed words and pairs of neighbouring words."""
  words = WORD.findall(text.lower())
  # crc32, because Python's own hash differs from process to process.
  for gram in (*words, *map(" ".join, zip(words, words[1:], strict=False))):
    yield zlib.crc32(gram.encode()) % NUM_FEATURES
