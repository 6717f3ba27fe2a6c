"""Balanced assignment of rows to columns, and unit vectors."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks
from jaxalign.ops.masked import AxisName


def unit_rows(x: jax.Array) -> jax.Array:
  """Rows scaled to length 1.

    y = x / ‖x‖₂ over the last axis

  Args:
    x: vectors, float [..., D].

  Returns:
    Unit vectors, [..., D], float32 or wider; a zero vector stays zero, with
    zero gradient.

  Raises:
    TypeError: x is not floating point.
  """
  (x,) = checks.floating(x=x)
  # A row's scale cancels, so its largest entry can be taken out as a constant:
  # no square overflows or vanishes.
  largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
  nonzero = largest > 0
  x = jnp.where(nonzero, x / jnp.where(nonzero, largest, 1.0), 0.0)
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.where(nonzero, square, 1.0))


def _log_column_sums(
  rows: jax.Array, where: jax.Array, axis_name: AxisName
) -> jax.Array:
  """The log Σ_n exp(rows_nk) over counted rows of all devices, [1, K]."""
  rows = jnp.where(where[:, None], rows, -jnp.inf)
  largest = jnp.max(rows, axis=0, keepdims=True)
  if axis_name is not None:
    largest = jax.lax.pmax(largest, axis_name)
  shift = jnp.where(largest > -jnp.inf, largest, 0.0)
  total = jnp.sum(jnp.exp(rows - shift), axis=0, keepdims=True)
  if axis_name is not None:
    total = jax.lax.psum(total, axis_name)
  # No row counts: any finite number will do, as nothing reads the result.
  return shift + jnp.log(jnp.where(total > 0, total, 1.0))


def balanced_assignments(
  scores: jax.Array,
  *,
  num_iters: int,
  where: jax.Array | None = None,
  queue: jax.Array | None = None,
  queue_where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Sinkhorn-Knopp: rows on the simplex, columns equally full, in turn.

    Q = exp(scores);  repeat: Q_nk /= Σ_n Q_nk;  Q_nk /= Σ_k Q_nk

  in the log domain. Rows are scaled last, so they are exact and the columns
  nearly so. Without gradient.

  Args:
    scores: affinity of each row to each column, float [N, K].
    num_iters: Python int, at least 1.
    where: bool [N], True counts, all by default.
    queue: scores of earlier rows that fill the columns too, float [Q, K]; the
      same on all devices.
    queue_where: bool [Q], True counts, all by default.
    axis_name: mapped axes the rows are spread over, None on one device. The
      queue is counted once.

  Returns:
    Q, [N, K]; rows sum to 1, also where masked.

  Raises:
    TypeError: scores are not floating point or a mask is not bool.
    ValueError: shapes do not fit, or num_iters is below 1.

  References:
    Cuturi, "Sinkhorn distances", 2013.
    Caron et al., "Unsupervised learning of visual features by contrasting
    cluster assignments", 2020, section 3.1.
  """
  if num_iters < 1:
    raise ValueError(f"num_iters must be at least 1, got {num_iters}")
  checks.rank(2, scores=scores)
  if queue is None:
    if queue_where is not None:
      raise ValueError("queue_where needs queue")
    # An empty queue keeps one code path; its row counts for nothing.
    queue = jnp.zeros((1, jnp.shape(scores)[1]), jnp.float32)
    queue_where = jnp.zeros(1, jnp.bool_)
  if jnp.shape(queue)[1:] != jnp.shape(scores)[1:]:
    raise ValueError(
      f"queue must be [Q, {jnp.shape(scores)[1]}], got {jnp.shape(queue)}"
    )
  scores, queue = checks.floating(scores=scores, queue=queue)
  log_rows, where = _clean(scores, where)
  log_queue, queue_where = _clean(queue, queue_where)

  def scale(
    _: int, logs: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    here = _log_column_sums(logs[0], where, axis_name)
    there = _log_column_sums(logs[1], queue_where, None)
    full = jnp.where(jnp.any(queue_where), jnp.logaddexp(here, there), here)
    rows, queue = (jax.nn.log_softmax(x - full, axis=-1) for x in logs)
    return rows, queue

  log_rows, _ = jax.lax.fori_loop(0, num_iters, scale, (log_rows, log_queue))
  return jnp.exp(log_rows)


def _clean(
  scores: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """Scores as constants with zeros under the mask, and the mask [N]."""
  if where is None:
    where = jnp.ones(scores.shape[0], jnp.bool_)
  checks.boolean(where=where)
  if jnp.shape(where) != scores.shape[:1]:
    raise ValueError(
      f"where must be {scores.shape[:1]}, got {jnp.shape(where)}"
    )
  return jax.lax.stop_gradient(jnp.where(where[:, None], scores, 0.0)), where
