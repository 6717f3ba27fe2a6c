"""MORE: one reward model from K sources, weighted by their head gradients.

The weights of the sources are the shortest convex combination of the gradients
of their losses in the reward head alone, which costs one small product and no
second backward pass.

Zeng et al., "On diversified preferences of large language model alignment",
2024. Equation numbers below are those of its fifth version.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks, min_norm_weights, segment_mean
from jaxalign.ops.masked import AxisName

_NORMALISERS = ("l2", "loss", "none")


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
    "none"  u_k = g_k, so the source with the smallest gradient weighs most

  Args:
    gradients: one flattened head gradient per source, float [K, D].
    normalise: "l2", "loss" or "none".
    losses: mean loss of each source, float [K]; for "loss", and only then.
    where: bool [K], True for a source present in the batch, all by default. A
      source that is absent but not masked has gradient 0 and takes all weight.

  Returns:
    λ, [K], without gradient; a masked source gets 0.

  Raises:
    TypeError: a wrong dtype.
    ValueError: another word, shapes that differ, or `losses` missing or unused.

  References:
    Zeng et al., 2024, eq. (7) and appendix B; the normalisation is that of the
    authors' program.
    Sener & Koltun, "Multi-task learning as multi-objective optimization", 2018.
  """
  checks.one_of(_NORMALISERS, normalise=normalise)
  if (losses is not None) != (normalise == "loss"):
    raise ValueError(
      f"losses go with normalise='loss' alone, got normalise={normalise!r} "
      f"{'without' if losses is None else 'with'} losses"
    )
  rows, counted = _counted_rows(gradients, where)
  if normalise == "l2":
    lengths = _lengths(rows)
    rows = rows / jnp.where(lengths > 0, lengths, 1.0)[:, None]
  elif losses is not None:
    if jnp.shape(losses) != rows.shape[:1]:
      raise ValueError(
        f"losses must be [{rows.shape[0]}], got {jnp.shape(losses)}"
      )
    rows, losses = checks.floating(gradients=rows, losses=losses)
    rows = rows / jnp.where(counted, 1 + losses, 1.0)[:, None]
  # The solution does not depend on the unit, the range of a square does.
  largest = jnp.max(jnp.abs(rows))
  rows = rows / jnp.where(largest > 0, largest, 1.0)
  return min_norm_weights(_gram(rows), where=counted)


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
