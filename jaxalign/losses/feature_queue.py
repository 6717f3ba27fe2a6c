"""Feature queue: earlier features that fill up the prototypes of small batches.

An explicit state: made once, pushed after each step, saved with the rest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks
from jaxalign.ops.masked import AxisName


class FeatureQueue(NamedTuple):
  """Earlier features that help to fill the prototypes, newest first."""

  view_a: jax.Array  # float [Q, D]
  view_b: jax.Array  # float [Q, D]
  where: jax.Array  # bool [Q], True where a row has been filled


def init_feature_queue(size: int, features: int) -> FeatureQueue:
  """An empty queue.

  Args:
    size: Q, rows kept, Python int; K prototypes want at least K rows in the
      batch and the queue together.
    features: D, Python int.

  Returns:
    The queue, zeros [Q, D] of which no row counts.
  """
  return FeatureQueue(
    jnp.zeros((size, features), jnp.float32),
    jnp.zeros((size, features), jnp.float32),
    jnp.zeros(size, jnp.bool_),
  )


def push_features(
  queue: FeatureQueue,
  view_a: jax.Array,
  view_b: jax.Array,
  *,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> FeatureQueue:
  """The queue with the counted rows of a batch in front, the oldest dropped.

  Args:
    queue: the queue before the step, [Q, D].
    view_a: first view of the batch, float [N, D].
    view_b: second view, float [N, D].
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the rows are spread over; the queue then takes the
      rows of all devices and stays the same on all. None on one device.

  Returns:
    The new queue, [Q, D], without gradient.

  Raises:
    TypeError: a view is not floating point or `where` is not bool.
    ValueError: shapes do not fit.
  """
  checks.rank(2, view_a=view_a)
  checks.same_shape(view_a=view_a, view_b=view_b)
  views = checks.floating(view_a=view_a, view_b=view_b)
  if jnp.shape(view_a)[1] != queue.view_a.shape[1]:
    raise ValueError(
      f"view_a must be [N, {queue.view_a.shape[1]}], got {jnp.shape(view_a)}"
    )
  if where is None:
    where = jnp.ones(jnp.shape(view_a)[0], jnp.bool_)
  checks.boolean(where=where)
  if jnp.shape(where) != jnp.shape(view_a)[:1]:
    raise ValueError(
      f"where must be {jnp.shape(view_a)[:1]}, got {jnp.shape(where)}"
    )
  views = [jnp.where(where[:, None], x, 0.0) for x in views]
  rows = _replicated((*views, jnp.asarray(where)), axis_name)
  joined = [
    jnp.concatenate([new.astype(old.dtype), old])
    for new, old in zip(rows, queue, strict=True)
  ]
  order = jnp.argsort(~joined[2], stable=True)[: queue.where.shape[0]]
  return jax.lax.stop_gradient(FeatureQueue(*(x[order] for x in joined)))


def _replicated(
  arrays: tuple[jax.Array, ...], axis_name: AxisName
) -> tuple[jax.Array, ...]:
  """The same rows as a value that shard_map knows to be equal everywhere.

  What all_gather returns counts as different on every device, and state built
  from it could not leave shard_map unsharded; a sum of parts can.
  """
  if axis_name is None:
    return arrays
  size, index = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)

  def spread(x: jax.Array) -> jax.Array:
    number = x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
    here = (jnp.arange(size) == index).reshape((-1,) + (1,) * x.ndim)
    placed = jnp.where(here, number[None], 0)
    total: jax.Array = jax.lax.psum(placed, axis_name)
    return total.reshape((-1,) + x.shape[1:]).astype(x.dtype)

  return tuple(spread(x) for x in arrays)
