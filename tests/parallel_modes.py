"""One scalar function on one device and on eight: same value, same gradient.

Inside a mapped function a psum has a transpose, so a value can be right while
its gradient is N times too large. Every batch-coupled function goes through
`assert_same_in_all_modes`, which compares both.

  pmap        grad inside, then pmean of the gradient
  shard_map   pmean of the scalar, then grad, outside or inside
"""

import unittest
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests import tier

MODES = (
  "sharded_jit",
  "pmap",
  "shard_map_outside",
  "shard_map_inside",
  "shard_map_two_axes",
)
# Those of the fast tier: one per rule of where the mean over devices goes.
FAST_MODES = ("pmap", "shard_map_outside")


def _mesh(shape, names):
  return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))


def _sharded_jit(fn, params, batch, num_devices):
  rows = NamedSharding(_mesh((num_devices,), ("data",)), P("data"))
  batch = jax.device_put(batch, rows)
  return jax.jit(jax.value_and_grad(lambda p, b: fn(p, b, None)))(params, batch)


def _pmap(fn, params, batch, num_devices):
  def step(p, b):
    value, grad = jax.value_and_grad(fn)(p, b, "data")
    return jax.lax.pmean((value, grad), "data")

  batch = jax.tree.map(
    lambda x: jnp.reshape(x, (num_devices, -1, *x.shape[1:])), batch
  )
  devices = jax.devices()[:num_devices]
  out = jax.pmap(step, "data", in_axes=(None, 0), devices=devices)(
    params, batch
  )
  return jax.tree.map(lambda x: x[0], out)


def _shard_map_outside(fn, params, batch, num_devices):
  loss = jax.shard_map(
    lambda p, b: jax.lax.pmean(fn(p, b, "data"), "data"),
    mesh=_mesh((num_devices,), ("data",)),
    in_specs=(P(), P("data")),
    out_specs=P(),
  )
  return jax.jit(jax.value_and_grad(loss))(params, batch)


def _shard_map_inside(fn, params, batch, num_devices):
  def step(p, b):
    loss = lambda q: jax.lax.pmean(fn(q, b, "data"), "data")
    return jax.value_and_grad(loss)(p)

  mapped = jax.shard_map(
    step,
    mesh=_mesh((num_devices,), ("data",)),
    in_specs=(P(), P("data")),
    out_specs=P(),
  )
  return jax.jit(mapped)(params, batch)


def _shard_map_two_axes(fn, params, batch, num_devices):
  axes = ("data", "fsdp")
  loss = jax.shard_map(
    lambda p, b: jax.lax.pmean(fn(p, b, axes), axes),
    mesh=_mesh((num_devices // 2, 2), axes),
    in_specs=(P(), P(axes)),
    out_specs=P(),
  )
  return jax.jit(jax.value_and_grad(loss))(params, batch)


_RUN = dict(
  sharded_jit=_sharded_jit,
  pmap=_pmap,
  shard_map_outside=_shard_map_outside,
  shard_map_inside=_shard_map_inside,
  shard_map_two_axes=_shard_map_two_axes,
)


def need_devices(number: int) -> None:
  """Skips a test where there are fewer devices, as on a box with one GPU."""
  if jax.device_count() < number:
    raise unittest.SkipTest(
      f"needs {number} devices, here are {jax.device_count()}"
    )


def assert_same_in_all_modes(
  fn: Callable,
  params,
  batch,
  *,
  modes: Collection[str] | None = None,
  num_devices: int = 8,
  rtol: float = 1e-10,
) -> None:
  """Compares value and gradient in `params` of `fn` over parallel modes.

  Args:
    fn: `fn(params, batch, axis_name) -> scalar`; on one device and under
      sharded jit `axis_name` is None, mapped it is "data" or a tuple of names,
      and the rows it sees are its shard's.
    params: tree of float arrays, replicated; float64 inside.
    batch: tree of arrays whose leading axis divides by `num_devices`.
    modes: which of `MODES` to run; None for those of the tier.
    num_devices: devices to spread the rows over.
    rtol: relative to the largest entry of the array compared.

  Raises:
    unittest.SkipTest: there are fewer devices.
  """
  need_devices(num_devices)
  if modes is None:
    modes = FAST_MODES if tier.is_fast() else MODES
  with jax.enable_x64(True):
    wide = lambda x: (
      np.asarray(x, np.float64) if np.asarray(x).dtype.kind == "f" else x
    )
    params, batch = jax.tree.map(wide, (params, batch))
    expected = jax.jit(jax.value_and_grad(lambda p, b: fn(p, b, None)))(
      params, batch
    )
    expected = jax.tree.map(np.asarray, expected)
    for leaf in jax.tree.leaves(expected):
      assert np.all(np.isfinite(leaf)), "not finite on one device"
    for mode in modes:
      got = _RUN[mode](fn, params, batch, num_devices)
      jax.tree.map(
        lambda g, e, mode=mode: np.testing.assert_allclose(
          g, e, rtol=0, atol=rtol * max(np.max(np.abs(e)), 1e-3), err_msg=mode
        ),
        got,
        expected,
      )
