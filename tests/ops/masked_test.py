"""Masked statistics against NumPy, then what a mask must not let through."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.ops import masked_mean, masked_var, masked_whiten
from tests import parallel_modes, references

FUNCTIONS = (masked_mean, masked_var, masked_whiten)


class MaskedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.x = rng.normal(size=(4, 6)) + 2.0
    self.where = rng.random((4, 6)) < 0.6

  @parameterized.parameters(*FUNCTIONS)
  def test_matches_reference(self, fn):
    np.testing.assert_allclose(
      jax.jit(lambda x: fn(x, where=self.where))(self.x),
      getattr(references, fn.__name__)(self.x, self.where),
      rtol=1e-12,
    )

  @parameterized.product(
    fn=(masked_mean, masked_var), axis=(0, 1, -1, (0, 1), (-1, 0))
  )
  def test_any_axis_is_numpy_ma(self, fn, axis):
    array = np.ma.masked_array(self.x, ~self.where)
    expected = array.mean(axis) if fn is masked_mean else array.var(axis)
    np.testing.assert_allclose(
      fn(self.x, where=self.where, axis=axis), expected, rtol=1e-12
    )

  @parameterized.parameters(*FUNCTIONS)
  def test_mask_of_leading_axes_covers_the_trailing_ones(self, fn):
    rows = self.where[:, 0]
    full = np.broadcast_to(rows[:, None], self.x.shape)
    np.testing.assert_array_equal(
      fn(self.x, where=rows), fn(self.x, where=full)
    )

  def test_published_cases(self):
    x = np.arange(1.0, 6.0)
    where = np.array([True, True, False, False, True])
    np.testing.assert_allclose(masked_mean(x, where=where), 2.666667, rtol=1e-6)
    # Published as a sample variance, 4.333333; ours divides by the count.
    np.testing.assert_allclose(
      masked_var(x, where=where), 4.333333 * 2 / 3, rtol=1e-6
    )
    x = np.stack([x, np.arange(6.0, 11.0)])
    where = np.stack([where, np.ones(5, bool)])
    np.testing.assert_allclose(masked_mean(x, where=where), 6.0)
    np.testing.assert_allclose(
      masked_mean(x, where=where, axis=1), [2.666667, 8.0], rtol=1e-6
    )
    np.testing.assert_allclose(
      masked_var(x, where=where), 10.285715 * 7 / 8, rtol=1e-6
    )
    x, where = np.array([1.0, 2.0, np.nan, 4.0]), np.array([1, 0, 0, 1], bool)
    self.assertEqual(masked_mean(x, where=where), 2.5)
    self.assertTrue(np.isnan(masked_mean(x, where=~where)))
    x, where = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 1, 0], bool)
    self.assertEqual(masked_var(x, where=where), 0.25)
    np.testing.assert_allclose(
      masked_whiten(x, where=where), [0.0, -1.0, 1.0, 0.0], rtol=1e-12
    )
    # Rewards 1 to 5 brought to mean 0 and deviation 1, as a gain and a bias.
    x = np.arange(1.0, 6.0)
    np.testing.assert_allclose(
      masked_whiten(x, where=x > 0), 0.7071068 * x - 2.1213203, atol=5e-7
    )

  @parameterized.parameters(*FUNCTIONS)
  def test_what_is_masked_changes_neither_value_nor_gradient(self, fn):
    def both(x):
      weights = jnp.arange(1.0, 7.0)
      total = lambda x: jnp.sum(fn(x, where=self.where) * weights[None])
      return fn(x, where=self.where), jax.grad(total)(x)

    clean = both(self.x)
    for garbage in (np.nan, np.inf, -1e300):
      dirty = both(np.where(self.where, self.x, garbage))
      jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    np.testing.assert_array_equal(np.asarray(clean[1])[~self.where], 0.0)

  @parameterized.parameters(*FUNCTIONS)
  def test_nothing_counted_is_zero_with_zero_gradient(self, fn):
    where = np.zeros((4, 6), bool)
    x = np.full((4, 6), np.nan)
    total = lambda x: jnp.sum(fn(x, where=where))
    self.assertEqual(total(x), 0.0)
    for order in (jax.grad(total), jax.jacfwd(jax.grad(total))):
      np.testing.assert_array_equal(jax.jit(order)(x), 0.0)

  @parameterized.parameters(*FUNCTIONS)
  def test_second_derivatives_in_both_modes(self, fn):
    check_grads(
      jax.jit(lambda x: fn(x, where=self.where)), (self.x,), order=2, rtol=1e-5
    )

  def test_whiten_of_a_constant_is_zero_with_zero_gradient(self):
    # 0.1 is not representable: the mean of many differs in the last bit.
    for dtype in (np.float32, np.float64):
      x = np.full(1000, 0.1, dtype)
      where = np.ones(1000, bool)
      y, grad = jax.value_and_grad(
        lambda x, where=where: jnp.sum(masked_whiten(x, where=where) ** 2)
      )(x)
      self.assertEqual(y, 0.0)
      np.testing.assert_array_equal(grad, 0.0)

  @parameterized.parameters(1e-12, 1e12)
  def test_whiten_has_no_epsilon(self, scale):
    x = jnp.asarray(self.x[0] * scale, jnp.float32)
    y = masked_whiten(x, where=jnp.ones(6, jnp.bool_))
    np.testing.assert_allclose(np.std(y), 1.0, rtol=1e-5)

  def test_variance_survives_a_large_mean(self):
    x = jnp.asarray([10000.0, 10001.0, 10002.0], jnp.float32)
    np.testing.assert_allclose(
      masked_var(x, where=jnp.ones(3, jnp.bool_)), 2 / 3, rtol=1e-6
    )

  @parameterized.parameters(*FUNCTIONS)
  def test_bfloat16_is_raised(self, fn):
    x = jnp.asarray(self.x, jnp.bfloat16)
    self.assertEqual(fn(x, where=self.where).dtype, jnp.float32)

  @parameterized.parameters(*FUNCTIONS)
  def test_vmap_equals_loop(self, fn):
    mapped = jax.vmap(lambda x, w: fn(x, where=w))(self.x, self.where)
    for i in range(4):
      np.testing.assert_allclose(
        mapped[i], fn(self.x[i], where=self.where[i]), rtol=1e-12
      )

  @parameterized.parameters(*FUNCTIONS)
  def test_same_in_all_modes(self, fn):
    rng = np.random.default_rng(1)
    where = rng.random((16, 3)) < 0.5
    where[:4] = False  # two devices count nothing
    batch = dict(x=rng.normal(size=(16, 3)), where=where)

    def scalar(params, batch, axis_name):
      y = fn(
        jnp.tanh(batch["x"] * params[None]),
        where=batch["where"],
        axis_name=axis_name,
      )
      if fn is not masked_whiten:
        return y
      # Cubed: the whitened mean is 0 and its mean square 1, whatever params.
      return masked_mean(y**3, where=batch["where"], axis_name=axis_name)

    parallel_modes.assert_same_in_all_modes(
      scalar, np.array([0.5, 1.0, 2.0]), batch
    )

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      masked_mean(self.x, where=np.ones((4, 6), np.int32))
    with self.assertRaisesRegex(TypeError, "x must be floating"):
      masked_var(np.ones(2, np.int32), where=np.ones(2, bool))
    with self.assertRaisesRegex(ValueError, r"where \(6,\) for x \(4, 6\)"):
      masked_whiten(self.x, where=np.ones(6, bool))


if __name__ == "__main__":
  absltest.main()
