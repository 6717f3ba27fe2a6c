"""Entropic transport: its dual potentials, and the derivatives of those.

With M = cost / ε the optimal plan is P_ij = a_i b_j exp(φ_i + γ_j − M_ij).
Only γ is solved for: φ follows from it row by row, so rows always sum to a.
Most problems are solved by scaling the kernel exp(−M), the whole batch at
once (`scaling.py`). What is left goes to Newton's method in logarithms here,
which needs more time and no representable kernel.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import scaling

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


def _newton(
  a: jax.Array, b: jax.Array, m: jax.Array, done: jax.Array, num_iters: int
) -> jax.Array:
  """γ by Newton along an annealed path, in logarithms.

  An iteration is one Sinkhorn sweep and one Newton step of the dual in γ. The
  first ones solve M / κ with κ halving down to 1, each started from where the
  last two point. A row of the batch stops when only rounding is left, so that
  its result does not depend on its neighbours; one that is `done` is skipped.
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
  state = (jnp.int32(0), zero, zero, 0 * start + jnp.inf, done | (start < 0))
  gamma = jax.lax.while_loop(going, iteration, state)[1]
  # An atom without mass gets the potential that it would enter with.
  phi, _ = rows(b, gamma, m)
  entering, _ = rows(a, phi, jnp.swapaxes(m, -1, -2))
  return jnp.where(b > 0, gamma, entering)


def _take(x: jax.Array, chosen: jax.Array) -> jax.Array:
  """Some columns of x; a number beyond the last gives the last."""
  taken: jax.Array = x.at[..., chosen].get(mode="clip")
  return taken


def _in_lots(
  solve: Callable[..., tuple[jax.Array, ...]],
  size: int,
  tries: jax.Array,
  values: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
  """Lets `solve` work on `size` columns at a time while they are not done.

  It maps the numbers of some columns and their values, of which the last says
  whether they are done, to new values. A column has `tries`, int [N], and all
  have their first before one has its second. A number beyond the last column
  fills a lot; what it gives is dropped.
  """
  count = tries.shape[0]
  if size >= count:  # all of them are a lot
    size = count

  def lot(
    state: tuple[jax.Array, tuple[jax.Array, ...]],
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    tries, values = state
    chosen = jnp.arange(count)
    if size < count:
      next_ = tries == jnp.max(tries)
      chosen = jnp.nonzero(next_, size=size, fill_value=count)[0]
    new = solve(chosen, *(_take(x, chosen) for x in values))
    values = tuple(
      x.at[..., chosen].set(y, mode="drop")
      for x, y in zip(values, new, strict=True)
    )
    tries = tries.at[chosen].add(-1, mode="drop")
    return jnp.where(values[-1], 0, tries), values

  def going(state: tuple[jax.Array, tuple[jax.Array, ...]]) -> jax.Array:
    return jnp.any(state[0] > 0)

  solved: tuple[jax.Array, ...]
  _, solved = jax.lax.while_loop(going, lot, (tries, values))
  return solved


def _columns(
  a: jax.Array, b: jax.Array, m: jax.Array, num_iters: int, few: bool
) -> tuple[jax.Array, jax.Array]:
  """φ [d, N] and γ [e, N] of a [d, N], b [e, N] and M [d, e] or [d, e, N].

  With `few` the problems that sweeps leave open are gathered and solved some at
  a time. Where rows are spread over devices that would fetch them, and there
  all are kept in step, which costs little where they run in parallel.
  """
  d, e, count = a.shape[0], *b.shape
  of = scaling.kernel(m)
  v, done = scaling.sweep(a, b, of, num_iters)
  out = ~(done | of.fits)

  def scaled(
    chosen: jax.Array, v: jax.Array, done: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    x, y = _take(a, chosen), _take(b, chosen)
    steps = min(num_iters, scaling.NEWTON_STEPS)
    return scaling.newton(x, y, of.of(chosen), v, done, steps)

  def sturdy(
    chosen: jax.Array, phi: jax.Array, gamma: jax.Array, done: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, y = _take(a, chosen).T, _take(b, chosen).T
    part = m[None] if m.ndim == 2 else jnp.moveaxis(_take(m, chosen), -1, 0)
    new_gamma = _newton(x, y, part, done, num_iters)
    new_phi, _ = rows(y, new_gamma, part)
    keep = done[None]
    return (
      jnp.where(keep, phi, new_phi.T),
      jnp.where(keep, gamma, new_gamma.T),
      done,
    )

  size = max(512, 2**13 // e) if few else count
  tries = -(-min(num_iters, 4 * scaling.NEWTON_STEPS) // scaling.NEWTON_STEPS)
  closed = done | out
  left = jnp.where(closed, 0, tries)
  v, closed = _in_lots(scaled, size, left, (v, closed))
  done = closed & ~out
  phi, gamma = scaling.potentials(a, b, of, v)
  size = max(64, 2**13 // (d * e)) if few else count
  left = jnp.where(done, 0, 1)
  phi, gamma, _ = _in_lots(sturdy, size, left, (phi, gamma, done))
  return phi, gamma


def _solve(
  a: jax.Array, b: jax.Array, m: jax.Array, num_iters: int
) -> tuple[jax.Array, jax.Array]:
  """φ and γ, with the batch axes in one and last."""

  def columns(x: jax.Array) -> jax.Array:
    return jnp.reshape(x, (-1, x.shape[-1])).T

  shared = all(n == 1 for n in m.shape[:-2])
  m = jnp.reshape(m, (-1, *m.shape[-2:]))
  m = m[0] if shared else jnp.moveaxis(m, 0, -1)
  phi, gamma = jax.lax.platform_dependent(
    columns(a),
    columns(b),
    m,
    cpu=partial(_columns, num_iters=num_iters, few=True),
    default=partial(_columns, num_iters=num_iters, few=False),
  )
  # Without any mass there is nothing to move, and the potentials are 0.
  none = (jnp.sum(a, axis=-1) == 0) & (jnp.sum(b, axis=-1) == 0)
  return (
    jnp.where(none[..., None], 0.0, jnp.reshape(phi.T, a.shape)),
    jnp.where(none[..., None], 0.0, jnp.reshape(gamma.T, b.shape)),
  )


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def potentials(
  a: jax.Array, b: jax.Array, m: jax.Array, num_iters: int
) -> tuple[jax.Array, jax.Array]:
  """The potentials φ and γ in units of ε, the latter with mean zero under b.

  Their derivatives are the implicit ones, of the equations that they solve,
  twice differentiable in both modes; no iteration is differentiated.

  Args:
    a: masses of the rows, float [..., d].
    b: masses of the columns, float [..., e].
    m: M, cost over ε, float [..., d, e], the rank of `a` plus one.
    num_iters: most iterations of each method, at least 1.

  Returns:
    φ [..., d] and γ [..., e].
  """
  return _solve(a, b, m, num_iters)


@potentials.defjvp
def _potentials_jvp(
  num_iters: int,
  primals: tuple[jax.Array, jax.Array, jax.Array],
  tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
  """Differentiates Σ_j b_j E_ij = 1 and Σ_i a_i E_ij = 1, E = exp(φ+γ−M)."""
  a, b, m = primals
  da, db, dm = tangents
  phi, gamma = potentials(a, b, m, num_iters)
  _, given_row = rows(b, gamma, m)
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
  d_gamma = d_gamma - mean
  d_phi = -by_row - jnp.sum(given_row * d_gamma[..., None, :], axis=-1)
  return (phi, gamma), (d_phi, d_gamma)
