"""GradNorm: weights of K sources by gradient norms and rates of training.

Chen et al., "GradNorm: gradient normalization for adaptive loss balancing in
deep multitask networks", 2018.
"""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


def gradnorm_loss(
  weights: jax.Array,
  *,
  norms: jax.Array,
  losses: jax.Array,
  first_losses: jax.Array,
  asymmetry: float,
  where: jax.Array | None = None,
) -> jax.Array:
  """How far the weighted gradient norms of K sources are from their targets.

    l = Σ_k |G_k − Ḡ ρ_k^α|,   G_k = w_k ‖g_k‖,   Ḡ = mean of G_k
    ρ_k = (L_k / L_k(0)) / mean over j of L_j / L_j(0)

  A source whose loss has fallen less than those of others (ρ_k > 1) is to have
  a larger gradient. The targets Ḡ ρ_k^α are held constant, as in the paper.

  Args:
    weights: w, float [K], >= 0.
    norms: ‖g_k‖, of the gradients of the unweighted losses, float [K].
    losses: L_k now, float [K], >= 0.
    first_losses: L_k(0), at the first step, float [K], > 0.
    asymmetry: α, a Python float >= 0; 0 for equal norms, more to favour those
      that train slowly.
    where: bool [K], True for a source present in the batch, all by default.

  Returns:
    l, a scalar in the unit of the norms, with gradient in `weights` alone; 0
    without a source.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes that differ, or a negative α.

  References:
    Chen et al., 2018, equations (1) and (2).
  """
  checks.at_least(0, asymmetry=asymmetry)
  weights, norms, target, _ = _targets(
    weights, norms, losses, first_losses, asymmetry, where
  )
  return jnp.sum(jnp.abs(weights * norms - target))


def gradnorm_weights(
  weights: jax.Array,
  *,
  norms: jax.Array,
  losses: jax.Array,
  first_losses: jax.Array,
  asymmetry: float,
  step_size: float,
  where: jax.Array | None = None,
) -> jax.Array:
  """Weights of the K sources for the next step, by one step on `gradnorm_loss`.

    w_k ← max(w_k − η ∂l/∂w_k / mean of ‖g_j‖, 0),   then w ← w / Σ w

  The paper leaves the kind of step open. Divided by the mean norm, a step does
  not depend on the unit of the losses, and no weight turns negative. Weights
  add up to 1 where the paper's add up to K.

  Args:
    weights: w, float [K].
    norms: as of `gradnorm_loss`.
    losses: as of `gradnorm_loss`.
    first_losses: as of `gradnorm_loss`.
    asymmetry: α, a Python float >= 0.
    step_size: η, a Python float > 0; the paper's toy problem has 0.025.
    where: bool [K], True for a source present in the batch, all by default.

  Returns:
    w, [K], without gradient. A masked source keeps its weight, and the others
    together theirs.

  Raises:
    TypeError: a wrong dtype.
    ValueError: shapes that differ, a negative α or no step size.

  References:
    Chen et al., 2018, algorithm 1.
  """
  checks.at_least(0, asymmetry=asymmetry)
  checks.above(0, step_size=step_size)
  present, norms, target, counted = _targets(
    weights, norms, losses, first_losses, asymmetry, where
  )
  number = jnp.maximum(jnp.sum(counted), 1).astype(norms.dtype)
  mean = jnp.sum(norms) / number
  slopes = jnp.sign(present * norms - target) * norms
  slopes = slopes / jnp.where(mean > 0, mean, 1.0)
  moved = jnp.maximum(present - step_size * slopes, 0.0)
  total = jnp.sum(moved)
  some = total > 0
  moved = moved * jnp.sum(present) / jnp.where(some, total, 1.0)
  kept = jnp.asarray(weights, moved.dtype)
  return jax.lax.stop_gradient(jnp.where(some & counted, moved, kept))


def _targets(
  weights: jax.Array,
  norms: jax.Array,
  losses: jax.Array,
  first_losses: jax.Array,
  asymmetry: float,
  where: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Weights, norms and constant targets of those present, and who is, [K]."""
  checks.rank(1, weights=weights)
  checks.same_shape(
    weights=weights,
    norms=norms,
    losses=losses,
    first_losses=first_losses,
    where=where,
  )
  checks.boolean(where=where)
  weights, norms, losses, first = checks.floating(
    weights=weights, norms=norms, losses=losses, first_losses=first_losses
  )
  counted = jnp.ones(weights.shape, jnp.bool_) if where is None else where
  number = jnp.maximum(jnp.sum(counted), 1).astype(norms.dtype)
  weights = jnp.where(counted, weights, 0.0)
  norms = jax.lax.stop_gradient(jnp.where(counted, norms, 0.0))
  known = counted & (first > 0)
  rate = jnp.where(known, losses, 0.0) / jnp.where(known, first, 1.0)
  average = jnp.sum(rate) / number
  relative = rate / jnp.where(average > 0, average, 1.0)
  # All losses at 0: nobody is behind.
  relative = jnp.where(average > 0, relative, 1.0)
  mean = jnp.sum(weights * norms) / number
  target = jnp.where(counted, mean * relative**asymmetry, 0.0)
  return weights, norms, jax.lax.stop_gradient(target), counted
