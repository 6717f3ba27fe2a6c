"""What n pairs can show, against tests that are really carried out."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from jaxalign.metrics import (
  detectable_accuracy_difference,
  detectable_accuracy_over_chance,
  detectable_calibration_difference,
  expected_calibration_error,
  gaps_of_accuracy,
)
from tests import references


class AccuracyTest(parameterized.TestCase):
  @parameterized.parameters(200, 635, 2165)
  def test_over_chance_has_the_power_it_promises(self, num_pairs):
    delta = detectable_accuracy_over_chance(num_pairs)
    rng = np.random.default_rng(0)
    for effect, low, high in ((delta, 0.77, 0.83), (delta / 2, 0.22, 0.35)):
      right = rng.binomial(num_pairs, 0.5 + effect, 20_000)
      z = (right - num_pairs / 2) / np.sqrt(num_pairs / 4)
      power = np.mean(np.abs(z) > stats.norm.ppf(0.975))
      self.assertBetween(power, low, high)

  @parameterized.product(disagreement=(0.1, 0.4), num_pairs=(500, 5000))
  def test_difference_has_the_power_it_promises(self, disagreement, num_pairs):
    delta = detectable_accuracy_difference(num_pairs, disagreement=disagreement)
    rng = np.random.default_rng(1)
    better = (disagreement + delta) / 2
    counts = rng.multinomial(
      num_pairs, [better, disagreement - better, 1 - disagreement], 20_000
    )
    b, c = counts[:, 0], counts[:, 1]
    z = (b - c) / np.sqrt(np.maximum(b + c, 1))
    power = np.mean(np.abs(z) > stats.norm.ppf(0.975))
    self.assertBetween(power, 0.77, 0.84)

  def test_by_hand(self):
    # Power .5+ makes the second term vanish: z sqrt(d / n).
    self.assertAlmostEqual(
      detectable_accuracy_difference(
        10_000, disagreement=0.25, level=0.05, power=0.5 + 1e-12
      ),
      1.959964 * 0.5 / 100,
      places=5,
    )

  def test_four_times_the_pairs_show_half_the_difference(self):
    few, many = (
      detectable_accuracy_difference(n, disagreement=0.3) for n in (2000, 8000)
    )
    self.assertAlmostEqual(few / many, 2.0, delta=0.02)

  def test_too_few_pairs_show_nothing(self):
    self.assertTrue(np.isnan(detectable_accuracy_over_chance(3)))
    self.assertTrue(
      np.isnan(detectable_accuracy_difference(100, disagreement=0.01))
    )

  @parameterized.parameters(
    ({"num_pairs": 0}, "num_pairs must be > 0, got 0"),
    ({"level": 0.0}, r"level must be in \(0, 1\), got 0.0"),
    ({"power": 0.5}, r"power must be in \(0.5, 1\), got 0.5"),
    ({"disagreement": 0.0}, r"disagreement must be in \(0, 1\], got 0.0"),
  )
  def test_errors(self, change, message):
    arguments = {"num_pairs": 100, "disagreement": 0.3} | change
    with self.assertRaisesRegex(ValueError, message):
      detectable_accuracy_difference(arguments.pop("num_pairs"), **arguments)


class GapsTest(parameterized.TestCase):
  @parameterized.parameters(0.55, 0.7, 0.95)
  def test_they_are_right_as_often_as_asked(self, accuracy):
    gaps = gaps_of_accuracy(accuracy)
    self.assertAlmostEqual(
      float(jax.nn.sigmoid(gaps).mean()), accuracy, places=5
    )
    scale = np.asarray(gaps) / stats.halfnorm.ppf(
      (np.arange(4096) + 0.5) / 4096
    )
    np.testing.assert_allclose(scale, scale.mean(), rtol=1e-3)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"accuracy must be in \(0.5, 1\)"):
      gaps_of_accuracy(0.5)


class CalibrationTest(parameterized.TestCase):
  @parameterized.parameters((300, 10), (2000, 10), (2000, 5))
  def test_a_real_test_notices_it_as_often_as_promised(self, num_pairs, bins):
    found = float(
      detectable_calibration_difference(
        num_pairs, accuracy=0.7, key=jax.random.key(0), num_bins=bins
      )
    )
    gaps = np.asarray(gaps_of_accuracy(0.7, num_gaps=num_pairs))
    # The slope whose true error is the one found.
    claimed = references.sigmoid(gaps)
    index = np.minimum((claimed * bins).astype(int), bins - 1)

    def true_error(slope):
      offset = references.sigmoid(slope * gaps) - claimed
      # Both orders are predictions, in mirrored bins; each weighs one half.
      total = np.bincount(index, offset, bins)
      total -= np.bincount(bins - 1 - index, offset, bins)
      return np.abs(total).sum() / 2 / num_pairs

    slope = min(
      np.linspace(0, 1, 400), key=lambda s: abs(true_error(s) - found)
    )
    rng = np.random.default_rng(2)
    error = jax.jit(
      jax.vmap(lambda g: expected_calibration_error(g, num_bins=bins))
    )

    def sampled(slope):
      wins = rng.random((1000, num_pairs)) < references.sigmoid(slope * gaps)
      return np.asarray(error(jnp.float32(np.where(wins, gaps, -gaps))))

    by_chance = np.abs(sampled(1.0) - sampled(1.0))
    threshold = np.quantile(by_chance, 0.95)
    power = np.mean(sampled(slope) - sampled(1.0) > threshold)
    self.assertAlmostEqual(power, 0.8, delta=0.06)

  def test_more_pairs_show_less(self):
    few, many = (
      float(
        detectable_calibration_difference(
          n, accuracy=0.7, key=jax.random.key(1)
        )
      )
      for n in (1000, 4000)
    )
    self.assertBetween(few / many, 1.7, 2.3)

  def test_too_few_pairs_show_nothing(self):
    found = detectable_calibration_difference(
      20, accuracy=0.6, key=jax.random.key(0)
    )
    self.assertTrue(np.isnan(float(found)))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "num_bins must be >= 1"):
      detectable_calibration_difference(
        100, accuracy=0.7, key=jax.random.key(0), num_bins=0
      )


if __name__ == "__main__":
  absltest.main()
