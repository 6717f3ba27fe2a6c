"""Splash attention: the dense result, and a program for a TPU without one."""

import dataclasses
import importlib.util
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign import models
from jaxalign.models import activations, splash_attention
from jaxalign.models.hf import param_map
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.profiling import compiled as inspect
from tests import parallel_modes
from tests.models.samples import LLAMA, rows, start

SPLASH = dataclasses.replace(LLAMA, attention="splash")
TABLE = {"batch": ("data",), "heads": ("tensor",), "kv_heads": ("tensor",)}


class SplashTest(parameterized.TestCase):
  def interpreted(self):
    """Runs the kernel on this CPU, slowly."""
    if jax.default_backend() == "gpu":
      self.skipTest("the kernel is a TPU's, and is interpreted on a CPU")
    self.enter_context(mock.patch.object(splash_attention, "INTERPRET", True))

  @parameterized.parameters(None, 3)
  def test_equals_dense_attention(self, window):
    self.interpreted()
    config = dataclasses.replace(SPLASH, sliding_window=window)
    model, params = start(config)
    dense = models.causal_lm(dataclasses.replace(config, attention="dense"))
    tokens, mask = rows()
    segments = np.array([[1, 1, 2, 2, 2, 2]] * 3, np.int32)

    def losses(model):
      def loss(params):
        logits = [
          model.apply(params, tokens, mask, segment_ids=ids).logits
          for ids in (None, segments)
        ]
        at = mask[None, ..., None]
        return jnp.sum(jnp.where(at, jnp.sin(jnp.stack(logits)), 0.0))

      return jax.value_and_grad(loss)(params)

    (got, slopes), (expected, dense_slopes) = losses(model), losses(dense)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-4),
      slopes,
      dense_slopes,
    )

  def test_each_device_has_its_rows_and_heads(self):
    self.interpreted()
    shapes, local = set(), splash_attention._local

    def recorded(query, key, *rest, **options):
      shapes.update({query.shape, key.shape})
      return local(query, key, *rest, **options)

    self.enter_context(mock.patch.object(splash_attention, "_local", recorded))
    model, params = start(SPLASH)
    parallel_modes.need_devices(4)
    mesh = Mesh(
      np.array(jax.devices()[:4]).reshape(2, 2),
      ("data", "tensor"),
      axis_types=(AxisType.Auto,) * 2,
    )
    tokens, mask = rows(batch=4)
    logits = lambda p: model.apply(p, tokens, mask).logits
    sharded = jax.jit(activations.laid_out(logits, mesh, TABLE))
    everywhere = NamedSharding(mesh, PartitionSpec())
    got = sharded(jax.device_put(params, everywhere))
    self.assertContainsSubset({(2, 6, 2, 2), (2, 6, 1, 2)}, shapes)
    expected = jax.jit(models.causal_lm(LLAMA).apply)(params, tokens, mask)
    expected = expected.logits
    # Blocks sum in another order, and what a float32 sum loses depends on the
    # processor: 1.4e-5 of logits up to 4 was seen.
    np.testing.assert_allclose(
      np.asarray(got)[mask], np.asarray(expected)[mask], atol=1e-4
    )

  def test_compiles_for_a_tpu(self):
    if importlib.util.find_spec("libtpu") is None:
      self.skipTest("compiling for a TPU needs libtpu")
    devices = inspect.tpu_topology("v5e:2x2")
    mesh = meshes.make_mesh(
      meshes.MeshConfig(data=2, fsdp=1, tensor=2), devices
    )
    config = models.DecoderConfig(
      vocab_size=512,
      num_layers=2,
      num_heads=4,
      num_kv_heads=2,
      embed_dim=256,
      mlp_dim=512,
      max_positions=512,
      dtype="bfloat16",
      remat="dots",
      attention="splash",
    )
    model = models.causal_lm(config)
    params = param_map.abstract_params(config)
    shardings = meshes.parameter_shardings(model.axes, params, mesh, ())
    row = meshes.batch_sharding(mesh)
    shape = lambda dtype: jax.ShapeDtypeStruct((4, 512), dtype, sharding=row)
    placed = jax.tree.map(
      lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
      params,
      shardings,
    )

    def loss(params, tokens, segments):
      out = model.apply(params, tokens, segments > 0, segment_ids=segments)
      return jnp.sum(jax.nn.log_softmax(out.logits)[..., 0])

    step = activations.laid_out(jax.grad(loss), mesh, meshes.logical_table(()))
    compiled = (
      jax.jit(step, out_shardings=shardings)
      .lower(placed, shape(jnp.int32), shape(jnp.int32))
      .compile()
    )
    kernels = compiled.as_text().count('custom_call_target="tpu_custom_call"')
    # Forward, forward again under remat, and two of the backward pass.
    self.assertBetween(kernels, 3, 4)


if __name__ == "__main__":
  absltest.main()
