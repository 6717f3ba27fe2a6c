"""Min-norm point in the convex hull of a few vectors, exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import checks


def _corral_solution(
  gram: jax.Array, active: jax.Array, lift: jax.Array
) -> jax.Array:
  """Solution [K] of (G + lift) u = 1 on the active rows, 0 elsewhere."""
  both = active[:, None] & active[None, :]
  matrix = jnp.where(both, gram + lift, 0.0)
  diagonal = jnp.where(active, jnp.diagonal(matrix), 1.0)
  # To a unit diagonal: gradients may differ in length by many decades.
  scale = jax.lax.rsqrt(diagonal)
  eye = jnp.eye(gram.shape[0], dtype=gram.dtype)
  matrix = jnp.where(eye > 0, 1.0, matrix * scale[:, None] * scale[None, :])
  right = jnp.where(active, scale, 0.0)
  solution: jax.Array = jnp.linalg.solve(matrix, right) * scale
  return solution


def _active_set(gram: jax.Array, valid: jax.Array) -> jax.Array:
  """Unnormalised weights [K] by Lawson and Hanson's method.

  Minimising λᵀGλ over the simplex is minimising ½ uᵀ(G + c 11ᵀ)u − Σu over
  u ≥ 0, up to λ = u / Σu: with σ = c Σu the conditions of the second read
  (Gλ)_k ≥ c (1 − σ)/σ with equality where λ_k > 0, those of the first.
  """
  size = gram.shape[0]
  norms = jnp.where(valid, jnp.diagonal(gram), jnp.inf)
  first = jnp.argmin(norms)
  index = jnp.arange(size, dtype=first.dtype)
  # The lift is of the size of the smallest vector, whose digits it must leave.
  lift = norms[first]
  rounding = 4 * float(np.finfo(gram.dtype).eps)

  def going(state: tuple[Any, ...]) -> jax.Array:
    iteration, *_, done = state
    more: jax.Array = (iteration < 8 * size) & ~done
    return more

  def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
    iteration, u, active, refused, newest, _ = state
    solution = _corral_solution(gram, active, lift)
    inside = jnp.all(jnp.where(active, solution > 0, True))
    # Outside, walk from u towards the solution until a weight reaches 0.
    blocking = active & (solution <= 0)
    room = jnp.where(blocking, u / jnp.where(blocking, u - solution, 1.0), 1.0)
    room = jnp.where(blocking & (u <= 0), 0.0, room)
    share = jnp.min(room)
    walked = u + share * (solution - u)
    dropped = blocking & (room <= share)
    u = jnp.where(active, jnp.where(inside, solution, walked), 0.0)
    u = jnp.where(dropped, 0.0, jnp.maximum(u, 0.0))
    active = active & ~dropped
    # A newcomer that is thrown out at once entered on rounding alone.
    refused = jnp.where(inside, refused, refused | (dropped & newest))
    slope = gram @ u + lift * jnp.sum(u) - 1
    noise = rounding * (jnp.abs(gram) @ u + lift * jnp.sum(u) + 1)
    # Every slope is in units of its own vector's length.
    length = jnp.sqrt(jnp.where(valid, norms, 1.0))
    entering = valid & ~active & ~refused & (slope < -noise)
    best = jnp.argmin(jnp.where(entering, slope / length, jnp.inf))
    adds = inside & jnp.any(entering)
    newest = jnp.where(inside, (index == best) & adds, newest)
    return (
      iteration + 1,
      u,
      active | (newest & adds),
      refused,
      newest,
      inside & ~adds,
    )

  one = jnp.where(valid & (index == first), 0.5 / lift, 0.0)
  none = valid & ~valid
  active = valid & (index == first)
  state = (jnp.int32(0), one, active, none, none, jnp.any(none))
  return jax.lax.while_loop(going, step, state)[1]


def min_norm_weights(
  gram: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
  """Convex weights of the shortest combination of K vectors.

    λ = argmin λᵀ G λ   over λ ≥ 0, Σ λ = 1,   G_ij = ⟨g_i, g_j⟩

  The minimiser g = Σ λ_k g_k has ⟨g, g_k⟩ ≥ ‖g‖² for every k: a step along −g
  worsens no objective. An active set finds it exactly up to rounding, in at
  most 8K small linear solves and usually in about K; Frank-Wolfe's error is a
  hundred times larger where vectors conflict.

  Args:
    gram: inner products of the vectors, symmetric, float [K, K].
    where: bool [K], True for a vector that takes part, all by default.

  Returns:
    λ [K], without gradient. A masked vector gets 0, whatever its entries hold.
    A vector of length 0 is the minimum by itself; several share it evenly, so
    an all-zero Gram gives uniform weights. With nothing counted all are 0. A
    Gram that is not finite gives NaN.

  Raises:
    TypeError: `gram` is not floating point or `where` is not bool.
    ValueError: `gram` is not [K, K] or `where` is not [K].

  References:
    Wolfe, "Finding the nearest point in a polytope", 1976.
    Désidéri, "Multiple-gradient descent algorithm", 2012.
    Sener & Koltun, "Multi-task learning as multi-objective optimization",
    2018, eq. (3).
  """
  checks.rank(2, gram=gram)
  (gram,) = checks.floating(gram=jax.lax.stop_gradient(gram))
  size = gram.shape[0]
  if gram.shape[1] != size:
    raise ValueError(f"gram must be [K, K], got {gram.shape}")
  valid = jnp.ones((size,), jnp.bool_) if where is None else where
  checks.boolean(where=where)
  if valid.shape != (size,):
    raise ValueError(f"where must be [{size}], got {valid.shape}")
  both = valid[:, None] & valid[None, :]
  gram = jnp.where(both, (gram + gram.T) / 2, 0.0)
  valid = valid | (0 * gram[0] != 0) & valid  # as varied over devices as gram
  finite = jnp.all(jnp.isfinite(gram))
  norms = jnp.diagonal(gram)
  empty = valid & (norms <= 0)
  plain = finite & ~jnp.any(empty) & jnp.any(valid)
  # Where the loop's answer is not used it runs on a Gram that suits it.
  eye = jnp.eye(size, dtype=gram.dtype)
  usable = jnp.where(plain, gram, eye)
  largest = jnp.max(jnp.diagonal(usable))
  u = _active_set(usable / largest, valid | ~plain)
  u = jnp.where(plain, u, empty.astype(gram.dtype))
  total = jnp.sum(u)
  weights = u / jnp.where(total > 0, total, 1.0)
  return jnp.where(finite, weights, jnp.nan)
