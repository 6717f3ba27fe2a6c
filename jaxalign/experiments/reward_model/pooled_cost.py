"""Cost of one pooled reward to each latent group, on held-out pairs.

The groups are the heads of a mixture. Each held-out pair is a table of two
answers that the reference gives equally often, so that policies, and what a
group loses by them, are exact.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxalign import metrics

CROWD = "the crowd's vote"


def of_mixture(
  gaps: np.ndarray,
  shares: np.ndarray,
  *,
  beta: float,
  pooled: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Lemma 1, theorem 1 and the alignment gap, from measured diversity.

  The reward of "the crowd's vote" has on each pair the probability of a random
  member, Δ = logit Σ_k η_k σ(Δ_k). Lemma 1 is about this one, and assumes that
  some reward model says the same of all pairs.

  With features of length 1 at most, ‖φ − φ_k‖ is in reward units, and at least
  the `mismatch` measured here, the mean over pairs of |Δ − Δ_k| / 2. The least
  eigenvalue that theorem 1 takes is not known of a text; `gap_bound` has 1, the
  greatest that it can be, and is what the theorem promises at most.

  Args:
    gaps: reward of the first response over the second's, under each head,
      float64 [N, K].
    shares: η of the groups, [K].
    beta: reward units per nat of KL, > 0.
    pooled: gaps of models that were trained on everybody's pairs, [N] by name.

  Returns:
    JSON values: `beta`; `groups`, for each head `share`, `diversity` (to the
    head that is farthest, number `farthest`), `distinctiveness` ε,
    `mismatch_bound` of lemma 1, `mismatch_bound_tight` and `gap_bound`; and
    `pooled`, for "the crowd's vote" and every model of `pooled`, `mismatch`
    and `gap` of each head, [K].
  """
  probs = np.asarray((1 + np.tanh(gaps / 2)) / 2)  # σ, without overflow
  crowd = np.clip(probs @ shares, 1e-12, 1 - 1e-12)
  models = {CROWD: np.log(crowd) - np.log1p(-crowd), **(pooled or {})}
  diversity = np.asarray(
    metrics.diversity_matrix(jnp.asarray(probs.T, jnp.float32))
  )
  return {
    "beta": beta,
    "groups": [
      _bounds(diversity, group, float(share), beta)
      for group, share in enumerate(shares)
    ],
    "pooled": {
      name: {
        "mismatch": np.mean(np.abs(own[:, None] - gaps) / 2, axis=0).tolist(),
        "gap": [_gap(own, taste, beta) for taste in gaps.T],
      }
      for name, own in models.items()
    },
  }


def _bounds(
  diversity: np.ndarray, group: int, share: float, beta: float
) -> dict[str, Any]:
  """What the paper promises of one group; nothing where ε is not positive."""
  epsilon = float(metrics.distinctiveness(jnp.asarray(diversity), group=group))
  given = jnp.float32(max(epsilon, 0.0)), jnp.float32(share)
  bound = lambda constant: float(
    metrics.reward_mismatch_bound(*given, feature_bound=1.0, constant=constant)
  )
  farthest = int(np.argmax(diversity[group]))
  return {
    "share": share,
    "farthest": farthest,
    "diversity": float(diversity[group, farthest]),
    "distinctiveness": epsilon,
    "mismatch_bound": bound("paper"),
    "mismatch_bound_tight": bound("tight"),
    "gap_bound": float(
      metrics.alignment_gap_bound(
        *given,
        min_eigenvalue=1.0,
        beta=beta,
        # log π moves by at most 2 D / β per unit of φ.
        lipschitz=2 / beta,
        feature_bound=1.0,
      )
    ),
  }


def _gap(pooled: np.ndarray, own: np.ndarray, beta: float) -> float:
  """What a group loses to the policy of a pooled reward, mean over pairs."""
  table = lambda gaps: jnp.asarray(
    np.stack([gaps, np.zeros_like(gaps)], axis=1), jnp.float32
  )
  even = jnp.full((len(own), 2), 0.5)
  policy = metrics.optimal_policy(even, table(pooled), beta=beta)
  lost = metrics.alignment_gap(policy, even, table(own), beta=beta)
  return float(jnp.mean(jnp.maximum(lost, 0.0)))
