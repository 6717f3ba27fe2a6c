"""Entropic transport by matrix scaling: Sinkhorn sweeps of a whole batch.

With K = exp(−M) the plan is u_i K_ij v_j. A sweep is two products with K, and
one K serves all problems that share a cost. Arrays hold one problem a column:
atoms first, the batch in the last, contiguous axis.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Accelerators round the inputs of a product to bfloat16 unless told otherwise.
_tensordot = partial(jnp.tensordot, axes=1, precision="highest")

SWEEPS = 6  # between two extrapolations
NEWTON_STEPS = 4  # before those that are done leave the others to themselves
CONJUGATE_STEPS = 8  # of one Newton step
LONGEST_STEP = 2.0  # of Newton, in units of ε


class Kernel(NamedTuple):
  """exp(−M) after its rows and columns are shifted towards 1."""

  exponent: jax.Array  # [d, e] or [d, e, N], −M + rows + columns + lift
  rows: jax.Array  # [d, 1] or [d, N], the shift of each row, with the lift
  columns: jax.Array  # [e, 1] or [e, N]
  span: jax.Array  # [] or [N], the range of what is left, in units of ε
  fits: jax.Array  # [] or [N], whether its entries are numbers of the dtype

  def at(self, heat: jax.Array) -> jax.Array:
    """K of a problem whose ε is `heat`, [] or [N], times as large."""
    return jnp.exp(self.exponent / (heat[None, None] if heat.ndim else heat))

  def of(self, chosen: jax.Array) -> "Kernel":
    """The kernels of some problems of the batch."""
    if self.exponent.ndim == 2:
      return self
    return Kernel(*(x[..., chosen] for x in self))


def kernel(m: jax.Array) -> Kernel:
  """The kernel of M [d, e], one for all, or [d, e, N], one per problem.

  What a row or column has in common is taken out first, so that only the rest
  must be representable: about 120 units of ε in float32, 1,000 in float64.
  """
  rows = jnp.min(m, axis=1)
  columns = jnp.min(m - rows[:, None], axis=0)
  rest = m - rows[:, None] - columns[None]
  span = jnp.max(rest, axis=(0, 1))
  # Entries may be as small as exp(−reach) and are lifted where that is not
  # enough; potentials need the room that is left above.
  reach, limit = (80.0, 120.0) if m.dtype == jnp.float32 else (600.0, 1000.0)
  lift = jnp.maximum(span - reach, 0.0)
  rows = rows + lift[None]
  if m.ndim == 2:
    rows, columns = rows[:, None], columns[:, None]
  return Kernel(lift[None, None] - rest, rows, columns, span, span <= limit)


def _times(k: jax.Array) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Products with the kernel: u → Kᵀu and v → K v, of [d, N] and [e, N]."""
  if k.ndim == 2:
    return partial(_tensordot, k.T), partial(_tensordot, k)
  return (
    lambda u: jnp.sum(k * u[:, None], axis=0),
    lambda v: jnp.sum(k * v[None], axis=1),
  )


def _or_one(x: jax.Array) -> jax.Array:
  return jnp.where(x > 0, x, 1.0)


def tolerance(dtype: Any) -> float:
  """Column error, in L1, at which a problem counts as solved: rounding."""
  return 32 * float(np.finfo(dtype).eps)


