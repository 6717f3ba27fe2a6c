"""Preference metrics by hand and against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import (
  bootstrap_interval,
  brier_score,
  negative_log_likelihood,
  preference_accuracy,
  worst_group,
)

CHOSEN = np.array([1.2, 0.3, -0.5, 2.0], np.float32)
REJECTED = np.array([0.2, 0.9, -1.5, 2.0], np.float32)


class PreferenceAccuracyTest(parameterized.TestCase):
  @parameterized.parameters(
    ("half", 2.5, 4.0), ("exclude", 2.0, 3.0), ("wrong", 2.0, 4.0)
  )
  def test_published_case(self, ties, total, count):
    got = preference_accuracy(CHOSEN, REJECTED, ties=ties)
    self.assertEqual(got, (total, count))

  def test_published_tie_excluded(self):
    logits = np.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], np.float32)
    label = np.array([0, 1, 1])
    rows = np.arange(3)
    total, count = preference_accuracy(
      logits[rows, label], logits[rows, 1 - label], ties="exclude"
    )
    self.assertEqual((total / count, count), (0.5, 2.0))

  @parameterized.parameters("half", "exclude", "wrong")
  def test_garbage_under_the_mask_changes_nothing(self, ties):
    where = np.array([True, True, False, True])
    expected = preference_accuracy(CHOSEN[where], REJECTED[where], ties=ties)
    for garbage in (np.nan, np.inf):
      dirty = np.where(where, CHOSEN, np.float32(garbage))
      got = preference_accuracy(dirty, REJECTED, where=where, ties=ties)
      self.assertEqual(got, expected)

  @parameterized.parameters("half", "exclude", "wrong")
  def test_a_counted_nan_is_seen(self, ties):
    total, _ = preference_accuracy(
      CHOSEN * np.array([1, np.nan, 1, 1], np.float32), REJECTED, ties=ties
    )
    self.assertTrue(np.isnan(total))

  def test_nothing_counted(self):
    none = np.zeros(4, bool)
    self.assertEqual(
      preference_accuracy(CHOSEN, REJECTED, where=none), (0.0, 0.0)
    )

  def test_totals_add_over_batches(self):
    whole = preference_accuracy(CHOSEN, REJECTED)
    parts = [
      preference_accuracy(CHOSEN[i], REJECTED[i])
      for i in (slice(0, 1), slice(1, 4))
    ]
    self.assertEqual(whole, tuple(a + b for a, b in zip(*parts, strict=True)))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "ties must be one of"):
      preference_accuracy(CHOSEN, REJECTED, ties="ignore")
    with self.assertRaisesRegex(ValueError, r"rejected \(4, 1\)"):
      preference_accuracy(CHOSEN, REJECTED[:, None])
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      preference_accuracy(CHOSEN, REJECTED, where=np.ones(4, np.int32))


class ProperScoreTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.gaps = np.random.default_rng(0).normal(size=(5, 4))
    self.where = np.random.default_rng(1).random((5, 4)) < 0.7

  @parameterized.parameters(
    (brier_score, lambda p: (1 - p) ** 2),
    (negative_log_likelihood, lambda p: -np.log(p)),
  )
  def test_matches_numpy(self, fn, of_prob):
    prob = 1 / (1 + np.exp(-self.gaps[self.where]))
    total, count = fn(self.gaps, where=self.where)
    np.testing.assert_allclose(total, of_prob(prob).sum(), rtol=1e-12)
    self.assertEqual(count, float(self.where.sum()))
    dirty = np.where(self.where, self.gaps, np.nan)
    self.assertEqual(fn(dirty, where=self.where), (total, count))

  def test_coin_flips_and_extremes(self):
    even = np.zeros(3)
    self.assertEqual(brier_score(even)[0], 0.75)
    np.testing.assert_allclose(
      negative_log_likelihood(even)[0], 3 * np.log(2), rtol=1e-12
    )
    np.testing.assert_allclose(
      negative_log_likelihood(np.array([-1e4, 1e4])), (1e4, 2.0), rtol=1e-12
    )
    self.assertEqual(brier_score(np.array([-1e4, 1e4])), (1.0, 2.0))

  def test_errors(self):
    for fn in (brier_score, negative_log_likelihood):
      with self.assertRaisesRegex(TypeError, "gaps must be floating"):
        fn(np.ones(3, np.int32))
      with self.assertRaisesRegex(ValueError, r"where \(4,\)"):
        fn(self.gaps, where=self.where[0])


class WorstGroupTest(parameterized.TestCase):
  @parameterized.parameters(
    ([0.7, 0.4, 0.9], None, 1, 0.4),
    ([0.4, 0.4], None, 0, 0.4),
    ([0.1, 0.4, 0.9], [False, True, True], 1, 0.4),
    ([np.nan, 0.4], [False, True], 1, 0.4),
    ([0.1, np.inf], [False, True], 1, np.inf),
    ([0.3], None, 0, 0.3),
  )
  def test_by_hand(self, values, where, index, value):
    where = None if where is None else np.array(where)
    got = worst_group(np.array(values, np.float32), where=where)
    self.assertEqual(got.index, index)
    self.assertEqual(got.value, np.float32(value))

  def test_no_group_and_a_nan_group(self):
    values = np.array([0.1, np.nan], np.float32)
    got = worst_group(values, where=np.zeros(2, bool))
    self.assertEqual(got.index, -1)
    self.assertTrue(np.isnan(got.value))
    self.assertEqual(worst_group(values).index, 1)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"values must have 1 axes"):
      worst_group(np.ones((2, 2), np.float32))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      worst_group(np.ones(2, np.float32), where=np.ones(2))


class BootstrapIntervalTest(parameterized.TestCase):
  def test_width_is_that_of_the_normal_interval(self):
    x = np.random.default_rng(0).normal(size=400).astype(np.float32)
    low, high = bootstrap_interval(jnp.mean, x, key=jax.random.key(0))
    error = x.std() / np.sqrt(400)
    np.testing.assert_allclose(low, x.mean() - 1.96 * error, atol=0.2 * error)
    np.testing.assert_allclose(high, x.mean() + 1.96 * error, atol=0.2 * error)

  def test_rows_of_all_arrays_stay_together(self):
    x = np.arange(20, dtype=np.float32)
    got = bootstrap_interval(
      lambda a, b: jnp.max(jnp.abs(b[:, 0] - 2 * a)),
      x,
      2 * x[:, None],
      key=jax.random.key(0),
      num_samples=20,
    )
    self.assertEqual(got, (0.0, 0.0))

  def test_level_nests_and_statistics_may_be_arrays(self):
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    mean = lambda x: jnp.mean(x, axis=0)
    key = lambda: jax.random.key(3)
    wide = bootstrap_interval(mean, x, key=key(), level=0.99, num_samples=100)
    thin = bootstrap_interval(mean, x, key=key(), level=0.5, num_samples=100)
    self.assertEqual(wide.low.shape, (2,))
    self.assertTrue(np.all(wide.low < thin.low))
    self.assertTrue(np.all(thin.high < wide.high))

  def test_errors(self):
    x, key = np.ones(3, np.float32), jax.random.key(0)
    with self.assertRaisesRegex(ValueError, "at least one array"):
      bootstrap_interval(jnp.mean, key=key)
    with self.assertRaisesRegex(ValueError, r"\(3,\), \(2,\)"):
      bootstrap_interval(jnp.mean, x, x[:2], key=key)
    with self.assertRaisesRegex(ValueError, "level"):
      bootstrap_interval(jnp.mean, x, key=key, level=1.0)
    with self.assertRaisesRegex(ValueError, "num_samples"):
      bootstrap_interval(jnp.mean, x, key=key, num_samples=1)


if __name__ == "__main__":
  absltest.main()
