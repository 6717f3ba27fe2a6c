"""The permutation test: exact under its null, and it sees what is there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import permutation_test, shared_taste_scores
from tests import references

WIDTH = 3


def votes(rng, tastes, num, *, taste_of):
  """Feature gaps [num, D] and who won, by people of `tastes` [K, D]."""
  features = rng.normal(size=(num, WIDTH))
  probs = references.sigmoid((features * tastes[taste_of]).sum(axis=1))
  return features, (rng.random(num) < probs).astype(float)


@functools.partial(jax.jit, static_argnames="num_units")
def run_once(features, won, unit, key, block, num_units):
  return permutation_test(
    shared_taste_scores(features, won),
    unit=unit,
    num_units=num_units,
    key=key,
    block=block,
    num_samples=99,
  ).p_value


def p_value(rng, tastes, taste_of, unit, block=None):
  """The p-value of one simulated data set."""
  features, won = votes(rng, tastes, len(unit), taste_of=taste_of)
  key = jax.random.key(int(rng.integers(2**31)))
  return float(
    run_once(
      jnp.float32(features),
      jnp.float32(won),
      jnp.asarray(unit),
      key,
      None if block is None else jnp.asarray(block),
      int(unit.max()) + 1,
    )
  )


class ScoresTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.features, self.won = votes(
      rng, np.array([[1.0, -1, 0]]), 200, taste_of=np.zeros(200, int)
    )

  def test_the_shared_taste_is_the_minimum(self):
    scores = shared_taste_scores(self.features, self.won, ridge=1e-6)
    # At the minimum the scores, a gradient, cancel.
    np.testing.assert_allclose(scores.sum(axis=0), 0.0, atol=1e-5)
    # And a logistic regression by plain gradient descent agrees.
    taste = np.zeros(WIDTH)
    for _ in range(5000):
      residual = self.won - references.sigmoid(self.features @ taste)
      taste += 0.01 * self.features.T @ residual
    expected = residual[:, None] * self.features
    np.testing.assert_allclose(scores, expected, atol=1e-6)

  def test_swapping_responses_changes_nothing(self):
    swap = np.where(np.arange(200) % 3 == 0, -1.0, 1.0)
    swapped = shared_taste_scores(
      self.features * swap[:, None], np.where(swap < 0, 1 - self.won, self.won)
    )
    np.testing.assert_allclose(
      swapped, shared_taste_scores(self.features, self.won), atol=1e-12
    )

  def test_separable_votes_stay_finite(self):
    won = (self.features[:, 0] > 0).astype(float)
    scores = shared_taste_scores(1e3 * self.features, won)
    self.assertTrue(np.isfinite(scores).all())

  def test_a_tie_of_equals_scores_nothing(self):
    features = np.zeros((4, WIDTH))
    np.testing.assert_array_equal(
      shared_taste_scores(features, np.full(4, 0.5)), 0.0
    )

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "features must have 2 axes"):
      shared_taste_scores(self.won, self.won)
    with self.assertRaisesRegex(ValueError, "shapes must be equal"):
      shared_taste_scores(self.features, self.won[1:])
    with self.assertRaisesRegex(ValueError, "ridge must be > 0, got 0"):
      shared_taste_scores(self.features, self.won, ridge=0.0)


class PermutationTest(parameterized.TestCase):
  def test_share_by_hand(self):
    scores = jnp.float32([[0.0], [2.0], [4.0], [6.0]])
    unit = jnp.array([0, 0, 2, 2])  # nobody is unit 1
    found = permutation_test(
      scores, unit=unit, num_units=3, key=jax.random.key(0), num_samples=2000
    )
    # Means 1 and 5 about 3: 16 of 20. Of the 6 ways to deal, 2 reach 16, the
    # others give 4 (two) and 0 (two).
    self.assertAlmostEqual(float(found.share), 0.8, places=6)
    self.assertAlmostEqual(float(found.expected), 1 / 3, delta=0.03)
    self.assertAlmostEqual(float(found.p_value), 1 / 3, delta=0.04)

  def test_rows_stay_in_their_blocks(self):
    scores = jnp.float32([[0.0], [0.0], [9.0], [9.0]])
    options = dict(unit=jnp.array([0, 0, 1, 1]), num_units=2, num_samples=200)
    free = permutation_test(scores, key=jax.random.key(0), **options)
    held = permutation_test(
      scores, key=jax.random.key(0), block=jnp.array([7, 7, 3, 3]), **options
    )
    self.assertLess(float(free.p_value), 0.6)
    self.assertEqual(float(held.p_value), 1.0)

  def test_order_of_rows_does_not_matter(self):
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(60, 2)).astype(np.float32)
    unit = rng.integers(0, 6, 60)
    order = rng.permutation(60)
    first, second = (
      permutation_test(
        jnp.asarray(scores[rows]),
        unit=jnp.asarray(unit[rows]),
        num_units=6,
        key=jax.random.key(1),
        num_samples=4000,
      )
      for rows in (np.arange(60), order)
    )
    self.assertAlmostEqual(float(first.share), float(second.share), places=5)
    self.assertAlmostEqual(
      float(first.p_value), float(second.p_value), delta=0.03
    )

  def test_without_variation_there_is_nothing_to_find(self):
    found = permutation_test(
      jnp.ones((5, 2)),
      unit=jnp.array([0, 0, 1, 1, 1]),
      num_units=2,
      key=jax.random.key(0),
      num_samples=9,
    )
    self.assertEqual(float(found.p_value), 1.0)
    self.assertEqual(float(found.share), 0.0)

  @parameterized.parameters(False, True)
  def test_p_values_are_uniform_under_one_shared_taste(self, blocked):
    rng = np.random.default_rng(4)
    tastes = np.array([[1.0, -0.5, 0.2]])
    unit = np.repeat(np.arange(20), 6)
    block = np.tile(np.arange(6), 20) if blocked else None
    found = np.array(
      [
        p_value(rng, tastes, np.zeros(120, int), unit, block)
        for _ in range(400)
      ]
    )
    # 400 draws of a share q have standard error sqrt(q (1 - q) / 400).
    for q in (0.05, 0.2, 0.5, 0.8):
      error = 3.5 * np.sqrt(q * (1 - q) / 400)
      self.assertAlmostEqual((found <= q).mean(), q, delta=error)

  def test_opposite_tastes_are_seen(self):
    rng = np.random.default_rng(5)
    tastes = np.array([[1.5, 0, 0], [-1.5, 0, 0]])
    unit = np.repeat(np.arange(40), 10)
    taste_of = (unit % 5 == 0).astype(int)  # one in five differs
    found = [p_value(rng, tastes, taste_of, unit) for _ in range(20)]
    self.assertGreaterEqual(np.mean(np.array(found) <= 0.05), 0.9)

  def test_a_declared_group_needs_fewer_votes_than_its_members(self):
    rng = np.random.default_rng(6)
    tastes = np.array([[0.8, 0, 0], [-0.8, 0, 0]])
    person = np.repeat(np.arange(50), 3)
    group = (person % 2).astype(int)
    by_group = [p_value(rng, tastes, group, group) for _ in range(20)]
    rng = np.random.default_rng(6)
    by_person = [p_value(rng, tastes, group, person) for _ in range(20)]
    self.assertLess(np.mean(by_group), np.mean(by_person))
    self.assertGreaterEqual(np.mean(np.array(by_group) <= 0.05), 0.8)

  def test_errors(self):
    scores, unit = jnp.ones((3, 2)), jnp.array([0, 1, 1])
    key = jax.random.key(0)
    with self.assertRaisesRegex(TypeError, "unit must be integer"):
      permutation_test(scores, unit=jnp.ones(3), num_units=2, key=key)
    with self.assertRaisesRegex(ValueError, "shapes must be equal"):
      permutation_test(scores, unit=unit[1:], num_units=2, key=key)
    with self.assertRaisesRegex(ValueError, "num_units and num_samples"):
      permutation_test(scores, unit=unit, num_units=0, key=key)


if __name__ == "__main__":
  absltest.main()
