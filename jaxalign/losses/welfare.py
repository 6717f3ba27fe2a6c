"""Welfare functions: from group utilities to one objective."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks
from jaxalign.ops.masked import AxisName, masked_mean

# Which knob each kind of welfare reads; the others are refused.
_KNOBS = {
  "egalitarian": (),
  "utilitarian": ("weights",),
  "nash": ("weights",),
  "alpha_fair": ("weights", "order"),
  "cvar": ("weights", "alpha"),
  "soft_min": ("weights", "temperature"),
}


def group_utilities(
  rewards: jax.Array,
  *,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Mean reward of each group over the samples, in its reward unit.

    u_k = mean over counted s of rewards_sk

  Rewards of different models are comparable only after calibration.

  Args:
    rewards: reward of each sample under each group's model, float [S, K].
    where: bool [S] or [S, K], True counts, all by default.
    axis_name: mapped axes the samples are spread over, None on one device.

  Returns:
    Utilities, [K]; a group without samples gets 0.

  Raises:
    TypeError: rewards are not floating point or `where` is not bool.
    ValueError: rewards have not two axes, or `where` not their leading ones.
  """
  checks.rank(2, rewards=rewards)
  if where is None:
    where = jnp.ones(jnp.shape(rewards), jnp.bool_)
  return masked_mean(rewards, where=where, axis=0, axis_name=axis_name)


def sample_min_rewards(rewards: jax.Array) -> jax.Array:
  """Reward of the worst-off group of each sample, in reward units.

    m_s = min_k rewards_sk

  What the authors' code optimises. It is stricter than the paper's objective,
  E[min_k r_k] ≤ min_k E[r_k], and more sensitive to the groups' scales.

  Args:
    rewards: reward of each sample under each group's model, float [..., K].

  Returns:
    Rewards, [...]. Groups that tie share the gradient equally.

  Raises:
    TypeError: rewards are not floating point.
    ValueError: rewards have no axis.
  """
  _groups(rewards=rewards)
  (rewards,) = checks.floating(rewards=rewards)
  return jnp.min(rewards, axis=-1)


def maxmin_weights(utilities: jax.Array) -> jax.Array:
  """All weight on the worst-off group.

  Args:
    utilities: u, float [K].

  Returns:
    One-hot weights at the arg-min, the first on ties, [K]. A selection, so
    without gradient.

  Raises:
    TypeError: utilities are not floating point.
    ValueError: utilities have no axis.

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, algorithm 1.
  """
  _groups(utilities=utilities)
  (utilities,) = checks.floating(utilities=utilities)
  return jax.nn.one_hot(
    jnp.argmin(utilities, axis=-1), utilities.shape[-1], dtype=utilities.dtype
  )


def soft_min_weights(utilities: jax.Array, *, temperature: float) -> jax.Array:
  """Weights that lean towards the worst-off groups.

    w_k ∝ exp(−u_k / τ)

  the gradient of the "soft_min" welfare; τ → 0 gives `maxmin_weights`, τ → ∞
  gives equal weights.

  Args:
    utilities: u, float [K].
    temperature: τ > 0 in utility units, Python float.

  Returns:
    Weights on the simplex, [K].

  Raises:
    TypeError: utilities are not floating point.
    ValueError: utilities have no axis, or temperature is not positive.
  """
  _groups(utilities=utilities)
  _positive(temperature=temperature)
  (utilities,) = checks.floating(utilities=utilities)
  return jax.nn.softmax(-utilities / temperature, axis=-1)


def exponentiated_weights(
  weights: jax.Array, utilities: jax.Array, *, step_size: float
) -> jax.Array:
  """Exponentiated-gradient step of the weights against the policy.

    w'_k ∝ w_k exp(−η u_k)

  Repeated against best answers of the policy, the averages approach the
  saddle point of max over policies of min over groups.

  Args:
    weights: w on the simplex, float [K].
    utilities: u, float [K]; for losses to be equalised, their negatives.
    step_size: η ≥ 0 per utility unit, Python float.

  Returns:
    Weights on the simplex, [K]; a weight of 0 stays 0.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ or have no axis, or step_size is negative.

  References:
    Sagawa et al., "Distributionally robust neural networks for group shifts",
    2020, algorithm 1.
  """
  _groups(weights=weights)
  checks.same_shape(weights=weights, utilities=utilities)
  if not step_size >= 0.0:
    raise ValueError(f"step_size must not be negative, got {step_size}")
  weights, utilities = checks.floating(weights=weights, utilities=utilities)
  present = weights > 0
  logits = jnp.log(jnp.where(present, weights, 1.0)) - step_size * utilities
  return jax.nn.softmax(jnp.where(present, logits, -jnp.inf), axis=-1)


