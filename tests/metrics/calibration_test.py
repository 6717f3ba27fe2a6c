"""Calibration errors against NumPy, and the floor against known truth."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import (
  adaptive_calibration_error,
  calibration_noise_floor,
  calibration_terms,
  expected_calibration_error,
  maximum_calibration_error,
  reliability_curve,
)
from tests import references

ERRORS = tuple(
  jax.jit(fn, static_argnames="num_bins")
  for fn in (
    adaptive_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
  )
)


def calibrated(n, seed=0, scale=1.2):
  """Gaps whose sign is drawn with exactly the probability they claim."""
  rng = np.random.default_rng(seed)
  size = np.abs(rng.normal(scale=scale, size=n))
  wins = rng.random(n) < references.sigmoid(size)
  return np.where(wins, size, -size)


class CalibrationTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.gaps = calibrated(600)

  @parameterized.product(fn=ERRORS, num_bins=(10, 7, 1))
  def test_matches_reference(self, fn, num_bins):
    np.testing.assert_allclose(
      fn(self.gaps, num_bins=num_bins),
      getattr(references, fn.__name__)(self.gaps, num_bins),
      atol=1e-12,
    )

  def test_equals_the_one_sided_form_of_the_favoured_response(self):
    confidence = references.sigmoid(np.abs(self.gaps))
    correct = self.gaps > 0
    index = (confidence * 10).astype(int)
    expected = sum(
      np.mean(index == b)
      * abs(correct[index == b].mean() - confidence[index == b].mean())
      for b in np.unique(index)
    )
    got = expected_calibration_error(self.gaps)
    np.testing.assert_allclose(got, expected, rtol=1e-12)

  def test_by_hand(self):
    # Eight of ten right at confidence 0.6: off by 0.2 on either side.
    gaps = np.log(1.5) * np.array([1.0] * 8 + [-1.0] * 2)
    for fn in ERRORS[1:]:
      np.testing.assert_allclose(fn(gaps), 0.2, rtol=1e-9)
    curve = reliability_curve(gaps, num_bins=4)
    np.testing.assert_allclose(curve.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.confidence, [0, 0.4, 0.6, 0], rtol=1e-9)
    np.testing.assert_allclose(curve.accuracy, [0, 0.2, 0.8, 0], rtol=1e-9)
    np.testing.assert_array_equal(curve.counts, [0, 10, 10, 0])

  @parameterized.parameters(*ERRORS)
  def test_swapping_no_pair_and_permuting_changes_nothing(self, fn):
    order = np.random.default_rng(1).permutation(600)
    np.testing.assert_allclose(fn(self.gaps[order]), fn(self.gaps), rtol=1e-12)

  @parameterized.parameters(*ERRORS)
  def test_ties_are_calibrated(self, fn):
    np.testing.assert_allclose(fn(np.zeros(12)), 0.0, atol=1e-12)

  @parameterized.parameters(*ERRORS)
  def test_certain_and_wrong_is_one(self, fn):
    np.testing.assert_allclose(fn(np.full(20, -1e4)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(fn(np.full(20, 1e4)), 0.0, atol=1e-12)

  @parameterized.parameters(*ERRORS)
  def test_masked_rows_drop_out(self, fn):
    where = np.random.default_rng(2).random(600) < 0.5
    expected = fn(self.gaps[where])
    for garbage in (np.nan, np.inf, -3.0):
      dirty = np.where(where, self.gaps, garbage)
      np.testing.assert_allclose(fn(dirty, where=where), expected, atol=1e-12)
    self.assertEqual(fn(self.gaps, where=np.zeros(600, bool)), 0.0)

  @parameterized.parameters(*ERRORS)
  def test_leading_axes_are_flattened_and_a_nan_is_seen(self, fn):
    np.testing.assert_allclose(
      fn(self.gaps.reshape(20, 30)), fn(self.gaps), rtol=1e-12
    )
    self.assertTrue(np.isnan(fn(np.append(self.gaps, np.nan))))

  def test_fewer_predictions_than_bins(self):
    gaps = np.array([2.0])
    np.testing.assert_allclose(
      adaptive_calibration_error(gaps),
      1 - references.sigmoid(2.0),
      rtol=1e-12,
    )

  def test_errors(self):
    for fn in (*ERRORS, reliability_curve):
      with self.assertRaisesRegex(ValueError, "num_bins"):
        fn(self.gaps, num_bins=0)
      with self.assertRaisesRegex(TypeError, "gaps must be floating"):
        fn(np.ones(3, np.int32))
      with self.assertRaisesRegex(ValueError, r"where \(3,\)"):
        fn(self.gaps, where=np.ones(3, bool))
    with self.assertRaisesRegex(ValueError, "num_samples"):
      calibration_noise_floor(self.gaps, key=jax.random.key(0), num_samples=0)


class CalibrationTermsTest(parameterized.TestCase):
  @parameterized.parameters(1, 7, 10)
  def test_sums_give_the_error_of_any_repetition_of_pairs(self, num_bins):
    with jax.enable_x64(True):
      gaps = np.append(calibrated(200), [0.0, 40.0, -40.0])
      rows = np.random.default_rng(1).integers(0, len(gaps), 300)
      terms = calibration_terms(gaps, num_bins=num_bins)
      self.assertEqual(terms.shape, (len(gaps), num_bins))
      times = np.bincount(rows, minlength=len(gaps))
      error = np.abs(times @ np.asarray(terms)).sum() / len(rows)
      expected = expected_calibration_error(gaps[rows], num_bins=num_bins)
      np.testing.assert_allclose(error, expected, atol=1e-12)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "gaps must have 1 axes"):
      calibration_terms(np.ones((2, 2), np.float32))
    with self.assertRaisesRegex(ValueError, "num_bins"):
      calibration_terms(np.ones(2, np.float32), num_bins=0)


class NoiseFloorTest(parameterized.TestCase):
  @parameterized.parameters(
    (2352, 0.0145, 0.005, 0.028), (656, 0.027, 0.009, 0.052)
  )
  def test_recovers_the_published_floor(self, n, mean, low, high):
    # Gaps of a model that is right on 70 % of pairs, which are all calibrated.
    gaps = calibrated(n, scale=1.1).astype(np.float32)
    floor = calibration_noise_floor(
      gaps, key=jax.random.key(0), num_samples=200
    )
    np.testing.assert_allclose(floor.mean, mean, atol=0.003)
    self.assertBetween(float(floor.low), low, mean)
    self.assertBetween(float(floor.high), mean, high)

  def test_a_calibrated_model_is_inside_and_an_over_sure_one_outside(self):
    gaps = calibrated(2000, seed=3).astype(np.float32)
    floor = calibration_noise_floor(
      gaps, key=jax.random.key(1), num_samples=200
    )
    self.assertLess(expected_calibration_error(gaps), floor.high)
    sure = 2 * gaps
    floor = calibration_noise_floor(
      sure, key=jax.random.key(1), num_samples=200
    )
    self.assertGreater(expected_calibration_error(sure), 2 * floor.high)

  def test_signs_and_masked_rows_play_no_part(self):
    gaps = calibrated(100).astype(np.float32)
    where = np.arange(100) < 60
    draw = lambda g: calibration_noise_floor(
      jnp.asarray(g), key=jax.random.key(2), num_samples=20, where=where
    )
    expected = draw(gaps)
    self.assertEqual(draw(np.abs(gaps)), expected)
    self.assertEqual(draw(np.where(where, gaps, np.nan)), expected)


if __name__ == "__main__":
  absltest.main()
