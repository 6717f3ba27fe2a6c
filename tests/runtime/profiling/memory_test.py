"""Bytes on a device, giants on every device, errors that name sizes."""

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.profiling import memory


class FootprintTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    mesh = meshes.make_mesh(meshes.MeshConfig(2, 4, 1))
    self.on = lambda shape, *spec, dtype=jnp.float32: jax.ShapeDtypeStruct(
      shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )

  def test_each_device_counts_its_shard(self):
    tree = {
      "split": self.on((8, 16), "fsdp"),
      "whole": self.on((3,), dtype=jnp.bfloat16),
      "key": self.on((), dtype=jax.random.key(0).dtype),
    }
    expected = (
      2 * 16 * 4 + 3 * 2 + jax.random.key_data(jax.random.key(0)).nbytes
    )
    self.assertEqual(memory.bytes_per_device(tree), expected)
    self.assertEqual(memory.model_bytes(tree), expected + 6 * 16 * 4)

  def test_a_giant_is_large_and_whole_everywhere(self):
    tree = {
      "embed": self.on((100, 16)),
      "split": self.on((100, 16), None, "fsdp"),
      "scale": self.on((15,)),
    }
    size = 100 * 16 * 4
    found = memory.replicated_giants(tree, model_bytes=size)
    self.assertEqual(found, [memory.Giant("['embed']", (100, 16), size)])
    alone = meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
    one = jax.ShapeDtypeStruct(
      (9,), jnp.float32, sharding=NamedSharding(alone, PartitionSpec())
    )
    self.assertEmpty(memory.replicated_giants(one, model_bytes=1))

  @parameterized.parameters(
    ("Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.", 20.5),
    (
      "Ran out of memory on HBM, the total memory required for HLO temporaries "
      "(835.06G) exceeds available HBM (15.75G).",
      836.06,
    ),
    ("INVALID_ARGUMENT: rank", None),
  )
  def test_errors_name_what_is_needed(self, message, expected):
    needed = memory.exceeded(message, 2**30)
    if expected is None:
      self.assertIsNone(needed)
    else:
      self.assertAlmostEqual(needed / 2**30, expected, places=5)


if __name__ == "__main__":
  absltest.main()
