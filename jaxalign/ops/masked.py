"""Masked statistics over arrays and devices, exact and NaN-safe."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import checks

AxisName = str | Sequence[str] | None


def _expanded(x: jax.Array, where: jax.Array) -> jax.Array:
  """`where` with trailing axes added until it has the shape of `x`."""
  checks.boolean(where=where)
  leading = jnp.shape(x)[: jnp.ndim(where)]
  if jnp.shape(where) != leading or jnp.ndim(where) > jnp.ndim(x):
    raise ValueError(
      f"where must have the leading axes of x, got where {jnp.shape(where)} "
      f"for x {jnp.shape(x)}"
    )
  trailing = jnp.ndim(x) - jnp.ndim(where)
  return jnp.broadcast_to(
    jnp.reshape(where, jnp.shape(where) + (1,) * trailing), jnp.shape(x)
  )


def _total(
  x: jax.Array, axis: int | Sequence[int] | None, axis_name: AxisName
) -> jax.Array:
  """Sum over `axis`, kept, and over the devices of `axis_name`."""
  axes = tuple(axis) if isinstance(axis, Sequence) else axis
  total = jnp.sum(x, axis=axes, keepdims=True)
  return total if axis_name is None else jax.lax.psum(total, axis_name)


def _moments(
  x: jax.Array,
  where: jax.Array,
  axis: int | Sequence[int] | None,
  axis_name: AxisName,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean, deviations from it and their mean square, axes kept."""
  count = jnp.maximum(
    _total(where.astype(jnp.int32), axis, axis_name), 1
  ).astype(x.dtype)
  shift = jax.lax.stop_gradient(
    _total(jnp.where(where, x, 0.0), axis, axis_name) / count
  )
  # Summing what is left after a first mean removes that mean's rounding, which
  # would otherwise be all the variance a constant array has.
  centred = jnp.where(where, x - shift, 0.0)
  rest = _total(centred, axis, axis_name) / count
  deviation = jnp.where(where, centred - rest, 0.0)
  variance = _total(deviation * deviation, axis, axis_name) / count
  return shift + rest, deviation, variance


def _without_axes(x: jax.Array, axis: int | Sequence[int] | None) -> jax.Array:
  """Drops the kept axes of a reduction over `axis`."""
  if axis is None:
    return jnp.reshape(x, ())
  return jnp.squeeze(x, tuple(axis) if isinstance(axis, Sequence) else axis)


def masked_mean(
  x: jax.Array,
  *,
  where: jax.Array,
  axis: int | Sequence[int] | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Mean of the counted entries, in the unit of `x`.

    m = Σ_{i counted} x_i / max(number counted, 1)

  Args:
    x: values, float [...]; what stands under the mask is never read.
    where: bool, the leading axes of `x`; True counts.
    axis: axes of `x` to reduce, all by default.
    axis_name: mapped axes to reduce over as well, None on one device.

  Returns:
    The mean, [...] without `axis`, float32 or wider. Nothing counted gives 0
    with zero gradient.

  Raises:
    TypeError: `x` is not floating point or `where` is not bool.
    ValueError: `where` does not have the leading axes of `x`.
  """
  (x,) = checks.floating(x=x)
  where = _expanded(x, where)
  count = jnp.maximum(_total(where.astype(jnp.int32), axis, axis_name), 1)
  total = _total(jnp.where(where, x, 0.0), axis, axis_name)
  return _without_axes(total / count.astype(x.dtype), axis)


def masked_var(
  x: jax.Array,
  *,
  where: jax.Array,
  axis: int | Sequence[int] | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Population variance of the counted entries, in the squared unit of `x`.

    v = Σ_{i counted} (x_i − m)² / max(number counted, 1)

  Args:
    x: values, float [...]; what stands under the mask is never read.
    where: bool, the leading axes of `x`; True counts.
    axis: axes of `x` to reduce, all by default.
    axis_name: mapped axes to reduce over as well, None on one device.

  Returns:
    The variance, [...] without `axis`, float32 or wider. Nothing counted
    gives 0 with zero gradient, and so does a single entry.

  Raises:
    TypeError: `x` is not floating point or `where` is not bool.
    ValueError: `where` does not have the leading axes of `x`.
  """
  (x,) = checks.floating(x=x)
  where = _expanded(x, where)
  _, _, variance = _moments(x, where, axis, axis_name)
  return _without_axes(variance, axis)


def masked_whiten(
  x: jax.Array, *, where: jax.Array, axis_name: AxisName = None
) -> jax.Array:
  """Counted entries brought to mean 0 and population variance 1.

    y_i = (x_i − m) / sqrt(v)

  Args:
    x: values, float [...]; what stands under the mask is never read.
    where: bool, the leading axes of `x`; True counts.
    axis_name: mapped axes the statistics are taken over, None on one device.

  Returns:
    Whitened values without unit, [...], float32 or wider, 0 where masked.
    Entries that agree to within rounding have no scale to divide by and come
    out 0 with zero gradient.

  Raises:
    TypeError: `x` is not floating point or `where` is not bool.
    ValueError: `where` does not have the leading axes of `x`.
  """
  (x,) = checks.floating(x=x)
  where = _expanded(x, where)
  mean, deviation, variance = _moments(x, where, None, axis_name)
  # Below this a spread is the rounding of x itself, and dividing by it would
  # turn noise of the last bit into advantages of size one.
  rounding = 8 * float(np.finfo(x.dtype).eps)
  spread = variance > rounding**2 * (mean * mean + variance)
  # The root's slope at 0 is infinite, so the root never sees the 0.
  scale = jnp.where(
    spread, jax.lax.rsqrt(jnp.where(spread, variance, 1.0)), 0.0
  )
  return deviation * scale
