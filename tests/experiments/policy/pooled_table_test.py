"""Pooled reward models on tables: the fit, the bounds and the exact gaps."""

import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.experiments.policy import pooled_table
from tests import references

CONFIG = pooled_table.PooledConfig()


class PooledTableTest(parameterized.TestCase):
  def test_fit_is_the_least_cross_entropy(self):
    rng = np.random.default_rng(0)
    gaps, probs = rng.normal(size=(20, 3)), rng.uniform(0.02, 0.98, 20)
    loss = lambda taste: (
      -np.sum(
        probs * np.log(references.sigmoid(gaps @ taste))
        + (1 - probs) * np.log(references.sigmoid(-gaps @ taste))
      )
    )
    best = scipy.optimize.minimize(loss, np.zeros(3), tol=1e-12)
    np.testing.assert_allclose(pooled_table.fit(gaps, probs), best.x, atol=1e-5)
    taste = np.array([3.0, -1.0, 0.5])
    np.testing.assert_allclose(
      pooled_table.fit(gaps, references.sigmoid(gaps @ taste)), taste, 1e-9
    )

  def test_tastes_have_their_angle_and_features_their_length(self):
    for angle in (1.0, 90.0, 180.0):
      first, second = pooled_table.tastes_of(CONFIG, angle)
      cosine = first @ second / CONFIG.taste**2
      self.assertAlmostEqual(cosine, np.cos(np.radians(angle)))
    lengths = np.linalg.norm(pooled_table.features_of(CONFIG), axis=1)
    self.assertAlmostEqual(lengths.max(), 1.0)

  def test_numbers_of_a_crowd_by_numpy(self):
    config = pooled_table.PooledConfig(num_answers=5, beta=0.5)
    found = pooled_table.row(config, 90.0, 0.2)
    features = pooled_table.features_of(config)
    tastes = pooled_table.tastes_of(config, 90.0)
    pairs = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    gaps = np.array([features[a] - features[b] for a, b in pairs])
    said = [references.sigmoid(gaps @ taste) for taste in tastes]
    self.assertAlmostEqual(
      found["diversity"], np.mean(np.abs(said[0] - said[1])), places=6
    )
    pooled = pooled_table.fit(gaps, 0.8 * said[0] + 0.2 * said[1])
    self.assertAlmostEqual(
      found["mismatch"], np.linalg.norm(pooled - tastes[1]), places=6
    )
    self.assertAlmostEqual(
      found["mismatch_bound"], 0.25 * found["diversity"] * 0.8, places=6
    )
    uniform = np.full(5, 0.2)
    rewards = features @ tastes[1]
    best, policy = (
      references.optimal_policy(uniform, r, 0.5)
      for r in (rewards, features @ pooled)
    )
    gain = lambda p: references.regularised_utility(p, uniform, rewards, 0.5)
    self.assertAlmostEqual(found["gap"], gain(best) - gain(policy), places=5)
    of_first = references.regularised_utility(
      policy, uniform, features @ tastes[0], 0.5
    )
    self.assertAlmostEqual(found["worst"], min(gain(policy), of_first), 5)
    self.assertLess(found["not_bradley_terry"], found["diversity"])

  def test_bounds_hold_and_the_gap_falls_with_the_share(self):
    rows = pooled_table.run(CONFIG)
    self.assertLen(rows, 15)
    for one in rows:
      self.assertLess(one["mismatch_bound"], one["mismatch_bound_tight"])
      self.assertLess(one["mismatch_bound_tight"], one["mismatch"])
      self.assertLess(one["gap_bound"], one["gap"])
      self.assertGreaterEqual(one["worst_maxmin"], one["worst"] - 1e-5)
    by_angle = np.array([one["gap"] for one in rows]).reshape(3, 5)
    # Shares fall along a row, tastes part down a column. Of equal shares of
    # opposite tastes nothing is learned, which costs less than a compromise.
    self.assertTrue((np.diff(by_angle, axis=1) > 0).all())
    self.assertTrue((np.diff(by_angle[:, 1:], axis=0) > 0).all())
    self.assertLess(by_angle[2, 0], by_angle[1, 0])

  @parameterized.parameters(
    (dict(shares=(0.0,)), r"shares must be in \(0, 1\)"),
    (dict(angles=(200.0,)), r"angles must be in \(0, 180\]"),
    (dict(num_answers=3), "num_answers must be above num_features"),
    (dict(beta=0.0), "beta must be > 0"),
  )
  def test_bad_values_are_named(self, given, message):
    with self.assertRaisesRegex(ValueError, message):
      pooled_table.PooledConfig(**given)


if __name__ == "__main__":
  absltest.main()
