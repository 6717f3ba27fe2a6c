"""Returns and advantages (GAE) along time, across masked gaps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


class Advantages(NamedTuple):
  """Advantages and the returns they imply, 0 where masked."""

  advantages: jax.Array  # A, [..., T]
  returns: jax.Array  # A + V, [..., T]


def _step(x_tp1: jax.Array, step_t: jax.Array) -> tuple[jax.Array, jax.Array]:
  """A step back; a function of the module, so that scans share a compile."""
  x_t = step_t[1] + step_t[0] * x_tp1
  return x_t, x_t


def backward_recursion(scale: jax.Array, shift: jax.Array) -> jax.Array:
  """Solves x_t = shift_t + scale_t · x_{t+1} with nothing after the last step.

  Args:
    scale: float [..., T].
    shift: float [..., T].

  Returns:
    x, [..., T].

  Raises:
    TypeError: an argument is not floating point.
    ValueError: the shapes differ or hold no step.
  """
  checks.same_shape(scale=scale, shift=shift)
  if jnp.ndim(shift) < 1 or jnp.shape(shift)[-1] < 1:
    raise ValueError(
      f"shift must be [..., T] with a step, got shape {jnp.shape(shift)}"
    )
  scale, shift = checks.floating(scale=scale, shift=shift)
  # One array and its last step as the carry: a carry of zeros would be of
  # another type than the rows under shard_map.
  steps = jnp.moveaxis(jnp.stack([scale, shift]), -1, 0)

  last = steps[-1, 1]
  _, earlier = jax.lax.scan(_step, last, steps[:-1], reverse=True)
  return jnp.moveaxis(jnp.concatenate([earlier, last[None]]), 0, -1)


def next_counted(
  values: jax.Array, *, where: jax.Array, final_value: jax.Array
) -> jax.Array:
  """Value at the next step that counts, `final_value` after the last one.

  Args:
    values: float [..., T].
    where: bool [..., T].
    final_value: float [...].

  Returns:
    [..., T]; defined at masked steps too.
  """
  ahead = jnp.concatenate([values[..., 1:], final_value[..., None]], axis=-1)
  stop = jnp.concatenate(
    [where[..., 1:], jnp.ones_like(where[..., :1])], axis=-1
  )
  zeros = jnp.zeros_like(ahead)
  return backward_recursion(
    jnp.where(stop, zeros, jnp.ones_like(ahead)), jnp.where(stop, ahead, zeros)
  )


def gae(
  rewards: jax.Array,
  values: jax.Array,
  *,
  discount: jax.Array | float,
  gae_lambda: float,
  where: jax.Array | None = None,
  final_value: jax.Array | float = 0.0,
) -> Advantages:
  """Generalised advantage estimates, in reward units.

    δ_t = r_t + γ_t V_n − V_t
    A_t = δ_t + γ_t λ A_n,   G_t = A_t + V_t

  where n is the next step that counts; after the last one V_n is the final
  value and A_n is 0. A γ_t of 0 ends an episode at t.

  Args:
    rewards: reward received at each step, float [..., T].
    values: value predicted before it, float [..., T].
    discount: γ, scalar or [..., T].
    gae_lambda: λ, Python float in [0, 1].
    where: bool [..., T], True counts, all by default. Gaps may hold anything.
    final_value: value of the state after the last counted step, scalar or
      [...].

  Returns:
    `advantages` and `returns`, [..., T], float32 or wider, 0 where masked.
    Differentiable in everything; a policy loss takes them as constants.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: shapes differ, or gae_lambda is out of range.

  References:
    Schulman et al., "High-dimensional continuous control using generalized
    advantage estimation", 2016, equation 16.
  """
  if not 0.0 <= gae_lambda <= 1.0:
    raise ValueError(f"gae_lambda must be in [0, 1], got {gae_lambda}")
  if jnp.ndim(rewards) < 1:
    raise ValueError("rewards must have a last axis of steps, got shape ()")
  if where is None:
    where = jnp.ones(jnp.shape(rewards), jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(rewards=rewards, values=values, where=where)
  rewards, values = checks.floating(rewards=rewards, values=values)
  batch = rewards.shape[:-1]
  discount = _filled("discount", discount, rewards.shape, rewards.dtype)
  final = _filled("final_value", final_value, batch, rewards.dtype)
  dtype = jnp.promote_types(
    rewards.dtype, jnp.promote_types(discount.dtype, final.dtype)
  )
  zeros = jnp.zeros(rewards.shape, dtype)
  values = jnp.where(where, values.astype(dtype), zeros)
  discount = jnp.where(where, discount.astype(dtype), zeros)
  following = next_counted(values, where=where, final_value=final.astype(dtype))
  delta = rewards.astype(dtype) + discount * following - values
  # A gap hands on what stands behind it: x_t = x_{t+1}.
  advantages = backward_recursion(
    jnp.where(where, discount * gae_lambda, jnp.ones_like(zeros)),
    jnp.where(where, delta, zeros),
  )
  advantages = jnp.where(where, advantages, zeros)
  return Advantages(advantages, advantages + values)


def _filled(
  name: str,
  value: jax.Array | float,
  shape: tuple[int, ...],
  dtype: jnp.dtype,
) -> jax.Array:
  """A scalar spread over `shape`, or the array of that shape."""
  if isinstance(value, (int, float)):
    return jnp.full(shape, value, dtype)
  (value,) = checks.floating(**{name: value})
  if value.ndim > 0 and value.shape != shape:
    raise ValueError(f"{name} must be a scalar or {shape}, got {value.shape}")
  return jnp.broadcast_to(value, shape)
