"""Segment sums and means by group, over devices too, masks never read."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks
from jaxalign.ops.masked import AxisName


def _checked(
  x: jax.Array,
  segment: jax.Array,
  num_segments: int,
  where: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
  """`x` with zeros under the mask, and the mask [N]."""
  checks.rank(1, segment=segment)
  checks.integer(segment=segment)
  (x,) = checks.floating(x=x)
  if jnp.shape(x)[:1] != jnp.shape(segment):
    raise ValueError(
      f"segment must have the leading axis of x, got segment "
      f"{jnp.shape(segment)} for x {jnp.shape(x)}"
    )
  if num_segments < 1:
    raise ValueError(f"num_segments must be at least 1, got {num_segments}")
  if where is None:
    where = jnp.ones(jnp.shape(segment), jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(segment=segment, where=where)
  counted = jnp.reshape(where, jnp.shape(where) + (1,) * (jnp.ndim(x) - 1))
  return jnp.where(counted, x, 0.0), where


def _reduced(total: jax.Array, axis_name: AxisName) -> jax.Array:
  return total if axis_name is None else jax.lax.psum(total, axis_name)


def segment_sum(
  x: jax.Array,
  *,
  segment: jax.Array,
  num_segments: int,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Sum of the counted rows of each segment, in the unit of `x`.

    s_k = Σ_{n counted, segment_n = k} x_n

  Args:
    x: values, float [N, ...].
    segment: which segment a row belongs to, int [N]; a row with an index
      outside [0, num_segments) belongs to none.
    num_segments: K, a Python int.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the rows are spread over, None on one device.

  Returns:
    Sums, [K, ...], float32 or wider; an empty segment gives 0.

  Raises:
    TypeError: `x` is not floating point, `segment` not integer, `where` not
      bool.
    ValueError: shapes differ, or num_segments is below 1.
  """
  x, _ = _checked(x, segment, num_segments, where)
  return _reduced(jax.ops.segment_sum(x, segment, num_segments), axis_name)


def segment_count(
  segment: jax.Array,
  *,
  num_segments: int,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Number of counted rows of each segment.

  Args:
    segment: which segment a row belongs to, int [N].
    num_segments: K, a Python int.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the rows are spread over, None on one device.

  Returns:
    Counts, int32 [K].

  Raises:
    TypeError: `segment` is not integer or `where` not bool.
    ValueError: shapes differ, or num_segments is below 1.
  """
  _, where = _checked(
    jnp.zeros(jnp.shape(segment), jnp.float32), segment, num_segments, where
  )
  ones = where.astype(jnp.int32)
  return _reduced(jax.ops.segment_sum(ones, segment, num_segments), axis_name)


def segment_mean(
  x: jax.Array,
  *,
  segment: jax.Array,
  num_segments: int,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Mean of the counted rows of each segment, in the unit of `x`.

    m_k = s_k / max(number counted in k, 1)

  Args:
    x: values, float [N, ...].
    segment: which segment a row belongs to, int [N].
    num_segments: K, a Python int.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the rows are spread over, None on one device.

  Returns:
    Means, [K, ...], float32 or wider; an empty segment gives 0 with zero
    gradient.

  Raises:
    TypeError: `x` is not floating point, `segment` not integer, `where` not
      bool.
    ValueError: shapes differ, or num_segments is below 1.
  """
  total = segment_sum(
    x,
    segment=segment,
    num_segments=num_segments,
    where=where,
    axis_name=axis_name,
  )
  count = segment_count(
    segment, num_segments=num_segments, where=where, axis_name=axis_name
  )
  divisor = jnp.maximum(count, 1).astype(total.dtype)
  return total / jnp.reshape(divisor, (-1,) + (1,) * (total.ndim - 1))
