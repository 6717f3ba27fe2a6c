"""Contrastive losses on reward-model features, over the whole global batch.

Two views of a feature are two passes under different dropout masks; instances
are responses (`pair_rows`) or signed differences (`difference_rows`).
"""

import jax
import jax.numpy as jnp

from jaxalign.losses.feature_queue import FeatureQueue
from jaxalign.ops import checks
from jaxalign.ops.assignment import balanced_assignments, unit_rows
from jaxalign.ops.masked import AxisName


def pair_rows(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
  """Instances of a batch of pairs: every response is one.

  Args:
    chosen: features of the preferred responses, float [B, D].
    rejected: features of the other responses, float [B, D].

  Returns:
    Rows, [2B, D], the chosen first; a mask of pairs goes with it twice over.

  Raises:
    TypeError: features are not floating point.
    ValueError: the shapes differ.
  """
  checks.same_shape(chosen=chosen, rejected=rejected)
  chosen, rejected = checks.floating(chosen=chosen, rejected=rejected)
  return jnp.concatenate([chosen, rejected])


def difference_rows(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
  """Instances of a batch of pairs: both signed differences of each.

  Args:
    chosen: features of the preferred responses, float [B, D].
    rejected: features of the other responses, float [B, D].

  Returns:
    Rows chosen − rejected, then rejected − chosen, [2B, D].

  Raises:
    TypeError: features are not floating point.
    ValueError: the shapes differ.
  """
  checks.same_shape(chosen=chosen, rejected=rejected)
  chosen, rejected = checks.floating(chosen=chosen, rejected=rejected)
  return jnp.concatenate([chosen - rejected, rejected - chosen])


def simcse_loss(
  view_a: jax.Array,
  view_b: jax.Array,
  *,
  temperature: float = 0.05,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Cross-entropy of finding a row's other view among all rows, in nats.

    l_i = −log [ exp(cos(a_i, b_i)/τ) / Σ_{j counted} exp(cos(a_i, b_j)/τ) ]

  Args:
    view_a: first view of each instance, float [N, D].
    view_b: second view, row by row, float [N, D].
    temperature: τ > 0, Python float.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the rows are spread over; the candidates are then
      those of all devices. None on one device.

  Returns:
    Loss per row, [N], not reduced, 0 where masked.

  Raises:
    TypeError: a view is not floating point or `where` is not bool.
    ValueError: shapes do not fit, or temperature is not positive.

  References:
    Gao et al., "SimCSE", 2021, equation 1.
    Wang et al., "Secrets of RLHF in large language models part II", 2024,
    equation 9.
  """
  first, second, where = _views(view_a, view_b, temperature, where)
  candidates, counted = _gathered((second, where), axis_name)
  # Where nothing counts a row keeps all candidates: an empty log-sum-exp has
  # no finite gradient, and the row is dropped below.
  counted = counted | ~jnp.any(counted)
  logits = jnp.where(
    counted[None], _cosines(first, candidates) / temperature, -jnp.inf
  )
  positive = jnp.sum(first * second, axis=-1) / temperature
  return jnp.where(where, jax.nn.logsumexp(logits, axis=-1) - positive, 0.0)


def swav_loss(
  view_a: jax.Array,
  view_b: jax.Array,
  prototypes: jax.Array,
  *,
  temperature: float = 0.1,
  epsilon: float = 0.05,
  num_iters: int = 3,
  where: jax.Array | None = None,
  queue: FeatureQueue | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Predicting a view's prototype from the other view, in nats.

    ℓ(x, q) = −Σ_k q_k log softmax(x · c_k / τ)
    l_i = ℓ(a_i, q_b,i) + ℓ(b_i, q_a,i)

  with views and prototypes on the unit sphere and q the balanced assignments
  of Sinkhorn-Knopp on x · c_k / ε over the global batch, without gradient.

  Args:
    view_a: first view of each instance, float [N, D].
    view_b: second view, row by row, float [N, D].
    prototypes: c, float [K, D], learned with the model.
    temperature: τ > 0, Python float.
    epsilon: ε > 0, entropy of the assignments, Python float.
    num_iters: rounds of Sinkhorn-Knopp, Python int.
    where: bool [N], True counts, all by default.
    queue: earlier features that take part in the assignments only; useful
      when the global batch is smaller than K.
    axis_name: mapped axes the rows are spread over, None on one device.

  Returns:
    Loss per row, [N], not reduced, 0 where masked.

  Raises:
    TypeError: an array is not floating point or `where` is not bool.
    ValueError: shapes do not fit, or a knob is not positive.

  References:
    Caron et al., "Unsupervised learning of visual features by contrasting
    cluster assignments", 2020, equations 1 to 4.
    Wang et al., 2024, equations 7 and 8.
  """
  if not epsilon > 0.0:
    raise ValueError(f"epsilon must be positive, got {epsilon}")
  first, second, where = _views(view_a, view_b, temperature, where)
  checks.rank(2, prototypes=prototypes)
  if jnp.shape(prototypes)[1] != first.shape[1]:
    raise ValueError(
      f"prototypes must be [K, {first.shape[1]}], got {jnp.shape(prototypes)}"
    )
  first, second, prototypes = checks.floating(
    view_a=first, view_b=second, prototypes=prototypes
  )
  centres = unit_rows(prototypes)

  def log_prediction(rows: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(_cosines(rows, centres) / temperature, axis=-1)

  def assignment(rows: jax.Array, earlier: jax.Array | None) -> jax.Array:
    if earlier is not None:
      earlier = unit_rows(earlier).astype(rows.dtype)
      earlier = _cosines(earlier, centres) / epsilon
    return balanced_assignments(
      _cosines(rows, centres) / epsilon,
      num_iters=num_iters,
      where=where,
      queue=earlier,
      queue_where=None if queue is None else queue.where,
      axis_name=axis_name,
    )

  old_a, old_b = (None, None) if queue is None else queue[:2]
  loss = -jnp.sum(
    assignment(second, old_b) * log_prediction(first)
    + assignment(first, old_a) * log_prediction(second),
    axis=-1,
  )
  return jnp.where(where, loss, 0.0)


def _views(
  view_a: jax.Array,
  view_b: jax.Array,
  temperature: float,
  where: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Unit rows of both views, zeros under the mask, and the mask [N]."""
  checks.rank(2, view_a=view_a)
  checks.same_shape(view_a=view_a, view_b=view_b)
  if not temperature > 0.0:
    raise ValueError(f"temperature must be positive, got {temperature}")
  first, second = checks.floating(view_a=view_a, view_b=view_b)
  if where is None:
    where = jnp.ones(first.shape[0], jnp.bool_)
  checks.boolean(where=where)
  if jnp.shape(where) != first.shape[:1]:
    raise ValueError(f"where must be {first.shape[:1]}, got {jnp.shape(where)}")
  first = jnp.where(where[:, None], first, 0.0)
  second = jnp.where(where[:, None], second, 0.0)
  return unit_rows(first), unit_rows(second), jnp.asarray(where)


def _cosines(rows: jax.Array, others: jax.Array) -> jax.Array:
  """Inner products of unit rows, [N, M].

  Accelerators round the inputs of a float32 matmul unless told otherwise, and
  a temperature of 0.05 makes twenty of every such error.
  """
  return jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)


def _gathered(
  arrays: tuple[jax.Array, ...], axis_name: AxisName
) -> tuple[jax.Array, ...]:
  """The rows of all devices, in the order of their axis index."""
  if axis_name is None:
    return arrays
  return tuple(jax.lax.all_gather(x, axis_name, tiled=True) for x in arrays)
