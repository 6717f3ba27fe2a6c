"""What every differentiable function of the library is held to.

Each check takes a function of float arrays, with everything else bound, and
runs in float64.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads


def _wide(args):
  return [jnp.asarray(x, jnp.float64) for x in args]


def assert_second_order(fn: Callable, *args, rtol: float = 1e-5) -> None:
  """First and second derivatives, both modes, against finite differences."""
  with jax.enable_x64(True):
    check_grads(jax.jit(fn), _wide(args), order=2, rtol=rtol, atol=rtol)


def assert_finite(fn: Callable, *args) -> None:
  """Value, gradient and a Hessian-vector product are finite."""
  with jax.enable_x64(True):
    args = tuple(_wide(args))
    which = tuple(range(len(args)))
    total = lambda *xs: jnp.sum(fn(*xs))
    grad = jax.grad(total, which)
    ones = tuple(jnp.ones_like(x) for x in args)
    everything = jax.jit(lambda *xs: (fn(*xs), jax.jvp(grad, xs, ones)))(*args)
    for leaf in jax.tree.leaves(everything):
      np.testing.assert_array_equal(np.isfinite(leaf), True)


def assert_jit_and_vmap(fn: Callable, *args) -> None:
  """The jitted function is the eager one, the vmapped one is a loop."""
  with jax.enable_x64(True):
    args = _wide(args)
    eager = fn(*args)
    close = lambda got, want: np.testing.assert_allclose(
      got, want, rtol=1e-12, atol=1e-12
    )
    jax.tree.map(close, jax.jit(fn)(*args), eager)
    other = [x[::-1] * 0.5 for x in args]
    stacked = [jnp.stack(pair) for pair in zip(args, other, strict=True)]
    loop = jax.tree.map(lambda *xs: jnp.stack(xs), eager, fn(*other))
    jax.tree.map(close, jax.vmap(fn)(*stacked), loop)


def assert_padding_changes_nothing(fn: Callable, args, padded) -> None:
  """Value and gradients of a masked total, with and without garbage rows.

  Args:
    fn: `fn(*args, padding) -> scalar`; `padding` is the number of rows that
      the mask must hide.
    args: arrays without padding.
    padded: the same arrays with garbage appended on the leading axis; one
      that has no rows is as it was.
  """
  with jax.enable_x64(True):
    args, padded = _wide(args), _wide(padded)
    which = tuple(range(len(args)))
    rows = [p.shape[0] - a.shape[0] for a, p in zip(args, padded, strict=True)]
    padding = max(rows)
    want = jax.value_and_grad(lambda *xs: fn(*xs, 0), which)(*args)
    got = jax.value_and_grad(lambda *xs: fn(*xs, padding), which)(*padded)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12, atol=1e-14)
    for g, w in zip(got[1], want[1], strict=True):
      np.testing.assert_allclose(g[: len(w)], w, rtol=1e-11, atol=1e-14)
      np.testing.assert_array_equal(g[len(w) :], 0.0)