def welfare(
  utilities: jax.Array,
  *,
  kind: str,
  weights: jax.Array | None = None,
  temperature: float | None = None,
  order: float | None = None,
  alpha: float | None = None,
) -> jax.Array:
  """Social welfare of the groups' utilities, to be maximised.

    egalitarian   min_k u_k
    utilitarian   Σ w_k u_k
    nash          Σ w_k log u_k
    alpha_fair    Σ w_k u_k^(1−a) / (1−a);  order a = 1 is nash
    cvar          mean of the worst α of the mass w, the group on the edge
                  split; α = 1 is utilitarian
    soft_min      −τ log Σ w_k exp(−u_k / τ), between min and mean

  Args:
    utilities: u, float [K].
    kind: one of the above.
    weights: w on the simplex, float [K]; 1/K each by default.
    temperature: τ > 0 in utility units, Python float, of soft_min.
    order: a ≥ 0, Python float, of alpha_fair.
    alpha: α in (0, 1], Python float, of cvar.

  Returns:
    A scalar. The egalitarian kind splits its gradient between tied groups and
    has no curvature; soft_min is the smooth form. Under a transformation that
    hides the values, utilities that nash and alpha_fair would refuse give NaN.

  Raises:
    TypeError: an array is not floating point.
    ValueError: an unknown kind, a knob that the kind does not use or lacks or
      that is out of range, shapes that differ, or utilities that are not
      positive for nash and alpha_fair.

  References:
    Atkinson, "On the measurement of inequality", 1970: alpha_fair.
    Rockafellar & Uryasev, "Optimization of conditional value-at-risk", 2000.
  """
  checks.one_of(_KNOBS, kind=kind)
  given = dict(
    weights=weights, temperature=temperature, order=order, alpha=alpha
  )
  for name, value in given.items():
    if value is not None and name not in _KNOBS[kind]:
      raise ValueError(f"{name} is not used by kind {kind!r}")
    if value is None and name in _KNOBS[kind] and name != "weights":
      raise ValueError(f"kind {kind!r} needs {name}")
  _groups(utilities=utilities)
  checks.rank(1, utilities=utilities)
  (utilities,) = checks.floating(utilities=utilities)
  if weights is None:
    weights = jnp.full_like(utilities, 1 / utilities.shape[0])
  checks.same_shape(utilities=utilities, weights=weights)
  utilities, weights = checks.floating(utilities=utilities, weights=weights)
  if order is not None:
    return _alpha_fair(utilities, weights, order)
  if alpha is not None:
    return _lower_tail_mean(utilities, weights, alpha)
  if temperature is not None:
    _positive(temperature=temperature)
    return -temperature * jax.nn.logsumexp(-utilities / temperature, b=weights)
  if kind == "nash":
    return _alpha_fair(utilities, weights, 1.0)
  if kind == "egalitarian":
    return jnp.min(utilities)
  return jnp.sum(weights * utilities)


def _groups(**arrays: jax.Array) -> None:
  for name, array in arrays.items():
    if jnp.ndim(array) < 1 or jnp.shape(array)[-1] < 1:
      raise ValueError(
        f"{name} must have a last axis of groups, got shape {jnp.shape(array)}"
      )


def _positive(**knobs: float) -> None:
  for name, knob in knobs.items():
    if not knob > 0.0:
      raise ValueError(f"{name} must be positive, got {knob}")


def _alpha_fair(
  utilities: jax.Array, weights: jax.Array, order: float
) -> jax.Array:
  if not order >= 0.0:
    raise ValueError(f"order must not be negative, got {order}")
  positive = utilities > 0
  try:
    acceptable = bool(jnp.all(positive))
  except jax.errors.TracerBoolConversionError:
    acceptable = True  # unknown until run time, where it becomes a NaN
  if not acceptable:
    raise ValueError(
      f"utilities must be positive for nash and alpha_fair, got {utilities}"
    )
  utilities = jnp.where(positive, utilities, jnp.nan)
  if order == 1.0:
    return jnp.sum(weights * jnp.log(utilities))
  return jnp.sum(weights * utilities ** (1 - order)) / (1 - order)


def _lower_tail_mean(
  utilities: jax.Array, weights: jax.Array, alpha: float
) -> jax.Array:
  if not 0.0 < alpha <= 1.0:
    raise ValueError(f"alpha must be in (0, 1], got {alpha}")
  order = jnp.argsort(jax.lax.stop_gradient(utilities), stable=True)
  utilities, weights = utilities[order], weights[order]
  below = jnp.cumsum(weights) - weights
  taken = jnp.clip(alpha - below, 0.0, weights)
  return jnp.sum(taken * utilities) / alpha
