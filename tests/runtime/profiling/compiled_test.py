"""Memory of programs of known size, FLOPs counted twice, TPU topologies."""

import importlib.util
import json
import mmap
import os
import subprocess
import sys
import textwrap
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxalign.runtime.profiling import compiled as inspect
from tests import checkout

TPU_PROGRAM = textwrap.dedent("""
  import json
  import sys
  import jax
  import jax.numpy as jnp
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
  import numpy as np
  from jaxalign.runtime.profiling import compiled

  devices = compiled.tpu_topology("v5e:2x4")
  mesh = Mesh(np.array(devices), "x", axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("x"))
  whole = NamedSharding(mesh, PartitionSpec())
  one = NamedSharding(
    Mesh(np.array(devices[:1]), "x", axis_types=(AxisType.Auto,)),
    PartitionSpec(),
  )
  lower = lambda f, i, o, *s: jax.jit(
    f, in_shardings=i, out_shardings=o
  ).lower(jax.ShapeDtypeStruct(s, jnp.float32))
  program = lower(lambda x: x.sum(0), rows, whole, 64, 128).compile()
  try:  # 8 GiB in and 8 GiB out
    lower(lambda x: x + 1, one, one, 2**21, 1024).compile()
  except jax.errors.JaxRuntimeError as error:
    refused = str(error)
  try:
    compiled.tpu_topology("v5e:3x3")
  except ValueError as error:
    rejected = str(error)
  json.dump({
    "devices": len(devices),
    "single": len(compiled.tpu_topology("v6e:1x1")),
    "kind": devices[0].device_kind,
    "memory": compiled.memory_report(program),
    "collectives": compiled.collectives(program.as_text()),
    "refused": refused,
    "rejected": rejected,
  }, sys.stdout)
""")


class Shape(NamedTuple):
  num_layers: int = 3
  embed_dim: int = 16
  num_heads: int = 4
  num_kv_heads: int = 2
  head_dim: int = 8
  mlp_dim: int = 24
  gated: bool = True
  vocab_size: int = 50


def decoder(params, x, shape):
  """The matrix products of a decoder, without anything that is not one."""
  group = shape.num_heads // shape.num_kv_heads
  for p in params["layers"]:
    q = jnp.einsum("btd,dhk->bthk", x, p["q"])
    k = jnp.einsum("btd,dhk->bthk", x, p["k"])
    v = jnp.einsum("btd,dhk->bthk", x, p["v"])
    q = q.reshape(*q.shape[:2], shape.num_kv_heads, group, shape.head_dim)
    scores = jnp.einsum("bthgk,bshk->bhgts", q, k)
    mixed = jnp.einsum("bhgts,bshk->bthgk", scores, v)
    mixed = mixed.reshape(*x.shape[:2], shape.num_heads, shape.head_dim)
    x = x + jnp.einsum("bthk,hkd->btd", mixed, p["o"])
    hidden = x @ p["up"]
    if shape.gated:
      hidden = hidden * (x @ p["gate"])
    x = x + hidden @ p["down"]
  return x @ params["head"]


def product_flops(jaxpr):
  """FLOPs of every dot_general, from the shapes in the jaxpr."""
  total = 0
  for eqn in jaxpr.eqns:
    for value in eqn.params.values():
      if hasattr(value, "jaxpr"):
        total += product_flops(value.jaxpr)
    if eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      inner = np.prod([eqn.invars[0].aval.shape[i] for i in contracted])
      total += 2 * inner * np.prod(eqn.outvars[0].aval.shape)
  return total


class DecoderFlopsTest(parameterized.TestCase):
  @parameterized.parameters((Shape(),), (Shape(gated=False, num_kv_heads=4),))
  def test_equals_the_products_of_a_decoder(self, shape):
    d, f, k = shape.embed_dim, shape.mlp_dim, shape.head_dim
    h, g = shape.num_heads, shape.num_kv_heads
    is_shape = lambda s: isinstance(s, tuple)
    layer = {
      "q": (d, h, k), "k": (d, g, k), "v": (d, g, k), "o": (h, k, d),
      "up": (d, f), "down": (f, d), **({"gate": (d, f)} if shape.gated else {}),
    }  # fmt: skip
    params = {
      "layers": [jax.tree.map(jnp.zeros, layer, is_leaf=is_shape)]
      * shape.num_layers,
      "head": jnp.zeros((d, shape.vocab_size)),
    }
    x = jnp.zeros((2, 6, d))
    forward = lambda p, x: decoder(p, x, shape)
    self.assertEqual(
      inspect.decoder_flops(shape, 12, 6),
      product_flops(jax.make_jaxpr(forward)(params, x).jaxpr),
    )
    # With respect to the input as well: the first layer has one below it.
    both = jax.grad(lambda p, x: forward(p, x).sum(), argnums=(0, 1))
    self.assertEqual(
      inspect.decoder_flops(shape, 12, 6, passes="forward_backward"),
      product_flops(jax.make_jaxpr(both)(params, x).jaxpr),
    )

  def test_reward_head_in_place_of_the_vocabulary(self):
    full = inspect.decoder_flops(Shape(), 10, 5)
    reward = inspect.decoder_flops(Shape(), 10, 5, num_outputs=1)
    self.assertEqual(full - reward, 10 * 2 * 16 * 49)

  def test_unknown_passes_are_named(self):
    with self.assertRaisesRegex(ValueError, "passes must be one of .*'back'"):
      inspect.decoder_flops(Shape(), 1, 1, passes="back")


