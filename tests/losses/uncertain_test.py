"""Losses of predicted reward distributions against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads
from scipy import stats

from jaxalign.losses import (
  expected_preference_loss,
  mean_variance_loss,
  soft_preference_loss,
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


class ExpectedPreferenceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(1)
    self.chosen, self.rejected = rng.normal(size=(2, 40)) * 2
    self.variance = np.exp(rng.normal(size=40) * 2)
    self.prob, self.margin = rng.random(40), rng.normal(size=40)
    self.fn = jax.jit(expected_preference_loss)

  def got(self, variance=None):
    return self.fn(
      self.chosen,
      self.rejected,
      self.variance if variance is None else variance,
      chosen_prob=self.prob,
      margin=self.margin,
    )

  def test_equals_the_formula(self):
    gap = self.chosen - self.rejected - self.margin
    root = np.sqrt(gap**2 + self.variance)
    expected = np.logaddexp(root / 2, -root / 2) - (self.prob - 0.5) * gap
    np.testing.assert_allclose(self.got(), expected, rtol=1e-12)
    # The same of a pair with a label of 1.
    np.testing.assert_allclose(
      self.fn(self.chosen, self.rejected, self.variance),
      self.fn(self.chosen, self.rejected, self.variance, chosen_prob=1.0),
    )

  def test_is_no_less_than_the_mean_loss_and_near_it(self):
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    gap = (self.chosen - self.rejected - self.margin)[:, None]
    drawn = gap + np.sqrt(self.variance)[:, None] * nodes
    prob = self.prob[:, None]
    each = prob * np.logaddexp(0, -drawn) + (1 - prob) * np.logaddexp(0, drawn)
    mean = each @ weights / weights.sum()
    above = np.asarray(self.got()) - mean
    self.assertGreater(above.min(), -1e-9)
    few = self.variance < 1
    self.assertLess(above[few].max(), 0.05)
    self.assertGreater(np.max(above), 0.05)  # a bound, and not the mean

  def test_without_a_variance_it_is_the_plain_loss(self):
    np.testing.assert_allclose(
      self.got(np.zeros(40)),
      soft_preference_loss(
        self.chosen, self.rejected, chosen_prob=self.prob, margin=self.margin
      ),
      rtol=1e-12,
    )
    more = np.asarray(self.got(self.variance * 1.1) - self.got())
    self.assertGreater(more.min(), 0)

  def test_swapping_the_responses_and_the_label_changes_nothing(self):
    one = self.fn(
      self.chosen, self.rejected, self.variance, chosen_prob=self.prob
    )
    other = self.fn(
      self.rejected, self.chosen, self.variance, chosen_prob=1 - self.prob
    )
    np.testing.assert_allclose(one, other, rtol=1e-12)
    shifted = self.fn(
      self.chosen + 3, self.rejected + 3, self.variance, chosen_prob=self.prob
    )
    np.testing.assert_allclose(shifted, one, rtol=1e-9)

  def test_derivatives_on_both_sides_of_every_seam(self):
    # Seams are at a gap of 1, a square of 0.01, and at 0 itself.
    gap = np.array([0.0, 0.0, 0.0, 0.05, 0.0999, 0.1001, 0.999, 1.001, -1.001])
    variance = np.array([0.0, 4.0, 0.0099, 0.0, 0.0, 0.0, 0.2, 0.2, 0.0])
    loss = lambda m, v: expected_preference_loss(m, 0 * m, v)
    root = np.sqrt(gap**2 + variance)
    # 1/8 where the root is 0.
    safe = np.where(root > 0, root, 1.0)
    slope = np.where(root > 0, np.tanh(root / 2) / (4 * safe), 1 / 8)
    got = jax.vmap(jax.grad(loss, (0, 1)))(gap, variance)
    np.testing.assert_allclose(got[0], 2 * gap * slope - 0.5, atol=1e-9)
    np.testing.assert_allclose(got[1], slope, atol=1e-9)
    step = 1e-4
    second = jax.vmap(jax.hessian(loss, (0, 1)))(gap, variance + 0.01)
    for k in (0, 1):
      move = step * np.eye(2)[k]
      either = [
        jax.vmap(jax.grad(loss, (0, 1)))(
          gap + sign * move[0], variance + 0.01 + sign * move[1]
        )
        for sign in (1, -1)
      ]
      for j in (0, 1):
        np.testing.assert_allclose(
          second[k][j], (either[0][j] - either[1][j]) / 2 / step, atol=1e-6
        )

  def test_second_derivatives(self):
    transforms.assert_second_order(
      lambda c, r, v, p, m: expected_preference_loss(
        c, r, v, chosen_prob=p, margin=m
      ),
      self.chosen, self.rejected, self.variance, self.prob, self.margin,
    )  # fmt: skip

  @parameterized.product(gap=(-1e4, 0.0, 1e4), variance=(0.0, 1e-9, 1e4))
  def test_float32_is_finite_to_second_order(self, gap, variance):
    given = jnp.asarray(gap, jnp.float32), jnp.asarray(variance, jnp.float32)
    loss = lambda m, v: expected_preference_loss(m, 0 * m, v)
    for f in (loss, jax.grad(loss, (0, 1)), jax.hessian(loss, (0, 1))):
      for leaf in jax.tree.leaves(jax.jit(f)(*given)):
        self.assertTrue(np.isfinite(leaf))
    if variance < 1:
      np.testing.assert_allclose(loss(*given), np.logaddexp(0, -gap), atol=1e-6)

  def test_jit_vmap_and_narrow_inputs(self):
    args = self.chosen, self.rejected, self.variance
    transforms.assert_jit_and_vmap(expected_preference_loss, *args)
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in args]
    self.assertEqual(expected_preference_loss(*narrow).dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"variance \(39,\)"):
      expected_preference_loss(self.chosen, self.rejected, self.variance[1:])
    with self.assertRaisesRegex(TypeError, "variance must be floating"):
      expected_preference_loss(
        self.chosen, self.rejected, np.ones(40, np.int32)
      )
    with self.assertRaisesRegex(ValueError, "chosen_prob"):
      expected_preference_loss(
        self.chosen, self.rejected, self.variance, chosen_prob=1.5
      )


if __name__ == "__main__":
  absltest.main()
