"""The mesh and the one table from logical axes to it."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, PartitionSpec

from jaxalign.runtime.distributed import mesh as meshes

AXES = {"kernel": ("layers", "embed", "mlp"), "scale": ("layers", "embed")}
SHAPES = {
  "kernel": jax.ShapeDtypeStruct((3, 8, 16), jnp.float32),
  "scale": jax.ShapeDtypeStruct((3, 8), jnp.float32),
}


class MeshTest(parameterized.TestCase):
  @parameterized.parameters(
    ((8, 1, 1), (8, 1, 1)),
    ((-1, 2, 2), (2, 2, 2)),
    ((1, 1, 1), (1, 1, 1)),
    ((-1, 1, 1), (8, 1, 1)),
  )
  def test_shape(self, sizes, expected):
    mesh = meshes.make_mesh(meshes.MeshConfig(*sizes))
    self.assertEqual(
      tuple(mesh.shape.items()),
      tuple(zip(("data", "fsdp", "tensor"), expected, strict=True)),
    )
    self.assertEqual(mesh.axis_types, (AxisType.Auto,) * 3)

  @parameterized.parameters(
    ((4, 4, 1), "needs 16 devices, got 8"),
    ((-1, 3, 1), "= 3 does not divide the 8 devices"),
    ((0, 1, 1), "must be positive"),
    ((2, 0, 1), "must be positive"),
  )
  def test_sizes_that_do_not_fit(self, sizes, message):
    with self.assertRaisesRegex(ValueError, message):
      meshes.make_mesh(meshes.MeshConfig(*sizes))


class TableTest(parameterized.TestCase):
  def shardings(self, sizes, rules=(), axes=AXES, shapes=SHAPES):
    mesh = meshes.make_mesh(meshes.MeshConfig(*sizes))
    tree = meshes.parameter_shardings(axes, shapes, mesh, rules)
    return jax.tree.map(lambda leaf: leaf.spec, tree)

  def test_parameters_follow_the_table(self):
    specs = self.shardings((2, 2, 2))
    self.assertEqual(specs["kernel"], PartitionSpec(None, "fsdp", "tensor"))
    self.assertEqual(specs["scale"], PartitionSpec(None, "fsdp"))

  def test_an_axis_of_one_device_shards_nothing(self):
    specs = self.shardings((8, 1, 1))
    self.assertEqual(specs["kernel"], PartitionSpec(None, None, None))

  def test_config_overrides_a_row(self):
    specs = self.shardings((2, 2, 2), rules=(("mlp", None),))
    self.assertEqual(specs["kernel"], PartitionSpec(None, "fsdp", None))

  @parameterized.parameters(
    ((("width", "fsdp"),), "unknown logical axis 'width'"),
    ((("mlp", "model"),), "unknown mesh axis 'model'"),
    ((("mlp", "fsdp"),), "'embed' and 'mlp' both lie on mesh axis 'fsdp'"),
  )
  def test_bad_rules_are_named(self, rules, message):
    with self.assertRaisesRegex(ValueError, message):
      self.shardings((2, 2, 2), rules=rules)

  def test_an_uneven_dimension_names_parameter_and_numbers(self):
    shapes = {"kernel": jax.ShapeDtypeStruct((7, 6), jnp.float32)}
    with self.assertRaisesRegex(
      ValueError, r"kernel.*'vocab' of 7 is not divisible by the 2 devices"
    ):
      self.shardings(
        (4, 1, 2), axes={"kernel": ("vocab", "embed")}, shapes=shapes
      )

  def test_axes_must_match_the_shape(self):
    shapes = {"kernel": jax.ShapeDtypeStruct((8, 16), jnp.float32)}
    with self.assertRaisesRegex(ValueError, "3 logical axes"):
      self.shardings((8, 1, 1), axes={"kernel": AXES["kernel"]}, shapes=shapes)

  def test_batch_must_give_every_device_whole_rows(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(2, 2, 2))
    meshes.check_batch(16, 4, mesh)
    with self.assertRaisesRegex(ValueError, "got 12 and 2 x 2 x 4 = 16"):
      meshes.check_batch(12, 4, mesh)


class DataParallelTest(absltest.TestCase):
  def test_state_is_one_copy_and_rows_are_split(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))

    def update(state, batch, key):
      del key
      total = jax.lax.psum(jnp.sum(batch["x"], 0), "data")
      return state + total, {"rows": jnp.float32(batch["x"].shape[0])}

    step = meshes.data_parallel(update, mesh)
    x = np.arange(32, dtype=np.float32).reshape(16, 2)
    state, metrics = step(jnp.zeros(2), {"x": x}, jax.random.key(0))
    np.testing.assert_array_equal(state, x.sum(0))
    self.assertEqual(float(metrics["rows"]), 2.0)
    self.assertTrue(state.is_fully_replicated)

  def test_many_processes_are_refused(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))
    with (
      mock.patch.object(jax, "process_count", return_value=2),
      self.assertRaisesRegex(ValueError, "pmap.*one process.* 2 processes"),
    ):
      meshes.data_parallel(lambda state, batch, key: state, mesh)

  def test_a_mesh_that_splits_parameters_is_refused(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(4, 2, 1))
    with self.assertRaisesRegex(ValueError, "got fsdp=2, tensor=1"):
      meshes.data_parallel(lambda *args: args, mesh)


if __name__ == "__main__":
  absltest.main()
