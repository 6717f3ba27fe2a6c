"""Activations pinned to a mesh: same numbers, and weights travel instead."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from jax.sharding import PartitionSpec

from jaxalign.models import activations, heads
from jaxalign.models.hf import config_map
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.profiling import hlo_collectives
from tests import parallel_modes
from tests.models.samples import equations

ROWS, LENGTH = 64, 16


class LaidOutTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    network = config_map.scratch_config(
      "llama",
      vocab_size=32,
      num_layers=2,
      num_heads=4,
      embed_dim=16,
      mlp_dim=32,
      max_positions=LENGTH,
      num_outputs=1,
      tie_embeddings=True,
      pad_id=0,
      dtype="float64",
      param_dtype="float64",
    )
    self.model = heads.reward_model(network)
    self.tokens = jax.random.randint(
      jax.random.key(1), (ROWS, LENGTH), 0, 32, jnp.int32
    )
    self.mask = jnp.ones((ROWS, LENGTH), bool)
    self.params = self.model.init(jax.random.key(0), self.tokens, self.mask)
    parallel_modes.need_devices(8)
    self.mesh = meshes.make_mesh(meshes.MeshConfig(2, 4, 1))
    rows = meshes.batch_sharding(self.mesh)
    self.shardings = (
      meshes.parameter_shardings(self.model.axes, self.params, self.mesh),
      rows,
      rows,
    )

  def loss(self, params, tokens, mask):
    return jnp.sum(self.model.apply(params, tokens, mask).rewards ** 2)

  def compiled(self, pinned):
    function = jax.grad(self.loss)
    if pinned:
      function = activations.laid_out(
        function, self.mesh, meshes.logical_table()
      )
    step = jax.jit(
      function,
      in_shardings=self.shardings,
      out_shardings=self.shardings[0],
    )
    return step.lower(self.params, self.tokens, self.mask).compile()

  def largest_message(self, compiled):
    return max(
      message.bytes
      for message in hlo_collectives.collectives(compiled.as_text())
    )

  def test_gradient_is_that_of_one_device(self):
    args = jax.tree.map(
      jax.device_put, (self.params, self.tokens, self.mask), self.shardings
    )
    expected = jax.grad(self.loss)(self.params, self.tokens, self.mask)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9),
      self.compiled(pinned=True)(*args),
      expected,
    )

  def test_no_message_is_as_large_as_a_devices_activations(self):
    activation = ROWS // 8 * LENGTH * 16 * 8
    self.assertLess(self.largest_message(self.compiled(True)), activation)
    self.assertGreaterEqual(
      self.largest_message(self.compiled(False)), activation
    )

  def test_ids_lie_where_their_rows_will(self):
    pinned = activations.laid_out(self.loss, self.mesh, meshes.logical_table())
    traced = jax.make_jaxpr(pinned)(self.params, self.tokens, self.mask)
    found = {
      str(e.params["sharding"].spec)
      for e in equations(traced.jaxpr)
      if e.primitive.name == "sharding_constraint"
      if jnp.issubdtype(e.outvars[0].aval.dtype, jnp.integer)
    }
    self.assertEqual(found, {str(PartitionSpec("data", None))})


if __name__ == "__main__":
  absltest.main()
