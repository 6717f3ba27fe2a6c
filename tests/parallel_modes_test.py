"""The harness itself: it must catch a gradient N times too large."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from tests import parallel_modes

BATCH = dict(x=np.random.default_rng(0).normal(size=(16, 3)))
PARAMS = dict(w=np.array([0.3, -0.2, 0.9]))


def coupled(params, batch, axis_name):
  """log of a mean over all rows: no mean of per-device values equals it."""
  total = jnp.mean(jnp.exp(batch["x"] @ params["w"]))
  if axis_name is not None:
    total = jax.lax.pmean(total, axis_name)
  return jnp.log(total)


class ParallelModesTest(parameterized.TestCase):
  def test_a_correct_function_passes_everywhere(self):
    parallel_modes.assert_same_in_all_modes(
      coupled, PARAMS, BATCH, modes=parallel_modes.MODES
    )

  @parameterized.parameters("pmap", "shard_map_outside", "shard_map_inside")
  def test_a_gradient_n_times_too_large_is_caught(self, mode):
    def scaled(params, batch, axis_name):
      value = coupled(params, batch, axis_name)
      if axis_name is None:
        return value
      return value + 7 * (value - jax.lax.stop_gradient(value))

    with self.assertRaisesRegex(AssertionError, mode):
      parallel_modes.assert_same_in_all_modes(
        scaled, PARAMS, BATCH, modes=(mode,)
      )

  def test_a_forgotten_reduction_is_caught(self):
    with self.assertRaisesRegex(AssertionError, "pmap"):
      parallel_modes.assert_same_in_all_modes(
        lambda p, b, axis_name: coupled(p, b, None),
        PARAMS,
        BATCH,
        modes=("pmap",),
      )

  def test_gradient_inside_shard_map_without_pmean_is_n_times_too_large(self):
    # Why the recipe says pmean the scalar first: this is what comes otherwise.
    mesh = parallel_modes._mesh((8,), ("data",))
    spec = jax.sharding.PartitionSpec
    x = jnp.asarray(BATCH["x"], jnp.float32)
    w = jnp.asarray(PARAMS["w"], jnp.float32)
    local = lambda p, b: jnp.mean(b @ p)
    step = lambda p, b: jax.lax.pmean(jax.grad(local)(p, b), "data")
    got = jax.shard_map(
      step, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec()
    )(w, x)
    np.testing.assert_allclose(got, 8 * jax.grad(local)(w, x), rtol=1e-5)


if __name__ == "__main__":
  absltest.main()
