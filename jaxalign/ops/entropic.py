"""Entropic transport: its dual potential, and the derivative of that.

With M = cost / ε the optimal plan is P_ij = a_i b_j exp(φ_i + γ_j − M_ij).
Only γ is solved for: φ follows from it row by row, so rows always sum to a.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Accelerators round the inputs of a product to bfloat16 unless told otherwise.
_einsum = partial(jnp.einsum, precision="highest")

# Longest Newton step tried, in units of ε; 0 stays where the sweep ended.
_STEPS = (32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.0)


def _or_one(x: jax.Array) -> jax.Array:
  """`x` where positive, 1 elsewhere: a divisor that is never 0."""
  return jnp.where(x > 0, x, 1.0)


def _identity(like: jax.Array) -> jax.Array:
  """Identity matrices for [..., e], a little above 1 on the diagonal.

  The excess is a ridge of a few roundings. Parts of a plan that exchange next
  to no mass leave a matrix singular to rounding, and the ridge keeps its
  inverse finite.
  """
  size = like.shape[-1]
  ridge = 1 + 4 * size * float(np.finfo(like.dtype).eps)
  eye = ridge * jnp.eye(size, dtype=like.dtype)
  return jnp.reshape(eye, (1,) * (like.ndim - 1) + (size, size))


def rows(
  b: jax.Array, gamma: jax.Array, m: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The row potential for a column potential, and the plan given each row.

    φ_i = −log Σ_j b_j exp(γ_j − M_ij),   W_ij = b_j exp(φ_i + γ_j − M_ij)

  Args:
    b: masses of the columns, float [..., e].
    gamma: γ, float [..., e].
    m: M, cost over ε, float [..., d, e], the rank of `gamma` plus one.

  Returns:
    φ [..., d] and W [..., d, e], whose rows sum to 1. A `b` without any mass
    gives zeros in both.
  """
  z = gamma[..., None, :] - m
  mass = b[..., None, :]
  top = jnp.max(jnp.where(mass > 0, z, -jnp.inf), axis=-1, keepdims=True)
  top = jax.lax.stop_gradient(jnp.where(jnp.isneginf(top), 0.0, top))
  # Only an atom without mass can pass the bound; it keeps 0 · exp finite there.
  weights = mass * jnp.exp(jnp.minimum(z - top, 40.0))
  total = _or_one(jnp.sum(weights, axis=-1, keepdims=True))
  return -(top + jnp.log(total))[..., 0], weights / total


