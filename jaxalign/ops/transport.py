"""Optimal transport between small histograms, in batches."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxalign.ops import checks, entropic


class Sinkhorn(NamedTuple):
  """Solutions of entropic transport problems."""

  plan: jax.Array  # [..., d, e], rows sum to a
  potential_a: jax.Array  # [..., d], in units of the cost
  potential_b: jax.Array  # [..., e], mean zero under b
  transport_cost: jax.Array  # [...], ⟨P, C⟩
  regularised_cost: jax.Array  # [...], ⟨P, C⟩ + ε KL(P‖a⊗b)
  marginal_error: jax.Array  # [...], L1 distance of the column sums from b


@jax.custom_jvp
def _dual_value(
  a: jax.Array, b: jax.Array, m: jax.Array, phi: jax.Array, gamma: jax.Array
) -> jax.Array:
  """⟨a, φ⟩ + ⟨b, γ⟩, differentiated as the optimum that it is."""
  del m
  return jnp.sum(a * phi, axis=-1) + jnp.sum(b * gamma, axis=-1)


@partial(_dual_value.defjvp, symbolic_zeros=True)
def _dual_value_jvp(
  primals: tuple[jax.Array, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
  """The envelope theorem: the potentials' own change has no first-order part.

  They stay in the derivative as functions, so a second derivative is right.
  """
  a, b, m, phi, gamma = primals
  value = _dual_value(*primals)
  da, db, dm, _, _ = tangents
  changes = jnp.zeros_like(value)
  # The plan is only made where the cost changes, which it seldom does.
  if not isinstance(da, SymbolicZero):
    changes += jnp.sum(da * phi, axis=-1)
  if not isinstance(db, SymbolicZero):
    changes += jnp.sum(db * gamma, axis=-1)
  if not isinstance(dm, SymbolicZero):
    _, given_row = entropic.rows(b, gamma, m)
    changes += jnp.sum(a[..., :, None] * given_row * dm, axis=(-2, -1))
  return value, changes


def _batched(
  a: jax.Array, b: jax.Array, cost: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Both histograms with all batch axes, the cost with as many axes."""
  a, b, cost = checks.floating(a=a, b=b, cost=cost)
  shapes = f"a {a.shape}, b {b.shape} and cost {cost.shape}"
  if min(a.ndim, b.ndim, cost.ndim - 1) < 1:
    raise ValueError(f"expected [..., d], [..., e], [..., d, e], got {shapes}")
  if cost.shape[-2:] != (a.shape[-1], b.shape[-1]):
    raise ValueError(f"cost must be [..., d, e] for a and b, got {shapes}")
  leading = (a.shape[:-1], b.shape[:-1])
  if leading[0] != leading[1] or cost.shape[:-2] not in ((), leading[0]):
    raise ValueError(f"batch axes must be equal, got {shapes}")
  missing = a.ndim + 1 - cost.ndim
  return a, b, jnp.reshape(cost, (1,) * missing + cost.shape)


def sinkhorn(
  a: jax.Array,
  b: jax.Array,
  cost: jax.Array,
  *,
  epsilon: float,
  num_iters: int,
) -> Sinkhorn:
  """Entropic optimal transport from a to b, in the unit of the cost.

    min_P ⟨P, C⟩ + ε KL(P‖a⊗b)   with P 1 = a, Pᵀ 1 = b

  It is solved by accelerated Sinkhorn sweeps of the whole batch. Rows that need
  more go on by Newton's method with products of the kernel exp(−C / ε). Those
  whose kernel no float can hold, below an ε of about a hundredth of the cost's
  range, go to Newton's method in logarithms along a path of falling ε. Each row
  of the batch stops when its marginals are met to rounding. `num_iters` only
  bounds each method: some ten are enough at an ε of a twentieth of the range,
  twenty at a hundredth.

  Args:
    a: masses of the rows, float [..., d], summing to 1; zeros allowed.
    b: masses of the columns, float [..., e], summing to 1; zeros allowed.
    cost: C, finite float [d, e] or [..., d, e].
    epsilon: ε > 0, in units of the cost.
    num_iters: most iterations of each method, a Python int of at least 1.

  Returns:
    `plan` [..., d, e], whose rows sum to `a` to rounding; `potential_a`
    [..., d] and `potential_b` [..., e], the latter with mean zero under `b`;
    `transport_cost` ⟨P, C⟩, `regularised_cost` and `marginal_error` (the L1
    distance of column sums from `b`), [...] each. An atom without mass moves
    none and has the potential at which it would enter, so gradients there are
    one-sided derivatives. Rows of `a` and `b` that are zero throughout give
    zeros. The derivative of `regularised_cost` is the envelope's (in `a` it is
    `potential_a`); all others go through the equations that the solution
    solves. Both assume that it is reached: see `marginal_error`.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `epsilon` or `num_iters` is out of range.

  References:
    Cuturi, "Sinkhorn distances", 2013.
    Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized
    transport problems", 2019: the falling ε.
    Brauer et al., "A Sinkhorn-Newton method for entropic optimal transport",
    2017.
    Aitken, "On Bernoulli's numerical solution of algebraic equations", 1926:
    the acceleration.
  """
  if isinstance(epsilon, (int, float)) and not epsilon > 0:
    raise ValueError(f"epsilon must be positive, got {epsilon}")
  if num_iters < 1:
    raise ValueError(f"num_iters must be at least 1, got {num_iters}")
  a, b, cost = _batched(a, b, cost)
  m = cost / epsilon
  phi, gamma = entropic.potentials(a, b, m, num_iters)
  _, given_row = entropic.rows(b, gamma, m)
  plan = a[..., :, None] * given_row
  return Sinkhorn(
    plan=plan,
    potential_a=epsilon * phi,
    potential_b=epsilon * gamma,
    transport_cost=jnp.sum(plan * cost, axis=(-2, -1)),
    regularised_cost=epsilon * _dual_value(a, b, m, phi, gamma),
    marginal_error=jnp.sum(jnp.abs(jnp.sum(plan, axis=-2) - b), axis=-1),
  )


