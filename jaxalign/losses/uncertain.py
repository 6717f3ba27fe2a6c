"""Uncertain rewards: losses for a reward model that predicts a distribution.

A scalar reward averages over what it cannot see: who is asking and who is
judging. A spread per response shows where that hides a disagreement.
"""

import math

import jax
import jax.numpy as jnp

from jaxalign.ops import checks

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def _log_normal_cdf(z: jax.Array) -> jax.Array:
  """Log Φ(z), accurate in value and two derivatives at any z."""
  tail = z < -4.0
  # −d/dt log Φ(−t) as a continued fraction: in the tail the density and Φ both
  # underflow, and the difference of their logarithms loses every digit.
  t = jnp.where(tail, -z, 4.0)
  hazard = t
  for k in range(24, 0, -1):
    hazard = t + k / hazard
  far = -0.5 * t * t - _HALF_LOG_TWO_PI - jnp.log(hazard)
  # From the side where half the complementary error function is small. Each
  # side gets an input of its own, as a logarithm of 0 not used has a gradient.
  above = z > 0
  high = 0.5 * jax.lax.erfc(jnp.where(above, z, 0.0) * math.sqrt(0.5))
  low = 0.5 * jax.lax.erfc(jnp.where(tail | above, 0.0, -z) * math.sqrt(0.5))
  near = jnp.where(above, jnp.log1p(-high), jnp.log(low))
  return jnp.where(tail, far, near)


def mean_variance_loss(
  chosen_mean: jax.Array,
  rejected_mean: jax.Array,
  chosen_log_std: jax.Array,
  rejected_log_std: jax.Array,
) -> jax.Array:
  """Negative log-likelihood of a pair under independent normal rewards.

    l = −log Φ((μ_c − μ_r) / sqrt(σ_c² + σ_r²)),   σ = exp(log_std)

  Args:
    chosen_mean: mean reward of the preferred response, float [...].
    rejected_mean: mean reward of the other response, float [...].
    chosen_log_std: log standard deviation of the first, float [...].
    rejected_log_std: log standard deviation of the second, float [...].

  Returns:
    Loss per pair, [...], not reduced. Scaling all means and deviations alike
    changes nothing, so one of them needs an anchor.

  Raises:
    TypeError: an input is not floating point.
    ValueError: the shapes differ.

  References:
    Siththaranjan et al., "Distributional preference learning: understanding
    and accounting for hidden context in RLHF", 2023, section 4.
  """
  checks.same_shape(
    chosen_mean=chosen_mean,
    rejected_mean=rejected_mean,
    chosen_log_std=chosen_log_std,
    rejected_log_std=rejected_log_std,
  )
  chosen_mean, rejected_mean, chosen_log_std, rejected_log_std = (
    checks.floating(
      chosen_mean=chosen_mean,
      rejected_mean=rejected_mean,
      chosen_log_std=chosen_log_std,
      rejected_log_std=rejected_log_std,
    )
  )
  # Half the log of a sum of exponentials: no square that could overflow.
  log_scale = 0.5 * jnp.logaddexp(2 * chosen_log_std, 2 * rejected_log_std)
  return -_log_normal_cdf((chosen_mean - rejected_mean) * jnp.exp(-log_scale))
