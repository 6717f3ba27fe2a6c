"""MORE: one reward model from K sources, weighted by their head gradients.

The weights of the sources are the shortest convex combination of the gradients
of their losses in the reward head alone, which costs one small product and no
second backward pass. PCGrad and CAGrad weigh the same gradients in other ways.

Zeng et al., "On diversified preferences of large language model alignment",
2024. Equation numbers below are those of its fifth version.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import checks, min_norm_weights, segment_mean
from jaxalign.ops.masked import AxisName

_NORMALISERS = ("l2", "loss", "loss+", "none")
_MOST_PROJECTED = 6  # sources of PCGrad, whose orders are (K - 1)! for each
_HALVINGS = 40


class MoreDiagnostics(NamedTuple):
  """What to log beside the weights: without it nothing can be said of them."""

  entropy: jax.Array  # of the weights in nats, []; log K when uniform
  norms: jax.Array  # of the K head gradients, [K]
  cosines: jax.Array  # between head gradients, [K, K]; 0 for a zero one
  combined_norm: jax.Array  # of Σ λ_k g_k, []; 0 at a Pareto-stationary head


def _gram(rows: jax.Array) -> jax.Array:
  # Accelerators round the inputs of a product to bfloat16 unless told not to.
  return jnp.einsum("id,jd->ij", rows, rows, precision="highest")


def _counted_rows(
  gradients: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """Gradients [K, D] with zeros under the mask, and the mask [K]."""
  checks.rank(2, gradients=gradients)
  checks.boolean(where=where)
  (gradients,) = checks.floating(gradients=gradients)
  counted = jnp.ones(gradients.shape[:1], jnp.bool_) if where is None else where
  if jnp.shape(counted) != gradients.shape[:1]:
    raise ValueError(
      f"where must be [K] for gradients [K, D], got where {counted.shape} for "
      f"gradients {gradients.shape}"
    )
  return jnp.where(counted[:, None], gradients, 0.0), counted


def _lengths(rows: jax.Array) -> jax.Array:
  """Euclidean norms [K], with gradient 0 rather than NaN at a zero row."""
  # A well-fitted source has gradients whose squares are 0 in float32.
  unit = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=-1))
  unit = jnp.where(unit > 0, unit, 1.0)
  scaled = rows / unit[:, None]
  squares = jnp.sum(scaled * scaled, axis=-1)
  some = squares > 0
  return jnp.where(some, unit * jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)


def more_weights(
  gradients: jax.Array,
  *,
  normalise: str = "l2",
  losses: jax.Array | None = None,
  where: jax.Array | None = None,
) -> jax.Array:
  """Weights of the K sources for the next step.

    λ = argmin ‖Σ_k λ_k u_k‖²   over λ ≥ 0, Σ λ = 1

    "l2"    u_k = g_k / ‖g_k‖, or g_k where it is 0
    "loss"  u_k = g_k / (1 + loss_k)
    "loss+" u_k = g_k / (loss_k ‖g_k‖), or g_k where that is 0
    "none"  u_k = g_k, so the source with the smallest gradient weighs most

  Args:
    gradients: one flattened head gradient per source, float [K, D].
    normalise: "l2", "loss", "loss+" or "none".
    losses: mean loss of each source, float [K]; for "loss" and "loss+", and
      only then.
    where: bool [K], True for a source present in the batch, all by default. A
      source that is absent but not masked has gradient 0 and takes all weight.

  Returns:
    λ, [K], without gradient; a masked source gets 0.

  Raises:
    TypeError: a wrong dtype.
    ValueError: another word, shapes that differ, or `losses` missing or unused.

  References:
    Zeng et al., 2024, eq. (7) and appendix B; the normalisations are those of
    the authors' program.
    Sener & Koltun, "Multi-task learning as multi-objective optimization", 2018.
  """
  checks.one_of(_NORMALISERS, normalise=normalise)
  if (losses is not None) != (normalise in ("loss", "loss+")):
    raise ValueError(
      "losses go with normalise='loss' or 'loss+' alone, got normalise="
      f"{normalise!r} {'without' if losses is None else 'with'} losses"
    )
  rows, counted = _counted_rows(gradients, where)
  divisor = jnp.ones(rows.shape[:1], rows.dtype)
  if losses is not None:
    if jnp.shape(losses) != rows.shape[:1]:
      raise ValueError(
        f"losses must be [{rows.shape[0]}], got {jnp.shape(losses)}"
      )
    rows, losses = checks.floating(gradients=rows, losses=losses)
    divisor = jnp.where(
      counted, losses + (1.0 if normalise == "loss" else 0.0), 1.0
    )
  if normalise in ("l2", "loss+"):
    divisor = divisor * _lengths(rows)
  rows = rows / jnp.where(divisor > 0, divisor, 1.0)[:, None]
  return min_norm_weights(_gram(_to_unit_range(rows)), where=counted)


def pcgrad_weights(
  gradients: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
  """Weights of the K sources by projecting conflicts away.

    for each k, over the other sources j in some order:
      v_k ← v_k − min(0, ⟨v_k, g_j⟩) / ‖g_j‖² g_j,   from v_k = g_k
    Σ_k λ_k g_k = (1/K) Σ_k v_k

  The paper draws an order per step; this is the mean over all of them, so no
  step depends on chance or on the names of the sources.

  Args:
    gradients: one flattened head gradient per source, float [K, D], K up to 6.
    where: bool [K], True for a source present in the batch, all by default.

  Returns:
    λ, [K], without gradient, each at least 1/K: 1/K without a conflict, more
    where others are turned towards the source. A masked source gets 0.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes that differ, or more sources.

  References:
    Yu et al., "Gradient surgery for multi-task learning", 2020, algorithm 1.
  """
  rows, counted = _counted_rows(jax.lax.stop_gradient(gradients), where)
  size = len(rows)
  if size > _MOST_PROJECTED:
    raise ValueError(
      f"PCGrad's mean over orders takes {_MOST_PROJECTED} sources at most, got "
      f"{size}"
    )
  gram = _gram(_to_unit_range(rows))
  squares = jnp.diagonal(gram)
  eye = jnp.eye(size, dtype=gram.dtype)

  def project(v: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
    some = squares[j] > 0
    against = jnp.minimum(v @ gram[j], 0.0)
    step = jnp.where(some, against / jnp.where(some, squares[j], 1.0), 0.0)
    return v - step * eye[j], None

  def projected(start: jax.Array, order: jax.Array) -> jax.Array:
    return jax.lax.scan(project, start, order)[0]

  orders = np.asarray(
    [
      list(itertools.permutations(j for j in range(size) if j != k))
      for k in range(size)
    ],
    np.int32,
  ).reshape(size, math.factorial(size - 1), size - 1)
  every = jax.vmap(jax.vmap(projected, in_axes=(None, 0)))(
    eye, jnp.asarray(orders)
  )
  total = jnp.sum(jnp.mean(every, axis=1), axis=0, where=counted[:, None])
  return total * _even(counted, total.dtype)


def cagrad_weights(
  gradients: jax.Array,
  *,
  radius: float = 0.4,
  where: jax.Array | None = None,
) -> jax.Array:
  """Weights of the K sources that serve the worst one near the average.

    d = argmax min_k ⟨g_k, d⟩   over ‖d − g_0‖ ≤ c ‖g_0‖,   g_0 = mean of g_k
      = g_0 + (c ‖g_0‖ / ‖g_w‖) g_w = Σ_k λ_k g_k
    w = argmin ⟨g_w, g_0⟩ + c ‖g_0‖ ‖g_w‖   over the simplex, g_w = Σ w_k g_k

  For t = ‖g_w‖ known, w is the min-norm point of the vectors
  g_k + t g_0 / (c ‖g_0‖), and t is found by halving.

  Args:
    gradients: one flattened head gradient per source, float [K, D].
    radius: c, in [0, 1): 0 for the average, near 1 for the min-norm direction.
    where: bool [K], True for a source present in the batch, all by default.

  Returns:
    λ, [K], without gradient, each at least 1/K; a masked source gets 0. Where
    the sources stand still already, ‖g_w‖ = 0, it is the average.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes that differ, or a radius outside [0, 1).

  References:
    Liu et al., "Conflict-averse gradient descent for multi-task learning",
    2021, algorithm 1.
  """
  if not 0 <= radius < 1:
    raise ValueError(f"radius must be in [0, 1), got {radius}")
  rows, counted = _counted_rows(jax.lax.stop_gradient(gradients), where)
  gram = _gram(_to_unit_range(rows))
  average = _even(counted, gram.dtype)
  slopes = gram @ average
  reach = radius * jnp.sqrt(jnp.maximum(average @ slopes, 0.0))  # c ‖g_0‖
  known = jnp.where(reach > 0, reach, 1.0)

  def worst(length: jax.Array) -> jax.Array:
    share = length / known
    shift = share * (slopes[:, None] + slopes[None, :])
    moved = gram + shift + share**2 * (average @ slopes)
    return min_norm_weights(moved, where=counted)

  def norm(w: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(w @ gram @ w, 0.0))

  def halve(
    _: int, ends: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    low, high = ends
    middle = (low + high) / 2
    longer = norm(worst(middle)) > middle
    return jnp.where(longer, middle, low), jnp.where(longer, high, middle)

  most = jnp.sqrt(jnp.max(jnp.diagonal(gram)))
  low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (0 * most, most))
  length = (low + high) / 2
  rounding = 8 * float(np.finfo(gram.dtype).eps) ** 0.5
  moves = (reach > 0) & (length > rounding * most)
  pull = jnp.where(moves, reach / jnp.where(moves, length, 1.0), 0.0)
  return average + pull * worst(length)


def _even(counted: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """One over the number of sources for each that is present, [K]."""
  present = counted.astype(dtype)
  return present / jnp.maximum(jnp.sum(present), 1)


def _to_unit_range(rows: jax.Array) -> jax.Array:
  """Rows in another unit: their squares have a range, the weights no unit."""
  largest = jnp.max(jnp.abs(rows))
  return rows / jnp.where(largest > 0, largest, 1.0)


def more_diagnostics(
  gradients: jax.Array, weights: jax.Array, *, where: jax.Array | None = None
) -> MoreDiagnostics:
  """What the weights did: whether sources conflict and what is left to gain.

  Near-orthogonal gradients of equal length give uniform weights, so an entropy
  near log K says that MORE was ordinary training on stratified batches.

  Args:
    gradients: one flattened head gradient per source, float [K, D].
    weights: λ, float [K].
    where: bool [K], True for a source present in the batch, all by default.

  Returns:
    `entropy` [] in nats, `norms` [K], `cosines` [K, K] and `combined_norm` [].

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes differ.
  """
  rows, _ = _counted_rows(gradients, where)
  rows, weights = checks.floating(gradients=rows, weights=weights)
  if weights.shape != rows.shape[:1]:
    raise ValueError(f"weights must be [{rows.shape[0]}], got {weights.shape}")
  norms = _lengths(rows)
  unit = rows / jnp.where(norms > 0, norms, 1.0)[:, None]
  some = weights > 0
  logs = jnp.log(jnp.where(some, weights, 1.0))
  combined = jnp.sum(weights[:, None] * rows, axis=0)
  return MoreDiagnostics(
    entropy=-jnp.sum(weights * logs),
    norms=norms,
    cosines=_gram(unit),
    combined_norm=_lengths(combined[None])[0],
  )


def source_weighted_loss(
  losses: jax.Array,
  *,
  source: jax.Array,
  weights: jax.Array,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Weighted sum of the K sources' mean losses, in the unit of the losses.

    L = Σ_k λ_k mean over n in source k of l_n

  With λ = 1/K on a stratified batch this is the plain mean.

  Args:
    losses: l, one per example, float [N].
    source: whose example it is, int [N] in [0, K).
    weights: λ, float [K]; K is their number.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the examples are spread over, None on one device.

  Returns:
    A scalar. A source without examples adds 0 and nothing is renormalised, so
    that the other sources' gradients do not depend on who else is there.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes differ.

  References:
    Zeng et al., 2024, eq. (7).
  """
  checks.rank(1, losses=losses, weights=weights, source=source)
  checks.integer(source=source)
  checks.same_shape(losses=losses, source=source, where=where)
  losses, weights = checks.floating(losses=losses, weights=weights)
  means = segment_mean(
    losses,
    segment=source,
    num_segments=weights.shape[0],
    where=where,
    axis_name=axis_name,
  )
  return jnp.sum(weights * means)
