"""What every differentiable function of the library is held to.

Each check takes a function of float arrays, with everything else bound, and
runs in float64.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tests import tier


def _wide(args):
  return [jnp.asarray(x, jnp.float64) for x in args]


def assert_second_order(fn: Callable, *args, rtol: float = 1e-6) -> None:
  """First and second derivatives, in all modes, against central differences.

  What check_grads(order=2) checks, for a random mix of the outputs along a
  random direction, at the price of one compile. The fast tier leaves it at one
  of the four ways to a second derivative, forward over reverse.
  """
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    args = tuple(_wide(args))
    mix = jax.tree.map(
      lambda out: rng.normal(size=out.shape), jax.eval_shape(fn, *args)
    )
    towards = tuple(jnp.asarray(rng.normal(size=x.shape)) for x in args)
    which = tuple(range(len(args)))

    def value(*xs):
      terms = jax.tree.map(lambda m, out: jnp.sum(m * out), mix, fn(*xs))
      return sum(jax.tree.leaves(terms))

    grad = jax.grad(value, which)
    slope = lambda *xs: jax.jvp(value, xs, towards)[1]
    reverse_slope = lambda *xs: sum(
      jnp.sum(g * v) for g, v in zip(grad(*xs), towards, strict=True)
    )
    ways = dict(
      forward_over_reverse=lambda *xs: jax.jvp(grad, xs, towards)[1],
      reverse_over_forward=jax.grad(slope, which),
      reverse_over_reverse=jax.grad(reverse_slope, which),
      forward_over_forward=lambda *xs: jax.jvp(slope, xs, towards)[1],
    )
    if tier.is_fast():
      ways = dict(forward_over_reverse=ways["forward_over_reverse"])
    everything = jax.jit(
      lambda *xs: dict(
        value=value(*xs),
        grad=grad(*xs),
        slope=slope(*xs),
        **{name: way(*xs) for name, way in ways.items()},
      )
    )
    step = 1e-5
    at = lambda s: everything(
      *(x + s * v for x, v in zip(args, towards, strict=True))
    )
    low, here, high = at(-step), at(0.0), at(step)
    difference = lambda name: jax.tree.map(
      lambda h, l: np.asarray(h - l) / (2 * step), high[name], low[name]
    )
    first, second = difference("value"), difference("grad")
    _close(here["slope"], first, rtol, "slope")
    _close(
      sum(jnp.sum(g * v) for g, v in zip(here["grad"], towards, strict=True)),
      first,
      rtol,
      "grad",
    )
    for mode in ways:
      if mode == "forward_over_forward":
        _close(here[mode], difference("slope"), rtol, mode)
        continue
      for got, want in zip(here[mode], second, strict=True):
        _close(got, want, rtol, mode)


def _close(got, want, rtol, name) -> None:
  scale = max(1.0, float(np.max(np.abs(want), initial=0.0)))
  np.testing.assert_allclose(got, want, rtol=0, atol=rtol * scale, err_msg=name)


def assert_identical(got, want) -> None:
  """The same bits in two trees; on a GPU 1e-12, as it adds in any order."""
  rtol = 1e-12 if jax.default_backend() == "gpu" else 0.0

  def check(path, got, want):
    atol = rtol * np.max(np.abs(want), initial=0.0)
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=name)

  jax.tree.map_with_path(check, got, want)


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
    jax.tree.map(close, jax.jit(jax.vmap(fn))(*stacked), loop)


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
    want = jax.jit(jax.value_and_grad(lambda *xs: fn(*xs, 0), which))(*args)
    got = jax.jit(jax.value_and_grad(lambda *xs: fn(*xs, padding), which))(
      *padded
    )
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12, atol=1e-14)
    for g, w in zip(got[1], want[1], strict=True):
      np.testing.assert_allclose(g[: len(w)], w, rtol=1e-11, atol=1e-14)
      np.testing.assert_array_equal(g[len(w) :], 0.0)
