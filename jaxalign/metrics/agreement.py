"""Agreement between sources, groups and models."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


def reward_drift(
  source_rewards: jax.Array, shared_rewards: jax.Array
) -> jax.Array:
  """Distance of each source's reward from the shared one, in its unit.

    drift_k = std over responses s of (source_ks − shared_s)

  A constant offset drops out: a Bradley-Terry model cannot see it.

  Args:
    source_rewards: rewards by a model of each source alone, float [K, S].
    shared_rewards: rewards of the same responses by one model, float [S].

  Returns:
    Population standard deviations, [K]; 0 for a single response.

  Raises:
    TypeError: rewards are not floating point.
    ValueError: shapes do not fit.

  References:
    Zeng et al., "On diversified preferences of large language model
    alignment", 2024, eq. (4).
  """
  checks.rank(2, source_rewards=source_rewards)
  checks.rank(1, shared_rewards=shared_rewards)
  source, shared = checks.floating(
    source_rewards=source_rewards, shared_rewards=shared_rewards
  )
  if source.shape[1:] != shared.shape:
    raise ValueError(
      f"source_rewards must be [K, S] for shared_rewards [S], got "
      f"{source.shape} and {shared.shape}"
    )
  return jnp.std(source - shared[None, :], axis=1)


def preference_diversity(probs_i: jax.Array, probs_j: jax.Array) -> jax.Array:
  """Total variation between two groups' preferences, a probability.

    d_ij = mean over pairs s of |p_i(s) − p_j(s)|

  Args:
    probs_i: win probability of the first response in one group, float [S].
    probs_j: the same in another group, float [S].

  Returns:
    Scalar [] in [0, 1].

  Raises:
    TypeError: probabilities are not floating point.
    ValueError: shapes differ, or a known probability is outside [0, 1].

  References:
    Chakraborty et al., "MaxMin-RLHF: alignment with diverse human
    preferences", 2024, definition 1.
  """
  checks.rank(1, probs_i=probs_i)
  checks.same_shape(probs_i=probs_i, probs_j=probs_j)
  checks.fraction(probs_i=probs_i, probs_j=probs_j)
  probs_i, probs_j = checks.floating(probs_i=probs_i, probs_j=probs_j)
  return jnp.mean(jnp.abs(probs_i - probs_j))


def diversity_matrix(probs: jax.Array) -> jax.Array:
  """`preference_diversity` of every two of K groups.

  Args:
    probs: win probability of the first response per group, float [K, S].

  Returns:
    Symmetric matrix with zero diagonal, [K, K].

  Raises:
    TypeError: probabilities are not floating point.
    ValueError: `probs` does not have two axes, or a known probability is
      outside [0, 1].
  """
  checks.rank(2, probs=probs)
  checks.fraction(probs=probs)
  (probs,) = checks.floating(probs=probs)
  return jnp.mean(jnp.abs(probs[:, None, :] - probs[None, :, :]), axis=-1)
