"""Words and length together, the baseline of studies on frozen features."""

import numpy as np


def together(
  words: np.ndarray, length: np.ndarray, where: np.ndarray
) -> np.ndarray:
  """Gaps of pairs by words and length, weighed by the likelihood of some.

  Args:
    words: gaps under a bag of words, [N].
    length: gaps of the logarithm of the length, [N].
    where: pairs that say how much each counts, bool [N] or their numbers.

  Returns:
    [N].
  """
  both = np.stack([words, length], axis=1)
  both = both / (both[where].std(axis=0) + 1e-9)
  gaps: np.ndarray = both @ logistic(both[where])
  return gaps


def logistic(apart: np.ndarray) -> np.ndarray:
  """Weights [D] of Bradley-Terry on pairs [N, D], with a penalty of one."""
  weights = np.zeros(apart.shape[1])
  for _ in range(30):
    miss = 1 / (1 + np.exp(apart @ weights))
    hessian = (apart.T * (miss * (1 - miss))) @ apart + np.eye(len(weights))
    weights += np.linalg.solve(hessian, apart.T @ miss - weights)
  return weights