def sinkhorn_divergence(
  a: jax.Array,
  b: jax.Array,
  cost_ab: jax.Array,
  cost_aa: jax.Array,
  cost_bb: jax.Array,
  *,
  epsilon: float,
  num_iters: int,
) -> jax.Array:
  """Entropic transport cost without its bias, in the unit of the cost.

    S(a, b) = OT_ε(a, b) − ½ OT_ε(a, a) − ½ OT_ε(b, b)

  of regularised costs, so that S(a, a) = 0 at any ε and S is least there,
  which OT_ε(a, ·) is not.

  Args:
    a: masses, float [..., d], summing to 1; zeros allowed.
    b: masses, float [..., e], summing to 1; zeros allowed.
    cost_ab: finite float [d, e] or [..., d, e].
    cost_aa: symmetric, finite float [d, d] or [..., d, d].
    cost_bb: symmetric, finite float [e, e] or [..., e, e].
    epsilon: ε > 0, in units of the cost.
    num_iters: most iterations of each of the three problems.

  Returns:
    Divergence, [...].

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `epsilon` or `num_iters` is out of range.

  References:
    Feydy et al., "Interpolating between optimal transport and MMD using
    Sinkhorn divergences", 2019, eq. (3).
  """

  def regularised(x: jax.Array, y: jax.Array, cost: jax.Array) -> jax.Array:
    out = sinkhorn(x, y, cost, epsilon=epsilon, num_iters=num_iters)
    return out.regularised_cost

  self_terms = regularised(a, a, cost_aa) + regularised(b, b, cost_bb)
  return regularised(a, b, cost_ab) - self_terms / 2


def wasserstein_1d(
  p: jax.Array, q: jax.Array, positions: jax.Array, *, power: int = 1
) -> jax.Array:
  """Exact transport cost between histograms on a line.

    power 1: W₁  = Σ_k (x_{k+1} − x_k) |F_k − G_k|
    power 2: W₂² = Σ_ij P_ij (x_i − x_j)², P the monotone coupling

  with F, G the distribution functions over sorted positions.

  Args:
    p: masses, float [..., d], summing to 1; zeros allowed.
    q: masses, float [..., d], summing to 1; zeros allowed.
    positions: x, float [d] or [..., d], in any order.
    power: 1, or 2 for the squared distance.

  Returns:
    W₁ in units of the positions, or W₂² in their square, [...]. Piecewise
    linear in the masses: kinks where F and G cross, no curvature elsewhere.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit or `power` is neither 1 nor 2.

  References:
    Peyré & Cuturi, "Computational optimal transport", 2019, section 2.6.
  """
  if power not in (1, 2):
    raise ValueError(f"power must be 1 or 2, got {power}")
  checks.same_shape(p=p, q=q)
  p, q, x = checks.floating(p=p, q=q, positions=positions)
  if p.ndim < 1 or x.shape not in ((p.shape[-1],), p.shape):
    raise ValueError(
      f"positions must be [d] or the shape of p, got positions {x.shape} for "
      f"p {p.shape}"
    )
  x = jnp.broadcast_to(
    jnp.reshape(x, (1,) * (p.ndim - x.ndim) + x.shape), p.shape
  )
  order = jnp.argsort(x, axis=-1)
  p, q, x = (jnp.take_along_axis(y, order, axis=-1) for y in (p, q, x))
  if power == 1:
    gap = jnp.abs(jnp.cumsum(p - q, axis=-1))[..., :-1]
    return jnp.sum(gap * jnp.diff(x, axis=-1), axis=-1)
  f, g = (
    jnp.cumsum(p, axis=-1)[..., :, None],
    jnp.cumsum(q, axis=-1)[..., None, :],
  )
  top = jnp.minimum(f, g)
  bottom = jnp.maximum(f - p[..., :, None], g - q[..., None, :])
  moved = jnp.maximum(top - bottom, 0.0)
  distance = x[..., :, None] - x[..., None, :]
  return jnp.sum(moved * distance * distance, axis=(-2, -1))
