"""Uncertain rewards: losses for a reward model that predicts a distribution.

A scalar reward averages over what it cannot see: who is asking and who is
judging. A spread per response shows where that hides a disagreement; a spread
per person says how little is known of somebody after a few pairs.
"""

import math

import jax
import jax.numpy as jnp

from jaxalign.losses import pairwise
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


def _log_two_cosh(square: jax.Array) -> jax.Array:
  """log(2 cosh(√x / 2)) with its first two derivatives, also at x = 0."""
  near = square < 0.01
  # Each side gets an input of its own, as a root of 0 not used has a gradient.
  x = jnp.where(near, square, 0.0)
  series = x * (1 / 8 + x * (-1 / 192 + x * (1 / 2880 - x * (17 / 645120))))
  root = jnp.sqrt(jnp.where(near, 1.0, square))
  far = root / 2 + jnp.log1p(jnp.exp(-root))
  return jnp.where(near, math.log(2) + series, far)


def expected_preference_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  variance: jax.Array,
  *,
  chosen_prob: jax.Array | float = 1.0,
  margin: jax.Array | float = 0.0,
) -> jax.Array:
  """Least quadratic bound on the mean loss of a pair whose gap is uncertain.

    l = log(2 cosh(ξ / 2)) − (p − ½) m,   ξ² = m² + v
    m = chosen − rejected − margin

  The gap is normal with mean m and variance v, as that of a person of whom a
  few pairs are known. l is at least the mean of `soft_preference_loss` over the
  gap, and equal to it at v = 0. It grows with v, so a variance that no pair
  asks for costs something.

  Args:
    chosen: mean reward of the first response, float [...].
    rejected: mean reward of the second response, float [...].
    variance: v >= 0, of the gap, float [...].
    chosen_prob: p, share of votes for `chosen`, in [0, 1], scalar or [...].
    margin: gap the pair must clear, in reward units, scalar or [...].

  Returns:
    Loss per pair, [...], not reduced.

  Raises:
    TypeError: a reward or the variance, or an array given as probability or
      margin, is not floating point.
    ValueError: the shapes differ, or a chosen_prob is outside [0, 1]; of
      arrays that are traced, as under `jit`, this cannot be checked.

  References:
    Jaakkola & Jordan, "Bayesian parameter estimation via variational methods",
    2000.
  """
  gap = pairwise.gap_beyond(chosen, rejected, margin)
  checks.same_shape(chosen=chosen, variance=variance)
  checks.fraction(chosen_prob=chosen_prob)
  if isinstance(chosen_prob, (int, float)):
    chosen_prob = jnp.asarray(chosen_prob, gap.dtype)
  elif jnp.ndim(chosen_prob) > 0:
    checks.same_shape(chosen=chosen, chosen_prob=chosen_prob)
  gap, variance, prob = checks.floating(
    gap=gap, variance=variance, chosen_prob=chosen_prob
  )
  lean = prob - 0.5
  wide = jnp.abs(gap) > 1
  small = jnp.where(wide, 0.0, gap)
  near = _log_two_cosh(small * small + variance) - lean * small
  # Beyond it ξ/2 and m/2 are large and nearly equal: as v / (ξ + |m|) their
  # difference keeps its digits.
  large = jnp.where(wide, gap, 2.0)
  size, sign = jnp.abs(large), jnp.sign(large)
  root = jnp.sqrt(size * size + variance)
  far = variance / (root + size) / 2 + jnp.log1p(jnp.exp(-root))
  far = far + (0.5 - lean * sign) * size
  return jnp.where(wide, far, near)
