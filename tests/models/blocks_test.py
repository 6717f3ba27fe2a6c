"""The pieces of a block against NumPy, and what their gradients keep."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.models import blocks


class NormTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.x = rng.normal(size=(3, 4, 6)) * 2 + 1
    self.scale, self.bias = rng.normal(size=(2, 6))

  def test_match_reference(self):
    power = np.mean(self.x**2, axis=-1, keepdims=True)
    np.testing.assert_allclose(
      blocks.rms_norm(self.x, self.scale, 0.1),
      self.x / np.sqrt(power + 0.1) * self.scale,
      rtol=1e-12,
    )
    centred = self.x - self.x.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(
      blocks.layer_norm(self.x, self.scale, self.bias, 0.1),
      centred / np.sqrt(self.x.var(axis=-1, keepdims=True) + 0.1) * self.scale
      + self.bias,
      rtol=1e-12,
    )

  def test_second_derivatives_also_of_a_constant_row(self):
    self.x[0, 0] = 0.0
    rms = lambda *arrays: blocks.rms_norm(*arrays, 0.1)
    layer = lambda *arrays: blocks.layer_norm(*arrays, 0.1)
    check_grads(jax.jit(rms), (self.x, self.scale), order=2)
    check_grads(jax.jit(layer), (self.x, self.scale, self.bias), order=2)

  def test_the_backward_pass_keeps_the_narrow_input_alone(self):
    def kept(x):
      norm = lambda x: blocks.layer_norm(x, self.scale, self.bias, 0.1)
      return jax.vjp(norm, x)[1]

    leaves = jax.tree.leaves(
      jax.eval_shape(kept, jnp.asarray(self.x, jnp.bfloat16))
    )
    big = [leaf.dtype for leaf in leaves if leaf.size == self.x.size]
    self.assertEqual(big, [jnp.bfloat16])


class DropoutTest(absltest.TestCase):
  def test_share_and_scale(self):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jnp.ones((4, 50, 20))
    got = blocks.row_dropout(x, jax.random.clone(keys), 0.25)
    values, counts = np.unique(np.asarray(got), return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75])
    self.assertAlmostEqual(counts[0] / x.size, 0.25, delta=0.03)
    self.assertEqual(
      blocks.row_dropout(x.astype(jnp.bfloat16), keys, 0.25).dtype, jnp.bfloat16
    )

  def test_a_longer_row_starts_with_the_same_mask(self):
    keys = jax.random.split(jax.random.key(0), 2)
    again = jax.random.clone(keys)
    short = blocks.row_dropout(jnp.ones((2, 5, 8)), again, 0.5)
    longer = blocks.row_dropout(jnp.ones((2, 9, 8)), keys, 0.5)
    np.testing.assert_array_equal(longer[:, :5], short)

  def test_off(self):
    x = jnp.ones((2, 3, 4))
    self.assertIs(blocks.row_dropout(x, None, 0.5), x)
    keys = jax.random.split(jax.random.key(0), 2)
    self.assertIs(blocks.row_dropout(x, keys, 0.0), x)


if __name__ == "__main__":
  absltest.main()