def _newton_step(
  a: jax.Array, b: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Newton step in γ from the plan a·w, its dual gain and its column error."""
  column = _einsum("...i,...ij->...j", a, w)
  root = jnp.sqrt(column)
  # The Hessian with rows and columns over the root of the column sums. It is
  # singular along a constant γ, and the outer product lifts just that.
  scaled = w * jnp.sqrt(a)[..., :, None] / _or_one(root)[..., None, :]
  hessian = (
    _identity(b)
    - _einsum("...ij,...ik->...jk", scaled, scaled)
    + root[..., :, None] * root[..., None, :]
  )
  factor = jnp.linalg.cholesky(hessian, symmetrize_input=False)
  right = ((b - column) / _or_one(root))[..., None]
  for transposed in (False, True):
    right = jax.lax.linalg.triangular_solve(
      factor, right, left_side=True, lower=True, transpose_a=transposed
    )
  step = right[..., 0] / _or_one(root)
  step = jnp.where((b > 0) & jnp.isfinite(step), step, 0.0)
  longest = jnp.max(jnp.abs(step), axis=-1, keepdims=True)
  limits = jnp.reshape(
    jnp.asarray(_STEPS, b.dtype), (1,) * (b.ndim - 1) + (len(_STEPS),)
  )
  lengths = jnp.minimum(limits / _or_one(longest), 1.0)
  steps = step[..., :, None] * lengths[..., None, :]
  # Trying a step costs two products with the plan and no new exponential of it.
  growth = jnp.exp(steps)
  row_sum = _einsum("...ij,...jt->...it", w, growth)
  gain = _einsum("...j,...jt->...t", b, steps) - _einsum(
    "...i,...it->...t", a, jnp.log(_or_one(row_sum))
  )
  shrunk = a[..., None] / _or_one(row_sum)
  sums = growth * _einsum("...ij,...it->...jt", w, shrunk)
  error = jnp.sum(jnp.abs(sums - b[..., None]), axis=-2)
  # Near the optimum gains drown in rounding, and the error decides instead.
  rounding = 4 * float(np.finfo(b.dtype).eps)
  near = gain >= jnp.max(gain, axis=-1, keepdims=True) - rounding
  best = jnp.argmin(jnp.where(near, error, jnp.inf), axis=-1)[..., None]
  step = jnp.take_along_axis(steps, best[..., None, :], axis=-1)[..., 0]
  gain = jnp.take_along_axis(gain, best, axis=-1)[..., 0]
  return step, gain, jnp.take_along_axis(error, best, axis=-1)[..., 0]


def _solve(
  a: jax.Array, b: jax.Array, m: jax.Array, num_iters: int
) -> jax.Array:
  """γ by Newton along an annealed path.

  An iteration is one Sinkhorn sweep and one Newton step of the dual in γ. The
  first ones solve M / κ with κ halving down to 1, each started from where the
  last two point. A row of the batch stops when only rounding is left, so that
  its result does not depend on its neighbours.
  """
  spread = jnp.max(m, axis=(-2, -1)) - jnp.min(m, axis=(-2, -1))
  start = jnp.maximum(spread / 2, 1.0) + 0 * jnp.sum(a, -1) + 0 * jnp.sum(b, -1)
  ratio = jnp.minimum(0.5, jnp.power(start, -2 / num_iters))
  rounding = 8 * float(np.finfo(b.dtype).eps)

  def heat(time: jax.Array) -> jax.Array:
    cooled = start * jnp.power(ratio, jnp.maximum(time, 0.0))
    return jnp.maximum(cooled, 1.0)

  def going(state: tuple[Any, ...]) -> jax.Array:
    more: jax.Array = (state[0] < num_iters) & ~jnp.all(state[-1])
    return more

  def iteration(state: tuple[Any, ...]) -> tuple[Any, ...]:
    t, g, previous, last_error, done = state
    time = t.astype(b.dtype)
    now, before, earlier = heat(time), heat(time - 1), heat(time - 2)
    trend = (before - now) / _or_one(earlier - before)
    trend = jnp.where(earlier > before, trend, 0.0)[..., None]
    gamma = (g + trend * (g - previous)) / now[..., None]
    _, w = rows(b, gamma, m / now[..., None, None])
    column = _einsum("...i,...ij->...j", a, w)
    # Bounded, for a column that no row reaches yet.
    reached = jnp.maximum(column, b * float(np.exp(-30.0)))
    sweep = jnp.where(b > 0, b / _or_one(reached), 1.0)
    w = w * sweep[..., None, :]
    row_sum = _or_one(jnp.sum(w, axis=-1))
    sweep = jnp.log(sweep)
    swept = jnp.sum(b * sweep, -1) - jnp.sum(a * jnp.log(row_sum), -1)
    step, gain, error = _newton_step(a, b, w / row_sum[..., None])
    gamma = gamma + sweep + step
    gamma = gamma - jnp.sum(b * gamma, axis=-1, keepdims=True)
    final = (now == 1.0) & (before == 1.0)
    stalled = (swept + gain <= rounding) & (error > 0.5 * last_error)
    ends = (error <= rounding) & (now == 1.0) | stalled & final
    keep = done[..., None]
    return (
      t + 1,
      jnp.where(keep, g, gamma * now[..., None]),
      jnp.where(keep, previous, g),
      jnp.where(done, last_error, error),
      done | ends | ~jnp.isfinite(error),
    )

  zero = 0 * b + 0 * start[..., None]
  state = (jnp.int32(0), zero, zero, 0 * start + jnp.inf, start < 0)
  gamma = jax.lax.while_loop(going, iteration, state)[1]
  # An atom without mass gets the potential that it would enter with.
  phi, _ = rows(b, gamma, m)
  entering, _ = rows(a, phi, jnp.swapaxes(m, -1, -2))
  return jnp.where(b > 0, gamma, entering)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def potential(
  a: jax.Array, b: jax.Array, m: jax.Array, num_iters: int
) -> jax.Array:
  """The column potential γ, with mean zero under b, in units of ε.

  Its derivative is the implicit one, of the equations that it solves, twice
  differentiable in both modes; the iterations are not differentiated.

  Args:
    a: masses of the rows, float [..., d].
    b: masses of the columns, float [..., e].
    m: M, cost over ε, float [..., d, e], the rank of `a` plus one.
    num_iters: most iterations, at least 1.

  Returns:
    γ [..., e].
  """
  return _solve(a, b, m, num_iters)


@potential.defjvp
def _potential_jvp(
  num_iters: int,
  primals: tuple[jax.Array, jax.Array, jax.Array],
  tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """Differentiates Σ_j b_j E_ij = 1 and Σ_i a_i E_ij = 1, E = exp(φ+γ−M)."""
  a, b, m = primals
  da, db, dm = tangents
  gamma = potential(a, b, m, num_iters)
  phi, given_row = rows(b, gamma, m)
  exponent = phi[..., :, None] + gamma[..., None, :] - m
  ratio = jnp.exp(jnp.minimum(exponent, 40.0))
  given_column = a[..., :, None] * ratio
  matrix = (
    _identity(b)
    - _einsum("...ij,...ik->...jk", given_column, given_row)
    + b[..., None, :]
  )
  by_row = _einsum("...ij,...j->...i", ratio, db) - jnp.sum(given_row * dm, -1)
  by_column = _einsum("...ij,...i->...j", ratio, da) - jnp.sum(
    given_column * dm, -2
  )
  right = _einsum("...ij,...i->...j", given_column, by_row) - by_column
  d_gamma = jnp.linalg.solve(matrix, right[..., None])[..., 0]
  mean = jnp.sum(b * d_gamma + db * gamma, axis=-1, keepdims=True)
  return gamma, d_gamma - mean
