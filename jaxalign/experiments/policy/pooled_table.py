"""Pooled reward on a table of answers: its cost to a minority, with bounds.

Two tastes are linear in the features of the answers, and one Bradley-Terry
model is fitted to what everybody says of all pairs. Everything is exact: there
is no sampling and the fit is Newton's.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxalign import metrics
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class PooledConfig:
  """Two tastes, and shares of people who have the second.

  Attributes:
    shares: η of the minority, each in (0, 1).
    angles: between the two tastes, in degrees, each in (0, 180].
    num_answers: answers to the one prompt.
    num_features: of an answer; the longest answer's features have length 1.
    taste: length of either taste, reward units per unit of the features.
    beta: reward units per nat of KL to the uniform policy.
    seed: of features and tastes.
  """

  shares: tuple[float, ...] = (0.5, 0.25, 0.1, 0.03, 0.01)
  angles: tuple[float, ...] = (30.0, 90.0, 180.0)
  num_answers: int = 12
  num_features: int = 3
  taste: float = 2.0
  beta: float = 0.2
  seed: int = 0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values out of range."""
    checks.at_least(2, num_features=self.num_features)
    checks.above(0, taste=self.taste, beta=self.beta)
    if self.num_answers <= self.num_features:
      raise ValueError(
        f"num_answers must be above num_features, got {self.num_answers} and "
        f"{self.num_features}"
      )
    if not all(0 < share < 1 for share in self.shares):
      raise ValueError(f"shares must be in (0, 1), got {self.shares}")
    if not all(0 < angle <= 180 for angle in self.angles):
      raise ValueError(f"angles must be in (0, 180], got {self.angles}")


def features_of(config: PooledConfig) -> np.ndarray:
  """Features of the answers, float64 [A, D], of length 1 at most."""
  rng = np.random.default_rng(config.seed)
  found = rng.normal(size=(config.num_answers, config.num_features))
  return np.asarray(found / np.linalg.norm(found, axis=1).max())


def tastes_of(config: PooledConfig, angle: float) -> np.ndarray:
  """Parameters of the majority and of the minority, float64 [2, D].

  Args:
    config: their length and the seed.
    angle: between them, in degrees.
  """
  rng = np.random.default_rng(config.seed + 1)
  plane, _ = np.linalg.qr(rng.normal(size=(config.num_features, 2)))
  turn = np.radians(angle)
  minority = np.cos(turn) * plane[:, 0] + np.sin(turn) * plane[:, 1]
  return config.taste * np.stack([plane[:, 0], minority])


def preferences(gaps: np.ndarray, taste: np.ndarray) -> np.ndarray:
  """σ(⟨φ, ψ_a − ψ_b⟩) of every pair, [P]."""
  return np.asarray(1 / (1 + np.exp(-gaps @ taste)))


def fit(gaps: np.ndarray, probs: np.ndarray, steps: int = 50) -> np.ndarray:
  """The Bradley-Terry model nearest to preferences over all pairs.

    argmin_φ −Σ p log σ(⟨φ, g⟩) + (1 − p) log σ(−⟨φ, g⟩)

  Args:
    gaps: differences of features g, [P, D].
    probs: p in (0, 1), [P].
    steps: of Newton's method, damped where one does not descend.

  Returns:
    φ, [D].
  """

  def loss(taste: np.ndarray) -> float:
    logits = gaps @ taste
    return float(np.sum(np.logaddexp(0, logits) - probs * logits))

  taste = np.zeros(gaps.shape[1])
  for _ in range(steps):
    found = preferences(gaps, taste)
    slope = gaps.T @ (found - probs)
    curvature = (gaps * (found * (1 - found))[:, None]).T @ gaps
    move = np.linalg.solve(curvature, slope)
    size = 1.0
    while loss(taste - size * move) > loss(taste) and size > 1e-8:
      size /= 2
    taste = taste - size * move
  return taste


def row(config: PooledConfig, angle: float, share: float) -> dict[str, float]:
  """The numbers of one crowd.

  Args:
    config: the table.
    angle: between the tastes, in degrees.
    share: η of the minority.

  Returns:
    `diversity` (total variation between the groups' preferences, which is ε of
    two groups), `mismatch` ‖φ − φ_u‖ of the minority with its bounds
    `mismatch_bound` and `mismatch_bound_tight`, and in reward units `gap`, what
    the pooled policy costs the minority, `gap_bound` and `gap_majority`;
    `worst` and `worst_maxmin`, what the worst-off group gains from the pooled
    and from the max-min policy; `gap_maxmin`, the larger gap under the latter.
    `not_bradley_terry` is the total variation between what people say and what
    the pooled model does, 0 where the lemma's assumption holds.
  """
  features, tastes = features_of(config), tastes_of(config, angle)
  first, second = np.triu_indices(config.num_answers, 1)
  gaps = features[first] - features[second]
  said = np.stack([preferences(gaps, taste) for taste in tastes])
  weights = np.array([1 - share, share])
  pooled = fit(gaps, weights @ said)
  diversity = np.abs(said[:, None] - said[None]).mean(axis=-1)
  epsilon = metrics.distinctiveness(diversity.astype(np.float32), group=1)
  of_share = np.float32(share)
  bound = lambda constant: float(
    metrics.reward_mismatch_bound(
      epsilon, of_share, feature_bound=1.0, constant=constant
    )
  )
  # A policy reads differences of features alone, so the least eigenvalue is
  # that of their covariance; log π moves by at most 2 D / β per unit of φ.
  least = float(np.linalg.eigvalsh(np.cov(features.T, bias=True))[0])
  reference = np.full(config.num_answers, 1 / config.num_answers, np.float32)
  rewards = (tastes @ features.T).astype(np.float32)
  policy = metrics.optimal_policy(
    reference, (features @ pooled).astype(np.float32), beta=config.beta
  )
  gap = lambda policy, k: float(
    metrics.alignment_gap(policy, reference, rewards[k], beta=config.beta)
  )
  fair = metrics.maxmin_policy(
    np.full((1, config.num_answers), 1 / config.num_answers),
    (tastes @ features.T)[:, None],
    beta=config.beta,
  ).policy[0]
  fair = np.asarray(fair, np.float32)
  worst = lambda policy: min(
    float(metrics.regularised_utility(policy, reference, own, beta=config.beta))
    for own in rewards
  )
  return {
    "angle": angle,
    "share": share,
    "diversity": float(diversity[0, 1]),
    "not_bradley_terry": float(
      np.abs(weights @ said - preferences(gaps, pooled)).mean()
    ),
    "mismatch": float(np.linalg.norm(pooled - tastes[1])),
    "mismatch_bound": bound("paper"),
    "mismatch_bound_tight": bound("tight"),
    "gap": gap(policy, 1),
    "gap_majority": gap(policy, 0),
    "worst": worst(policy),
    "worst_maxmin": worst(fair),
    "gap_maxmin": max(gap(fair, 0), gap(fair, 1)),
    "gap_bound": float(
      metrics.alignment_gap_bound(
        epsilon,
        of_share,
        min_eigenvalue=least,
        beta=config.beta,
        lipschitz=2 / config.beta,
        feature_bound=1.0,
      )
    ),
  }


def run(config: PooledConfig) -> list[dict[str, Any]]:
  """All crowds: a row for each angle and share."""
  return [
    row(config, angle, share)
    for angle in config.angles
    for share in config.shares
  ]
