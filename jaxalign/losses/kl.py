"""KL divergence to a reference policy: estimators, controllers, mismatch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks
from jaxalign.ops.masked import AxisName, masked_mean

_ESTIMATORS = ("k1", "k2", "k3")
# e²⁰ is 5·10⁸: beyond it a ratio says no more, and float32 ends at e⁸⁸.
_LOG_RATIO_LIMIT = 20.0


def kl_estimate(
  log_probs: jax.Array,
  ref_log_probs: jax.Array,
  *,
  estimator: str = "k1",
) -> jax.Array:
  """One-sample estimate of KL(π ‖ π_ref) at each token, in nats.

    d = log π(y_t) − log π_ref(y_t)
    k1 = d,   k2 = ½ d²,   k3 = exp(−d) − 1 + d

  k1 is unbiased and may be negative; k2 is biased, its gradient is not; k3 is
  unbiased and never negative, but its gradient, over draws from π, is that of
  the forward KL(π_ref ‖ π). As a penalty in the reward only k1 leads to the
  policy that the KL describes, π_ref exp(r / β).

  Args:
    log_probs: log-probability of each drawn token, float [...].
    ref_log_probs: the same under the reference policy, float [...].
    estimator: "k1", "k2" or "k3".

  Returns:
    Estimate per token, [...]. k1 and k2 are never clamped, so
    what is logged is what was measured; k3 stops growing, gradient 0, where
    the reference is more than 20 nats likelier.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or the estimator is unknown.

  References:
    Schulman, "Approximating KL divergence", 2020.
  """
  checks.one_of(_ESTIMATORS, estimator=estimator)
  checks.same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
  log_probs, ref = checks.floating(
    log_probs=log_probs, ref_log_probs=ref_log_probs
  )
  difference = log_probs - ref
  if estimator == "k1":
    return difference
  if estimator == "k2":
    return 0.5 * jnp.square(difference)
  held = jnp.minimum(-difference, _LOG_RATIO_LIMIT)
  return jnp.expm1(held) - held


def full_kl(log_probs: jax.Array, ref_log_probs: jax.Array) -> jax.Array:
  """KL(π ‖ π_ref) summed over the vocabulary, in nats.

    Σ_v π_v (log π_v − log π_ref,v)

  Args:
    log_probs: log π, normalised, float [..., V]; −inf where π is 0.
    ref_log_probs: log π_ref, normalised, float [..., V].

  Returns:
    KL per position, [...], exact and without sampling noise; inf where the
    reference excludes what the policy does not.

  Raises:
    TypeError: an array is not floating point.
    ValueError: the shapes differ.
  """
  checks.same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
  log_probs, ref = checks.floating(
    log_probs=log_probs, ref_log_probs=ref_log_probs
  )
  possible = log_probs > -jnp.inf
  safe = jnp.where(possible, log_probs, 0.0)
  terms = jnp.exp(safe) * (safe - jnp.where(possible, ref, 0.0))
  return jnp.sum(jnp.where(possible, terms, 0.0), axis=-1)


class LogProbMismatch(NamedTuple):
  """Difference between sampler and learner log-probabilities."""

  mean_abs: jax.Array  # mean absolute difference in nats, scalar
  kl: jax.Array  # k3 estimate of KL(sampler ‖ learner) in nats, scalar
  max_ratio: jax.Array  # largest probability ratio either way, scalar


def log_prob_mismatch(
  log_probs: jax.Array,
  sampler_log_probs: jax.Array,
  *,
  where: jax.Array,
  axis_name: AxisName = None,
) -> LogProbMismatch:
  """How far the sampler's log-probabilities are from the learner's.

  Args:
    log_probs: the learner's log-probability of each token, float [...].
    sampler_log_probs: what the sampler reported, float [...].
    where: bool [...], True counts.
    axis_name: mapped axes the tokens are spread over, None on one device.

  Returns:
    Three scalars; without tokens 0, 0 and 1. A report, without gradient.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: the shapes differ.
  """
  (learner, sampler), where = checks.counted(
    where, log_probs=log_probs, sampler_log_probs=sampler_log_probs
  )
  learner, sampler = jax.lax.stop_gradient((learner, sampler))
  distance = jnp.abs(learner - sampler)
  largest = jnp.max(distance, initial=0.0)
  if axis_name is not None:
    largest = jax.lax.pmax(largest, axis_name)
  kl = kl_estimate(sampler, learner, estimator="k3")
  return LogProbMismatch(
    mean_abs=masked_mean(distance, where=where, axis_name=axis_name),
    kl=masked_mean(kl, where=where, axis_name=axis_name),
    max_ratio=jnp.exp(jnp.minimum(largest, _LOG_RATIO_LIMIT)),
  )


class KLController(NamedTuple):
  """State of a controller."""

  kl_coef: jax.Array  # coefficient of the KL penalty, scalar


def init_kl_controller(kl_coef: float) -> KLController:
  """The state that either controller starts from.

  Args:
    kl_coef: reward units per nat, Python float, at least 0.

  Returns:
    The state, a float32 scalar inside.

  Raises:
    ValueError: kl_coef is negative.
  """
  if not kl_coef >= 0.0:
    raise ValueError(f"kl_coef must not be negative, got {kl_coef}")
  return KLController(jnp.asarray(kl_coef, jnp.float32))


def fixed_kl_update(state: KLController) -> KLController:
  """Keeps the coefficient constant.

  Args:
    state: the state before the step, a scalar inside.

  Returns:
    The same state, a scalar inside.
  """
  return state


def adaptive_kl_update(
  state: KLController,
  observed_kl: jax.Array,
  *,
  target: float,
  horizon: float,
  num_samples: int,
) -> KLController:
  """Moves the coefficient until the measured KL meets its target.

    e = clip(KL / target − 1, −0.2, 0.2)
    β' = β (1 + e · num_samples / horizon)

  Args:
    state: the state before the step, a scalar inside.
    observed_kl: mean KL per response over the last rollout in nats, scalar,
      not clamped.
    target: KL aimed at in nats, Python float above 0.
    horizon: samples over which a clipped error moves β by a fifth, Python
      float above 0.
    num_samples: responses that were measured, over all devices.

  Returns:
    The new state, a scalar inside.

  Raises:
    TypeError: observed_kl is not floating point.
    ValueError: target or horizon is not positive.

  References:
    Ziegler et al., "Fine-tuning language models from human preferences",
    2019, section 2.2.
  """
  for name, knob in dict(target=target, horizon=horizon).items():
    if not knob > 0.0:
      raise ValueError(f"{name} must be positive, got {knob}")
  (observed,) = checks.floating(observed_kl=observed_kl)
  error = jnp.clip(observed / target - 1, -0.2, 0.2)
  factor = 1 + error * (num_samples / horizon)
  return KLController(state.kl_coef * factor.astype(state.kl_coef.dtype))
