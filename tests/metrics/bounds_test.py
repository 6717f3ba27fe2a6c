"""Bounds and exact gaps: identities, and inequalities on random instances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import (
  alignment_gap,
  alignment_gap_bound,
  distinctiveness,
  optimal_policy,
  regularised_utility,
  reward_mismatch_bound,
)
from tests import references, transforms


class AlignmentGapTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.policy, self.reference = rng.dirichlet(np.full(5, 9.0), size=(2, 3))
    self.rewards = rng.normal(size=(3, 5))

  def test_matches_reference(self):
    np.testing.assert_allclose(
      optimal_policy(self.reference, self.rewards, beta=0.4),
      references.optimal_policy(self.reference, self.rewards, 0.4),
      rtol=1e-12,
    )
    arguments = (self.policy, self.reference, self.rewards)
    np.testing.assert_allclose(
      jax.jit(functools.partial(regularised_utility, beta=0.4))(*arguments),
      references.regularised_utility(*arguments, 0.4),
      rtol=1e-12,
    )

  def test_gap_is_what_the_best_policy_would_add(self):
    best = references.optimal_policy(self.reference, self.rewards, 0.4)
    utility = functools.partial(
      references.regularised_utility,
      reference=self.reference,
      rewards=self.rewards,
      beta=0.4,
    )
    gap = functools.partial(alignment_gap, beta=0.4)
    got = gap(self.policy, self.reference, self.rewards)
    np.testing.assert_allclose(got, utility(best) - utility(self.policy))
    np.testing.assert_allclose(
      gap(best, self.reference, self.rewards), 0.0, atol=1e-14
    )
    np.testing.assert_allclose(
      gap(self.policy, self.reference, self.rewards + 7), got, rtol=1e-9
    )

  def test_zeros(self):
    policy = np.array([0.5, 0.5, 0.0])
    reference = np.array([0.0, 0.5, 0.5])
    rewards = np.array([1.0, 2.0, 3.0])
    best = optimal_policy(reference, rewards, beta=1.0)
    self.assertEqual(best[0], 0.0)
    np.testing.assert_allclose(best.sum(), 1.0)
    self.assertEqual(
      alignment_gap(policy, reference, rewards, beta=1.0), np.inf
    )
    self.assertEqual(
      regularised_utility(policy, reference, rewards, beta=1.0), -np.inf
    )
    pure = np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(
      regularised_utility(pure, reference, rewards, beta=1.0), 2 - np.log(2)
    )
    np.testing.assert_allclose(
      alignment_gap(pure, reference, rewards, beta=1.0), -np.log(best[1])
    )

  def test_large_rewards_stay_finite(self):
    rewards = np.array([[1e4, -1e4, 0.0, 1e4, 0.0]] * 3)
    transforms.assert_finite(
      functools.partial(alignment_gap, beta=1.0),
      self.policy,
      self.reference,
      rewards,
    )

  def test_derivatives_and_transforms(self):
    for fn in (alignment_gap, regularised_utility):
      bound = functools.partial(fn, beta=0.4)
      arguments = (self.policy, self.reference, self.rewards)
      transforms.assert_second_order(bound, *arguments)
      transforms.assert_jit_and_vmap(bound, *arguments)
    bound = functools.partial(optimal_policy, beta=0.4)
    transforms.assert_second_order(bound, self.reference, self.rewards)

  def test_dtypes_and_errors(self):
    half = jnp.full(4, 0.25, jnp.bfloat16)
    self.assertEqual(
      alignment_gap(half, half, half, beta=1.0).dtype, jnp.float32
    )
    for fn in (alignment_gap, regularised_utility):
      with self.assertRaisesRegex(ValueError, r"policy_probs \(2, 5\)"):
        fn(self.policy[:2], self.reference, self.rewards, beta=1.0)
      with self.assertRaisesRegex(ValueError, "beta must be positive, got 0"):
        fn(self.policy, self.reference, self.rewards, beta=0.0)
      with self.assertRaisesRegex(TypeError, "rewards must be floating"):
        fn(self.policy, self.reference, self.rewards.astype(int), beta=1.0)


class BoundsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_constants(self):
    epsilon, share = np.array(0.6), np.array(0.2)
    paper = reward_mismatch_bound(epsilon, share, feature_bound=2.0)
    self.assertAlmostEqual(float(paper), 0.6 * 0.8 / 8)
    tight = reward_mismatch_bound(
      epsilon, share, feature_bound=2.0, constant="tight"
    )
    self.assertAlmostEqual(float(tight), 2 * 0.6 * 0.8 / 2)
    gap = alignment_gap_bound(
      epsilon,
      share,
      min_eigenvalue=0.5,
      beta=0.3,
      lipschitz=1.5,
      feature_bound=2.0,
    )
    want = 0.5 * (0.6 * 0.8) ** 2 / (64 * 0.3**2 * 1.5 * 2.0**2)
    self.assertAlmostEqual(float(gap), want)

  def test_distinctiveness_by_hand(self):
    diversity = np.array([[0, 0.6, 0.1], [0.6, 0, 0.5], [0.1, 0.5, 0]])
    got = [float(distinctiveness(diversity, group=u)) for u in range(3)]
    # 0's opposite is 1 and 2 is 0.5 from it; 1's opposite is 0; 2's is 1,
    # from which 0 is farther still.
    np.testing.assert_allclose(got, [0.1, 0.5, -0.1])
    pair = np.array([[0, 0.3], [0.3, 0]])
    self.assertAlmostEqual(float(distinctiveness(pair, group=0)), 0.3)

  def test_mismatch_bounds_hold_on_random_crowds(self):
    # One feature difference with |ψ1 − ψ2| = 2D, so that any crowd is
    # Bradley-Terry; 3 groups, 500 draws.
    rng = np.random.default_rng(0)
    ratios, bound = [], 0.7
    for _ in range(500):
      phi = rng.normal(size=3) * 2
      shares = rng.dirichlet(np.ones(3))
      p = references.sigmoid(2 * bound * phi)
      crowd = np.log(shares @ p / (1 - shares @ p)) / (2 * bound)
      diversity = np.abs(p[:, None] - p[None])
      u, j = np.unravel_index(diversity.argmax(), (3, 3))
      for group in (u, j):
        opposite = diversity[group].argmax()
        others = np.delete(diversity[:, opposite], group)
        epsilon = diversity[group, opposite] - others.max()
        got = abs(crowd - phi[group])
        ratios.append(got * bound / (epsilon * (1 - shares[group])))
    ratios = np.array(ratios)
    self.assertGreater(ratios.min(), 2.0)  # the tight constant, so also 1/4
    self.assertLess(ratios.min(), 4.0)  # and it is not far from the truth

  def test_gap_is_quadratic_in_the_mismatch(self):
    # Which is why the bound is squared: a tenth of the mismatch costs a
    # hundredth.
    reference = np.full(4, 0.25)
    direction = np.array([1.0, -0.3, 0.2, 0.5])
    gaps = []
    for scale in (1e-2, 1e-3):
      policy = references.optimal_policy(reference, 0 * direction, 1.0)
      gaps.append(alignment_gap(policy, reference, scale * direction, beta=1.0))
    np.testing.assert_allclose(gaps[0] / gaps[1], 100, rtol=0.01)

  def two_answers(self, rng, size):
    """Two groups and answers with ψ = ±1: the bound, the gap and c of it."""
    phi, beta = size * rng.normal(size=2), rng.uniform(0.2, 1.0)
    share = rng.uniform(0.05, 0.95)
    return phi, beta, share, *self.gap_of(phi, beta, share)

  def gap_of(self, phi, beta, share):
    p = references.sigmoid(2 * phi)
    crowd = np.array([1 - share, share]) @ p
    pooled = np.log(crowd / (1 - crowd)) / 2
    features = np.array([1.0, -1.0])
    policy = lambda value: references.optimal_policy(
      np.full(2, 0.5), value * features, beta
    )
    gap = alignment_gap(
      policy(pooled), np.full(2, 0.5), phi[1] * features, beta=beta
    )
    spread = min(4 * np.prod(policy(v)) for v in (pooled, phi[1]))
    bound = functools.partial(
      alignment_gap_bound,
      np.abs(p[0] - p[1]),
      np.array(share),
      beta=beta,
      lipschitz=2 / beta,
      feature_bound=1.0,
    )
    return float(gap), spread, bound

  def test_gap_bound_holds_where_policies_spread_enough(self):
    rng = np.random.default_rng(0)
    for _ in range(300):
      _, beta, _, gap, spread, bound = self.two_answers(rng, 1.0)
      least = 2 * beta * (2 / beta) * spread
      self.assertLessEqual(float(bound(min_eigenvalue=least)), gap * (1 + 1e-9))

  def test_gap_bound_fails_where_policies_are_nearly_certain(self):
    gap, spread, bound = self.gap_of(np.array([0.3, 3.0]), 0.05, 0.5)
    self.assertAlmostEqual(float(bound(min_eigenvalue=1.0)), 0.00484, places=5)
    self.assertLess(gap, 1e-12)
    self.assertGreater(gap, 1e-13)
    self.assertLess(4 * (2 / 0.05) * 0.05 * spread, 1e-9)

  def test_rarer_groups_and_more_distinct_ones_lose_more(self):
    bound = functools.partial(
      alignment_gap_bound,
      min_eigenvalue=1.0,
      beta=0.1,
      lipschitz=1.0,
      feature_bound=1.0,
    )
    by_share = bound(np.full(3, 0.5), np.array([0.1, 0.3, 0.5]))
    self.assertTrue(np.all(np.diff(by_share) < 0))
    by_epsilon = bound(np.array([0.1, 0.3, 0.5]), np.full(3, 0.2))
    self.assertTrue(np.all(np.diff(by_epsilon) > 0))

  def test_errors(self):
    epsilon, share = np.array(0.6), np.array(0.2)
    knobs = dict(min_eigenvalue=1.0, beta=1.0, lipschitz=1.0, feature_bound=1.0)
    for name, value in (
      ("min_eigenvalue", -1.0),
      ("beta", 0.0),
      ("lipschitz", 0.0),
      ("feature_bound", 0.0),
    ):
      with self.assertRaisesRegex(ValueError, f"{name} must"):
        alignment_gap_bound(epsilon, share, **(knobs | {name: value}))
    with self.assertRaisesRegex(ValueError, "constant must be one of paper"):
      reward_mismatch_bound(epsilon, share, feature_bound=1.0, constant="x")
    with self.assertRaisesRegex(ValueError, r"distinctiveness \(\), share"):
      reward_mismatch_bound(epsilon, np.ones(2), feature_bound=1.0)
    with self.assertRaisesRegex(ValueError, r"diversity must be \[K, K\]"):
      distinctiveness(np.ones((2, 3)), group=0)
    with self.assertRaisesRegex(ValueError, r"group must be in \[0, 2\)"):
      distinctiveness(np.ones((2, 2)), group=2)
    with self.assertRaisesRegex(TypeError, "diversity must be floating"):
      distinctiveness(np.ones((2, 2), int), group=0)


if __name__ == "__main__":
  absltest.main()
