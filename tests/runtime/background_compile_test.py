"""A program compiled on another thread is the function's own."""

import threading
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.runtime import background_compile
from jaxalign.runtime.distributed import mesh as meshes


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


class BackgroundCompiledTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.threads = []

    def step(state, batch):
      self.threads.append(threading.current_thread())
      return {"x": state["x"] + batch.sum()}, batch * 2

    self.step = jax.jit(step, donate_argnums=0)

  def compiled(self, step=None, rows=3):
    return background_compile.BackgroundCompiled(
      self.step if step is None else step, {"x": shape(2)}, shape(rows)
    )

  def test_it_is_traced_once_elsewhere_and_gives_away_its_state(self):
    function = self.compiled()
    state = {"x": jnp.ones(2)}
    for number in (4.0, 7.0):
      old, (state, doubled) = state, function(state, np.ones(3, np.float32))
      np.testing.assert_array_equal(state["x"], [number, number])
      np.testing.assert_array_equal(doubled, [2.0, 2.0, 2.0])
      self.assertTrue(old["x"].is_deleted())
    self.assertLen(self.threads, 1)
    self.assertIsNot(self.threads[0], threading.current_thread())

  def test_other_shapes_go_to_the_function(self):
    function = self.compiled()
    for rows in (5, 3, 5):
      state, _ = function({"x": jnp.zeros(2)}, jnp.ones(rows))
      np.testing.assert_array_equal(state["x"], [rows, rows])
    self.assertLen(self.threads, 2)

  def test_arrays_on_one_device_and_a_mesh_meet(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(8, 1, 1))
    rows, everywhere = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    draw = lambda batch, key: batch + jax.random.normal(key, (8,))
    step = jax.jit(draw, in_shardings=(rows, everywhere))
    key = jax.random.key(0)
    function = background_compile.BackgroundCompiled(
      step,
      jax.ShapeDtypeStruct((8,), jnp.float32, sharding=rows),
      jax.eval_shape(lambda: key),
    )
    batch = jax.device_put(np.arange(8, dtype=np.float32), rows)
    np.testing.assert_array_equal(
      function(batch, jax.random.fold_in(key, 1)),
      step(batch, jax.random.fold_in(key, 1)),
    )

  def test_what_cannot_be_compiled_raises_when_it_is_called(self):
    def broken(state, batch):
      raise TypeError("no such step")

    function = self.compiled(jax.jit(broken))
    with self.assertRaisesRegex(TypeError, "no such step"):
      function({"x": jnp.zeros(2)}, jnp.ones(3))

  def test_functions_without_programs_and_several_hosts_are_left_alone(self):
    plain = self.compiled(lambda state, batch: (state, batch))
    self.assertEqual(plain(1, 2), (1, 2))
    with mock.patch.object(jax, "process_count", return_value=2):
      function = self.compiled()
    function({"x": jnp.zeros(2)}, jnp.ones(3))
    self.assertIs(self.threads[0], threading.current_thread())


if __name__ == "__main__":
  absltest.main()