def _extrapolated(
  a: jax.Array, b: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Some sweeps from v and one Aitken step in its logarithm.

  Returns:
    The swept v, the one extrapolated from the last two sweeps, both [e, N], and
    an upper bound of the former's column error, [N]. Where all are within the
    tolerance, nothing is extrapolated.
  """
  kt, kv = _times(k)
  s = [kt(a / _or_one(kv(v)))]
  for _ in range(SWEEPS - 1):
    v = b / _or_one(s[-1])
    s.append(kt(a / _or_one(kv(v))))
  error = jnp.sum(jnp.abs(v * s[-1] - b), axis=0)
  v = b / _or_one(s[-1])

  def further() -> jax.Array:
    before, last = (
      jnp.log(_or_one(s[i - 1]) / _or_one(s[i])) for i in (-2, -1)
    )
    before, last = (x - jnp.sum(b * x, axis=0)[None] for x in (before, last))
    square = jnp.sum(b * before * before, axis=0)
    rate = jnp.sum(b * before * last, axis=0) / _or_one(square)
    rate = jnp.clip(rate, 0.0, 0.95)
    step = jnp.clip((rate / (1 - rate))[None] * last, -4.0, 4.0)
    return v * jnp.exp(step)

  solved = jnp.all(error <= tolerance(b.dtype))
  return v, jax.lax.cond(solved, lambda: v, further), error


def _conjugate(
  hessian: Callable[[jax.Array], jax.Array],
  b: jax.Array,
  right: jax.Array,
  tolerance: jax.Array,
) -> jax.Array:
  """Conjugate gradients for each column, preconditioned by 1 / b.

  A column is left as it is once its residual has shrunk by its tolerance [N];
  at a tolerance of 1 it stays 0.
  """
  weight = 1 / _or_one(b)
  z = right * weight
  rho = jnp.sum(right * z, axis=0)
  goal = tolerance * tolerance * rho

  def going(state: tuple[Any, ...]) -> jax.Array:
    more: jax.Array = (state[0] < CONJUGATE_STEPS) & jnp.any(state[-1] > goal)
    return more

  def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
    t, x, residual, p, rho = state
    image = hessian(p)
    curvature = jnp.sum(p * image, axis=0)
    use = (curvature > 0) & (rho > goal)
    length = jnp.where(use, rho / _or_one(curvature), 0.0)[None]
    x, residual = x + length * p, residual - length * image
    z = residual * weight
    now = jnp.sum(residual * z, axis=0)
    p = z + (now / _or_one(rho))[None] * p
    return t + 1, x, residual, p, jnp.where(use, now, goal)

  state = (jnp.int32(0), 0 * right, right, z, rho)
  return jax.lax.while_loop(going, step, state)[1]


def newton(
  a: jax.Array,
  b: jax.Array,
  of: Kernel,
  v: jax.Array,
  done: jax.Array,
  num_iters: int,
) -> tuple[jax.Array, jax.Array]:
  """Newton's method on the dual in log v, by products with the kernel alone.

  A step that does not gain is cut to a quarter. Columns that are `done` at the
  start or within the tolerance stay as they are.

  Args:
    a: masses of the rows, float [d, N].
    b: masses of the columns, float [e, N].
    of: the kernel.
    v: where to start, float [e, N].
    done: columns to leave alone, bool [N].
    num_iters: most steps.

  Returns:
    v [e, N] and the columns that are done, [N].
  """
  kt, kv = _times(of.at(jnp.ones((), b.dtype)))
  rounding = 4 * float(np.finfo(b.dtype).eps)
  finest = float(np.finfo(b.dtype).eps) ** 0.4  # 2e-3 and 6e-7

  def going(state: tuple[Any, ...]) -> jax.Array:
    t, *_, error, done = state
    open_ = ~done & (error < jnp.inf)
    more: jax.Array = (t < num_iters) & jnp.any(open_)
    return more

  def iteration(state: tuple[Any, ...]) -> tuple[Any, ...]:
    t, v, x, r_before, error_before, done = state
    r = kv(v)
    u = a / _or_one(r)
    column = v * kt(u)
    error = jnp.sum(jnp.abs(column - b), axis=0)
    gain = jnp.sum(b * x, axis=0) - jnp.sum(
      a * jnp.log(_or_one(r) / _or_one(r_before)), axis=0
    )
    good = (gain >= -rounding) | (error <= error_before)
    now = done | (error <= tolerance(b.dtype))
    share = jnp.clip(0.3 * error, finest, 0.1)
    move = _conjugate(
      lambda p: column * p - v * kt(u / _or_one(r) * kv(v * p)),
      b,
      b - column,
      jnp.where(good & ~now, share, 1.0),
    )
    move = move - jnp.sum(b * move, axis=0)[None]
    longest = jnp.max(jnp.abs(jnp.where(b > 0, move, 0.0)), axis=0)
    move = move * jnp.minimum(LONGEST_STEP / _or_one(longest), 1.0)[None]
    # x is the way from the last good v, and a bad one goes back by most of it.
    way = jnp.where(good[None], move, -0.75 * x)
    last = jnp.where(good, error, error_before)
    return (
      t + 1,
      jnp.where(now[None], v, v * jnp.exp(way)),
      jnp.where(good[None], move, 0.25 * x),
      jnp.where(good[None], r, r_before),
      jnp.where(jnp.isnan(error), jnp.inf, last),
      now,
    )

  big = float(np.finfo(b.dtype).max)
  start = (jnp.int32(0), v, 0 * v, kv(v), 0 * v[0] + big, done)
  _, v, _, _, _, done = jax.lax.while_loop(going, iteration, start)
  return v, done


def sweep(
  a: jax.Array, b: jax.Array, of: Kernel, num_iters: int
) -> tuple[jax.Array, jax.Array]:
  """Sweeps along a falling ε, extrapolated, for as long as they pay.

  A problem stops where its error did not fall to a tenth since the last
  extrapolation.

  Args:
    a: masses of the rows, float [d, N].
    b: masses of the columns, float [e, N].
    of: the kernel.
    num_iters: most extrapolations at the final ε.

  Returns:
    v [e, N] and which columns are done, [N].
  """
  v = b + 0 * a[:1]
  v = jax.lax.while_loop(
    lambda state: jnp.any(state[0] > 0),
    lambda state: _cooled(a, b, of, *state),
    (jnp.ceil(jnp.log2(jnp.maximum(of.span / 12, 1.0))), v),
  )[1]
  k = of.at(jnp.ones((), b.dtype))

  def going(state: tuple[Any, ...]) -> jax.Array:
    t, *_, paying = state
    more: jax.Array = (t < num_iters) & jnp.any(paying)
    return more

  def iteration(state: tuple[Any, ...]) -> tuple[Any, ...]:
    t, v, error_before, done, paying = state
    swept, further, error = _extrapolated(a, b, k, v)
    now = error <= tolerance(b.dtype)
    v = jnp.where(paying[None], jnp.where(now[None], swept, further), v)
    falls = error <= 0.1 * error_before
    error = jnp.where(paying, error, error_before)
    return t + 1, v, error, done | paying & now, paying & falls & ~now

  never = jnp.sum(v, axis=0) < 0
  start = (jnp.int32(0), v, 0 * v[0] + jnp.inf, never, of.fits | never)
  _, v, _, done, _ = jax.lax.while_loop(going, iteration, start)
  return v, done


def _cooled(
  a: jax.Array, b: jax.Array, of: Kernel, level: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The start at half the ε, which is 2^level times the final one."""
  k = of.at(jnp.exp2(jnp.maximum(level, 0.0)))
  _, further, _ = _extrapolated(a, b, k, v)
  warm = (level > 0)[None] if level.ndim else level > 0
  return level - 1, jnp.where(warm, further * further / _or_one(b), v)


def potentials(
  a: jax.Array, b: jax.Array, of: Kernel, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """φ [d, N] and γ [e, N] of v, the latter with mean zero under b.

  An atom without mass gets the potential that it would enter with.
  """
  kt, kv = _times(of.at(jnp.ones((), b.dtype)))
  r = kv(v)
  s = kt(a / _or_one(r))
  gamma = jnp.log(jnp.where(b > 0, _or_one(v) / _or_one(b), 1 / _or_one(s)))
  phi, gamma = of.rows - jnp.log(_or_one(r)), of.columns + gamma
  mean = jnp.sum(b * gamma, axis=0)[None]
  return phi + mean, gamma - mean
