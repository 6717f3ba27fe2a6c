"""Pair and regression losses for a reward model that predicts a distribution.

A scalar reward averages over what it is not told: who is asking and who is
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
  """Likelihood loss of a pair whose rewards are independent normals, in nats.

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


def categorical_preference_loss(
  chosen_logits: jax.Array, rejected_logits: jax.Array
) -> jax.Array:
  """Likelihood loss of a pair whose rewards fall on common atoms, in nats.

    l = −log [ Σ_{i > j} p_i q_j + ½ Σ_i p_i q_i ]

  with p, q the softmax of the logits over atoms in rising order of reward.

  Args:
    chosen_logits: of the preferred response, float [..., d].
    rejected_logits: of the other response, float [..., d].

  Returns:
    Loss per pair, [...], not reduced.

  Raises:
    TypeError: an input is not floating point.
    ValueError: the shapes differ.

  References:
    Siththaranjan et al., "Distributional preference learning: understanding
    and accounting for hidden context in RLHF", 2023, section 4.
  """
  checks.same_shape(
    chosen_logits=chosen_logits, rejected_logits=rejected_logits
  )
  chosen, rejected = checks.floating(
    chosen_logits=chosen_logits, rejected_logits=rejected_logits
  )
  if chosen.ndim < 1:
    raise ValueError("logits must have a last axis of atoms, got shape ()")
  log_p = jax.nn.log_softmax(chosen, axis=-1)[..., :, None]
  log_q = jax.nn.log_softmax(rejected, axis=-1)[..., None, :]
  size = chosen.shape[-1]
  above = jnp.tril(jnp.ones((size, size), chosen.dtype))
  worth = above - 0.5 * jnp.eye(size, dtype=chosen.dtype)
  worth = jnp.reshape(worth, (1,) * (chosen.ndim - 1) + (size, size))
  # The logarithm of the sum, not the sum: a sure and wrong pair underflows.
  return -jax.nn.logsumexp(
    log_p + log_q,
    axis=(-2, -1),
    b=jnp.broadcast_to(worth, log_p.shape[:-2] + (size, size)),
  )


def quantile_regression_loss(
  quantiles: jax.Array,
  targets: jax.Array,
  *,
  levels: jax.Array,
  huber: float | None = None,
) -> jax.Array:
  """Loss of predicted reward quantiles against samples, in reward units.

    l = Σ_q mean_m |τ_q − [δ_mq < 0]| ρ(δ_mq),   δ_mq = target_m − quantile_q

  with ρ the absolute value, or the Huber function with threshold `huber`.

  Args:
    quantiles: predicted rewards, float [..., Q].
    targets: observed rewards or predicted ones, float [..., M].
    levels: τ, the probability below each quantile, float [Q] in [0, 1].
    huber: where ρ turns from quadratic to linear, None for absolute value.

  Returns:
    Loss per response, [...], not reduced; in squared units within the
    threshold.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit or `huber` is not positive.

  References:
    Koenker & Bassett, "Regression quantiles", 1978.
    Dabney et al., "Distributional reinforcement learning with quantile
    regression", 2018, eq. (10).
  """
  if huber is not None and not huber > 0:
    raise ValueError(f"huber must be positive or None, got {huber}")
  quantiles, targets, levels = checks.floating(
    quantiles=quantiles, targets=targets, levels=levels
  )
  if min(quantiles.ndim, targets.ndim) < 1 or (
    quantiles.shape[:-1] != targets.shape[:-1]
    or levels.shape != quantiles.shape[-1:]
  ):
    raise ValueError(
      f"expected quantiles [..., Q], targets [..., M] and levels [Q], got "
      f"{quantiles.shape}, {targets.shape} and {levels.shape}"
    )
  delta = targets[..., None, :] - quantiles[..., :, None]
  levels = jnp.reshape(levels, (1,) * (quantiles.ndim - 1) + (-1, 1))
  weight = jnp.abs(levels - (delta < 0).astype(delta.dtype))
  size = jnp.abs(delta)
  if huber is not None:
    inside = jnp.minimum(size, huber)
    size = inside * (size - 0.5 * inside)
  return jnp.sum(jnp.mean(weight * size, axis=-1), axis=-1)
