"""Losses of predicted reward distributions against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads
from scipy import stats

from jaxalign.losses import (
  mean_variance_loss,
)
from tests import transforms


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


if __name__ == "__main__":
  absltest.main()
