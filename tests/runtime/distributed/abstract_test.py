"""Shapes that carry their shardings."""

import jax
import jax.numpy as jnp
from absl.testing import absltest
from jax.sharding import PartitionSpec

from jaxalign.runtime.distributed import mesh as meshes


class AbstractTest(absltest.TestCase):
  def test_rows_lie_over_data_and_fsdp(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(2, 2, 2))
    shapes = {
      "tokens": jax.ShapeDtypeStruct((8, 2, 4), jnp.int32),
      "where": jax.ShapeDtypeStruct((8,), jnp.bool_),
    }
    batch = meshes.batch_shapes(shapes, mesh)
    self.assertEqual(batch["tokens"].shape, (8, 2, 4))
    self.assertEqual(batch["where"].dtype, jnp.bool_)
    for leaf in batch.values():
      self.assertEqual(leaf.sharding.spec, PartitionSpec(("data", "fsdp")))

  def test_each_leaf_takes_its_own_sharding(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))
    shapes = [jax.ShapeDtypeStruct((8,), jnp.float32)] * 2
    spread = [meshes.batch_sharding(mesh), meshes.replicated(mesh)]
    made = meshes.with_shardings(shapes, spread)
    self.assertEqual([leaf.sharding for leaf in made], spread)


if __name__ == "__main__":
  absltest.main()
