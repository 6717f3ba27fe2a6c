"""Trivial baselines for a reward model: response length and a bag of words."""

import collections
import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record

NUM_FEATURES = 2**18


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


@dataclasses.dataclass(frozen=True, eq=False)
class GapMatrix:
  """The matrix that takes weights to reward gaps, one row per pair.

  Kept as the features of distinct texts, because a crowd is shown the same few
  texts again and again: text `rows[j]` has feature `columns[j]` = `values[j]`,
  and pair i is text `sides[i, 0]` minus text `sides[i, 1]`.
  """

  values: np.ndarray
  columns: np.ndarray
  rows: np.ndarray
  sides: np.ndarray
  num_texts: int

  def times(self, weights: np.ndarray) -> np.ndarray:
    """Gaps [N] under `weights` [NUM_FEATURES]."""
    rewards = np.bincount(
      self.rows, self.values * weights[self.columns], self.num_texts
    )
    return rewards[self.sides[:, 0]] - rewards[self.sides[:, 1]]

  def transposed_times(self, per_pair: np.ndarray) -> np.ndarray:
    """The adjoint of `times`: [N] to [NUM_FEATURES]."""
    per_text = np.bincount(self.sides[:, 0], per_pair, self.num_texts)
    per_text -= np.bincount(self.sides[:, 1], per_pair, self.num_texts)
    return np.bincount(
      self.columns, self.values * per_text[self.rows], NUM_FEATURES
    )


@dataclasses.dataclass(frozen=True, eq=False)
class BagOfWords:
  """Bradley-Terry logistic regression on hashed words and word pairs.

  The reward of a response is linear in the counts of its words and pairs of
  neighbouring words, scaled to unit length; the prompt is not seen.

  Attributes:
    weights: float64 [NUM_FEATURES].
  """

  weights: np.ndarray

  @classmethod
  def fit(
    cls, records: Sequence[Record], *, l2: float = 0.5, num_steps: int = 100
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
    matrix = gap_matrix(records)
    target = np.array([record.target_prob for record in records])
    weights = ahead = np.zeros(NUM_FEATURES)
    # Largest eigenvalue of X'X by power iteration, a lower bound, so 10 % more.
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
    return gap_matrix(records).times(self.weights)

  def accuracy(self, records: Sequence[Record]) -> float:
    """Share of pairs whose first response scores higher, ties one half."""
    return float(np.mean((np.sign(self.gaps(records)) + 1) / 2))


def gap_matrix(records: Sequence[Record]) -> GapMatrix:
  """Word features of each pair's first response minus its second's."""
  index: dict[str, int] = {}
  sides = [
    [index.setdefault(text_of(text), len(index)) for text in record.responses]
    for record in records
  ]
  features = [word_features(text) for text in index]
  return GapMatrix(
    values=np.concatenate([counts for _, counts in features]),
    columns=np.concatenate([grams for grams, _ in features]),
    rows=np.repeat(np.arange(len(index)), [len(g) for g, _ in features]),
    sides=np.array(sides),
    num_texts=len(index),
  )


def word_features(text: str) -> tuple[np.ndarray, np.ndarray]:
  """Hashed words and pairs of neighbours, and their counts at unit length."""
  words = text.lower().split()
  grams = (*words, *map(" ".join, zip(words, words[1:], strict=False)))
  # crc32, because Python's own hash differs from process to process.
  hashed = collections.Counter(
    zlib.crc32(gram.encode()) % NUM_FEATURES for gram in grams
  )
  counts = np.array(list(hashed.values()), np.float64)
  norm = np.sqrt((counts**2).sum()) if len(counts) else 1.0
  return np.array(list(hashed), np.int64), counts / norm