class MemoryTest(absltest.TestCase):
  def test_parts_are_per_device_and_donation_is_taken_off(self):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("x"))

    def update(state, batch):
      return state * 2.0, jnp.sum(batch)

    compiled = (
      jax.jit(
        update,
        in_shardings=(rows, rows),
        out_shardings=(rows, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
      )
      .lower(
        jax.ShapeDtypeStruct((8, 1024), jnp.float32),
        jax.ShapeDtypeStruct((8, 256), jnp.float32),
      )
      .compile()
    )
    report = inspect.memory_report(compiled)
    self.assertEqual(report.arguments, 4 * (1024 + 256))
    self.assertEqual(report.aliases, 4 * 1024)
    # The tuple of outputs has a table of two pointers.
    self.assertBetween(report.outputs, 4 * 1025, 4 * 1025 + 64)
    self.assertEqual(
      report.total,
      report.arguments + report.temporaries + report.outputs - report.aliases,
    )

  def test_temporaries_are_seen(self):
    lowest = lambda x: jnp.sort(x @ x.T, axis=1)[:, 0]
    shape = jax.ShapeDtypeStruct((512, 4), jnp.float32)
    report = inspect.memory_report(jax.jit(lowest).lower(shape).compile())
    self.assertGreaterEqual(report.temporaries, 4 * 512 * 512)

  def test_host_memory_grows_with_what_is_held(self):
    # Pages of its own: an array may land in memory that the process freed
    # earlier and the system still counts as resident.
    with mmap.mmap(-1, 2**26) as held:
      before = inspect.host_memory_bytes()
      np.frombuffer(held, np.uint8)[:] = 1
      self.assertGreater(inspect.host_memory_bytes(), before + 2**25)

  def test_device_memory_is_that_of_the_fullest_device(self):
    self.assertIsNone(inspect.device_memory_bytes())  # CPUs do not count
    devices = [
      mock.Mock(memory_stats=lambda n=n: {"bytes_in_use": n}) for n in (5, 9, 7)
    ]
    with mock.patch.object(jax, "local_devices", lambda: devices):
      self.assertEqual(inspect.device_memory_bytes(), 9)


class TopologyTest(parameterized.TestCase):
  @parameterized.parameters("v5litepod-16", "v5e", "v9:2x2", "v5e:4x4x4x4")
  def test_unknown_names_get_the_known_ones(self, name):
    with self.assertRaisesRegex(ValueError, f"{name}.*v5e:4x4, v5e:16x16"):
      inspect.tpu_topology(name)

  @parameterized.parameters(
    ("v4:4x4x4", "v4-128"),
    ("v5e:4x4", "v5litepod-16"),
    ("v5p:2x2x1", "v5p-8"),
    ("v6e:16x16", "v6e-256"),
  )
  def test_environment_is_filled_in_but_not_overruled(self, name, accelerator):
    def no_libtpu(*args, **kwargs):
      raise RuntimeError("no libtpu")

    with (
      mock.patch.object(inspect.topologies, "get_topology_desc", no_libtpu),
      mock.patch.dict(os.environ, {"TPU_WORKER_HOSTNAMES": "mine"}),
    ):
      os.environ.pop("TPU_ACCELERATOR_TYPE", None)
      with self.assertRaisesRegex(RuntimeError, r"pip install 'jaxalign\[tpu"):
        inspect.tpu_topology(name)
      self.assertEqual(os.environ["TPU_ACCELERATOR_TYPE"], accelerator)
      self.assertEqual(os.environ["TPU_SKIP_MDS_QUERY"], "1")
      self.assertEqual(os.environ["TPU_WORKER_HOSTNAMES"], "mine")

  def test_limits_take_kinds_and_families(self):
    self.assertEqual(inspect.hbm_limit("TPU v5 lite"), int(15.75 * 2**30))
    self.assertEqual(inspect.hbm_limit("v5e"), inspect.hbm_limit("TPU v5 lite"))
    with self.assertRaisesRegex(ValueError, "TPU v6 lite.*got 'H100'"):
      inspect.hbm_limit("H100")

  def test_program_compiles_for_a_pod(self):
    if importlib.util.find_spec("libtpu") is None:
      self.skipTest("libtpu is not installed")
    # Its own process: libtpu reads the environment once, when it loads.
    env = {k: v for k, v in os.environ.items() if not k.startswith("TPU_")}
    out = subprocess.run(
      [sys.executable, "-c", TPU_PROGRAM],
      cwd=checkout.ROOT,
      env={**env, "JAX_PLATFORMS": "cpu"},
      capture_output=True,
      text=True,
      timeout=120,
    )
    self.assertEqual(out.returncode, 0, out.stderr[-3000:])
    got = json.loads(out.stdout)
    self.assertEqual((got["devices"], got["single"]), (8, 1))
    arguments = inspect.MemoryReport(*got["memory"]).arguments
    self.assertEqual(arguments, 8 * 128 * 4)
    self.assertIn("all-reduce", [kind for kind, *_ in got["collectives"]])
    limit = inspect.hbm_limit(got["kind"]) / 2**30
    self.assertIn(f"({limit:.2f}G)", got["refused"])
    self.assertIn("'v5e:3x3'", got["rejected"])


if __name__ == "__main__":
  absltest.main()
