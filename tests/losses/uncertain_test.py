"""Losses of predicted reward distributions against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads
from scipy import stats

from jaxalign.losses import (
  categorical_preference_loss,
  mean_variance_loss,
  quantile_regression_loss,
)
from tests import references, transforms


class MeanVarianceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.args = np.random.default_rng(0).normal(size=(4, 5))
    self.fn = jax.jit(mean_variance_loss)

  def test_matches_scipy_far_into_the_tail(self):
    got = self.fn(*self.args)
    mc, mr, sc, sr = self.args
    z = (mc - mr) / np.hypot(np.exp(sc), np.exp(sr))
    np.testing.assert_allclose(got, -stats.norm.logcdf(z), rtol=1e-9)
    gap = np.array([-200.0, -8.0, -4.01, -3.99, 8.0])
    std = np.full(5, -0.5 * np.log(2))
    np.testing.assert_allclose(
      self.fn(gap, 0 * gap, std, std), -stats.norm.logcdf(gap), rtol=1e-9
    )

  def test_derivatives_are_those_of_the_normal_law_at_any_gap(self):
    loss = lambda g: mean_variance_loss(
      g, 0 * g, 0 * g - 0.5 * jnp.log(2), 0 * g - 0.5 * jnp.log(2)
    )
    gap = np.array([-300.0, -20.0, -4.5, -4.0, -3.5, 0.0, 3.0])
    hazard = np.exp(stats.norm.logpdf(gap) - stats.norm.logcdf(gap))
    np.testing.assert_allclose(
      jax.vmap(jax.grad(loss))(gap), -hazard, rtol=1e-6
    )
    curvature = hazard * (gap + hazard)
    np.testing.assert_allclose(
      jax.vmap(jax.grad(jax.grad(loss)))(gap)[2:], curvature[2:], rtol=1e-5
    )

  @parameterized.parameters(-1e4, 0.0, 1e4)
  def test_float32_is_finite_to_second_order(self, gap):
    gap = jnp.asarray(gap, jnp.float32)
    loss = lambda g: mean_variance_loss(g, 0 * g, 0 * g, 0 * g)
    for f in (loss, jax.grad(loss), jax.hessian(loss)):
      self.assertTrue(np.isfinite(jax.jit(f)(gap)))
    if gap < 0:  # a sure mistake still has a slope, of the size of the gap
      np.testing.assert_allclose(jax.grad(loss)(gap), gap / 2, rtol=1e-3)

  def test_shift_scale_and_swap(self):
    mc, mr, sc, sr = self.args
    expected = self.fn(*self.args)
    np.testing.assert_allclose(
      self.fn(mc + 3, mr + 3, sc, sr), expected, rtol=1e-9
    )
    np.testing.assert_allclose(
      self.fn(2 * mc, 2 * mr, sc + np.log(2), sr + np.log(2)),
      expected,
      rtol=1e-9,
    )
    other = self.fn(mr, mc, sr, sc)
    np.testing.assert_allclose(np.exp(-expected) + np.exp(-other), 1.0)

  def test_second_derivatives(self):
    check_grads(self.fn, tuple(self.args), order=2, rtol=1e-5)

  def test_jit_vmap_and_narrow_inputs(self):
    transforms.assert_jit_and_vmap(mean_variance_loss, *self.args)
    narrow = jnp.asarray(self.args, jnp.bfloat16)
    self.assertEqual(mean_variance_loss(*narrow).dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"rejected_log_std \(4,\)"):
      mean_variance_loss(*self.args[:3], self.args[3, 1:])
    with self.assertRaisesRegex(TypeError, "chosen_log_std must be floating"):
      mean_variance_loss(*self.args[:2], np.ones(5, np.int32), self.args[3])


class CategoricalPreferenceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.fn = jax.jit(categorical_preference_loss)

  def test_published_case(self):
    chosen = np.array([[0.0, 0, 0, 2], [1, 0, 0, 0]])
    rejected = np.array([[2.0, 0, 0, 0], [0, 0, 0, 1]])
    loss = self.fn(chosen, rejected)
    np.testing.assert_allclose(loss, [0.1430801, 1.2133279], atol=6e-8)
    np.testing.assert_allclose(np.exp(-loss), [0.8666847, 0.2972066], atol=6e-8)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    win = np.exp(-self.fn(np.log(p), np.log(p[::-1])))
    np.testing.assert_allclose(win, 0.75, rtol=1e-12)

  def test_swapping_gives_the_other_probability(self):
    x, y = np.random.default_rng(0).normal(size=(2, 3, 5))
    np.testing.assert_allclose(
      np.exp(-self.fn(x, y)) + np.exp(-self.fn(y, x)), 1.0, rtol=1e-12
    )
    np.testing.assert_allclose(self.fn(x, x), np.log(2), rtol=1e-12)
    np.testing.assert_allclose(self.fn(x + 2, y - 5), self.fn(x, y))

  def test_finite_to_second_order_where_the_probability_underflows(self):
    low = jnp.asarray([1e4, 0.0, -1e4], jnp.float32)
    loss = categorical_preference_loss
    # Three ties are the likeliest ways to win, each e^(-2e4) and worth a half.
    np.testing.assert_allclose(
      loss(low, low[::-1]), 2e4 - np.log(1.5), rtol=1e-6
    )
    for x, y in ((low, low[::-1]), (low[::-1], low), (low, low)):
      for f in (loss, jax.grad(loss), jax.hessian(loss)):
        self.assertTrue(np.all(np.isfinite(jax.jit(f)(x, y))))

  def test_second_derivatives_and_vmap(self):
    x, y = np.random.default_rng(1).normal(size=(2, 3, 5))
    check_grads(self.fn, (x, y), order=2, rtol=1e-5)
    transforms.assert_jit_and_vmap(categorical_preference_loss, x, y)
    narrow = categorical_preference_loss(
      jnp.asarray(x, jnp.bfloat16), jnp.asarray(y, jnp.bfloat16)
    )
    self.assertEqual(narrow.dtype, jnp.float32)

  def test_matches_a_double_loop(self):
    x, y = np.random.default_rng(2).normal(size=(2, 3, 5))
    got = self.fn(x, y)
    for n in range(3):
      np.testing.assert_allclose(
        got[n], references.categorical_preference_loss(x[n], y[n]), rtol=1e-12
      )

  def test_errors(self):
    x = np.ones((3, 5))
    with self.assertRaisesRegex(ValueError, r"rejected_logits \(5,\)"):
      categorical_preference_loss(x, x[0])
    with self.assertRaisesRegex(ValueError, "last axis of atoms"):
      categorical_preference_loss(np.float64(1), np.float64(1))


class QuantileRegressionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(
    ([0.2, 0.7], None, 2.0),
    ([0.2, 0.7], 2.0, 2.5),
    ([0.0, 0.4], None, 2.2),
    ([0.0, 0.4], 2.0, 2.8333333),
  )
  def test_published_cases(self, levels, huber, expected):
    got = quantile_regression_loss(
      np.array([-1.0, 3.0]),
      np.array([-3.0, 4.0, 2.0]),
      levels=np.array(levels),
      huber=huber,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-7)

  @parameterized.parameters(None, 0.7)
  def test_matches_reference_in_batches(self, huber):
    rng = np.random.default_rng(0)
    quantiles, targets = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 5))
    levels = np.array([0.1, 0.4, 0.6, 0.9])
    fn = lambda q, t: quantile_regression_loss(q, t, levels=levels, huber=huber)
    got = jax.jit(fn)(quantiles, targets)
    for i in np.ndindex(2, 3):
      np.testing.assert_allclose(
        got[i],
        references.quantile_regression_loss(
          quantiles[i], targets[i], levels, huber
        ),
        rtol=1e-12,
      )
    transforms.assert_jit_and_vmap(fn, quantiles, targets)
    check_grads(jax.jit(fn), (quantiles, targets), order=2, eps=1e-6)

  def test_is_least_at_the_quantiles(self):
    targets = np.random.default_rng(1).normal(size=2001)
    levels = np.array([0.1, 0.5, 0.9])
    slope = jax.grad(
      lambda q: quantile_regression_loss(q, targets, levels=levels)
    )(np.quantile(targets, levels))
    np.testing.assert_allclose(slope, 0.0, atol=1e-3)

  def test_extremes_and_shifts(self):
    far = np.array([1e4, -1e4])
    fn = lambda q: quantile_regression_loss(
      q, 0 * far, levels=np.array([0.1, 0.9]), huber=1.0
    )
    for f in (fn, jax.grad(fn), jax.hessian(fn)):
      self.assertTrue(np.all(np.isfinite(f(far))))
    levels = np.array([0.1, 0.9])
    pinball = lambda s: quantile_regression_loss(
      far + s, np.arange(3.0) + s, levels=levels
    )
    np.testing.assert_allclose(pinball(5.0), pinball(0.0), rtol=1e-12)

  def test_bfloat16_is_raised_and_ties_cost_nothing(self):
    same = jnp.ones((2, 3), jnp.bfloat16)
    levels = jnp.asarray([0.1, 0.5, 0.9], jnp.bfloat16)
    for huber in (None, 1.0):
      got = quantile_regression_loss(same, same, levels=levels, huber=huber)
      self.assertEqual(got.dtype, jnp.float32)
      np.testing.assert_array_equal(got, 0.0)

  def test_errors(self):
    q, t, levels = np.ones((3, 2)), np.ones((3, 4)), np.ones(2)
    with self.assertRaisesRegex(ValueError, r"got \(3, 2\), \(4,\) and"):
      quantile_regression_loss(q, t[0], levels=levels)
    with self.assertRaisesRegex(ValueError, r"levels \[Q\]"):
      quantile_regression_loss(q, t, levels=levels[:1])
    with self.assertRaisesRegex(ValueError, "huber must be positive"):
      quantile_regression_loss(q, t, levels=levels, huber=0.0)


if __name__ == "__main__":
  absltest.main()
