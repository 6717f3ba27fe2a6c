"""The exact max-min policy against scipy, optimality and descent on weights."""

import jax
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.losses import exponentiated_weights, maxmin_weights
from jaxalign.metrics import maxmin_policy
from tests import references


def problem(groups, prompts, responses, seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  reference = rng.dirichlet(np.ones(responses), size=prompts)
  rewards = rng.normal(size=(groups, prompts, responses)) * scale
  return reference, rewards, rng.dirichlet(np.ones(prompts))


def utilities(policy, reference, rewards, beta, prompt_probs):
  return np.array(
    [
      prompt_probs @ references.regularised_utility(policy, reference, r, beta)
      for r in rewards
    ]
  )


class MaxMinPolicyTest(parameterized.TestCase):
  @parameterized.parameters(
    (2, 1, 4, 1.0),
    (3, 4, 6, 0.5),
    (5, 2, 8, 0.02),
    (4, 2, 3, 5.0),
    (1, 2, 3, 0.5),
  )
  def test_certified_and_consistent(self, groups, prompts, responses, beta):
    reference, rewards, weights = problem(groups, prompts, responses)
    got = maxmin_policy(reference, rewards, beta=beta, prompt_probs=weights)
    np.testing.assert_allclose(got.policy.sum(axis=-1), 1.0)
    np.testing.assert_allclose(got.weights.sum(), 1.0)
    self.assertLess(abs(got.gap), 1e-9)
    want = utilities(got.policy, reference, rewards, beta, weights)
    np.testing.assert_allclose(got.utilities, want, atol=1e-10)
    np.testing.assert_allclose(got.value, want.min(), atol=1e-9)
    mixed = np.tensordot(got.weights, rewards, axes=1)
    np.testing.assert_allclose(
      got.policy, references.optimal_policy(reference, mixed, beta), atol=1e-12
    )

  def test_scipy_finds_the_same_dual(self):
    reference, rewards, weights = problem(3, 4, 6)

    def dual(w):
      mixed = np.tensordot(w, rewards, axes=1)
      total = np.sum(reference * np.exp(mixed / 0.5), axis=1)
      return 0.5 * weights @ np.log(total)

    found = scipy.optimize.minimize(
      dual,
      np.full(3, 1 / 3),
      bounds=[(0, 1)] * 3,
      constraints=dict(type="eq", fun=lambda w: w.sum() - 1),
      options=dict(ftol=1e-14),
    )
    got = maxmin_policy(reference, rewards, beta=0.5, prompt_probs=weights)
    np.testing.assert_allclose(got.value, found.fun, atol=1e-9)
    np.testing.assert_allclose(got.weights, found.x, atol=1e-4)

  def test_no_other_policy_serves_the_worst_group_better(self):
    reference, rewards, weights = problem(3, 2, 4)
    got = maxmin_policy(reference, rewards, beta=0.5, prompt_probs=weights)
    rng = np.random.default_rng(1)
    for step in (1.0, 0.1, 1e-3):
      for _ in range(100):
        other = got.policy * np.exp(step * rng.normal(size=got.policy.shape))
        other /= other.sum(axis=-1, keepdims=True)
        worst = utilities(other, reference, rewards, 0.5, weights).min()
        self.assertLess(worst, got.value + 1e-9)

  def test_two_opposite_groups_share(self):
    reward = np.array([1.0, 0.0])
    got = maxmin_policy(
      np.full(2, 0.5), np.stack([reward, reward[::-1]]), beta=0.1
    )
    np.testing.assert_allclose(got.weights, 0.5, atol=1e-9)
    np.testing.assert_allclose(got.policy, 0.5, atol=1e-9)
    self.assertAlmostEqual(got.value, 0.5, places=12)

  def test_a_group_that_is_content_gets_no_weight(self):
    poor = np.array([1.0, 0.0])
    got = maxmin_policy(np.full(2, 0.5), np.stack([poor, poor + 5]), beta=0.1)
    np.testing.assert_allclose(got.weights, [1, 0], atol=1e-9)

  def test_equal_groups_and_constant_rewards(self):
    reference, rewards, _ = problem(1, 2, 4)
    same = maxmin_policy(reference, np.repeat(rewards, 3, axis=0), beta=0.3)
    one = maxmin_policy(reference, rewards, beta=0.3)
    np.testing.assert_allclose(same.policy, one.policy, atol=1e-12)
    flat = maxmin_policy(reference, np.zeros((2, 2, 4)), beta=0.3)
    np.testing.assert_allclose(flat.policy, reference)
    self.assertAlmostEqual(flat.value, 0.0)

  def test_group_names_and_common_shift(self):
    reference, rewards, _ = problem(3, 2, 4)
    got = maxmin_policy(reference, rewards, beta=0.3)
    order = [2, 0, 1]
    renamed = maxmin_policy(reference, rewards[order] + 3, beta=0.3)
    np.testing.assert_allclose(renamed.policy, got.policy, atol=1e-8)
    np.testing.assert_allclose(renamed.weights, got.weights[order], atol=1e-7)
    self.assertAlmostEqual(renamed.value, got.value + 3, places=9)

  @parameterized.parameters("exponentiated", "worst")
  def test_weights_descended_against_best_answers_reach_the_value(self, rule):
    # What a trainer does, with the exact answer to the weights at each step.
    reference, rewards, weights = problem(3, 2, 4)
    exact = maxmin_policy(reference, rewards, beta=0.5, prompt_probs=weights)
    mix, average = np.full(3, 1 / 3), np.zeros(3)
    with jax.enable_x64(True):
      update = jax.jit(lambda w, u: exponentiated_weights(w, u, step_size=0.3))
      worst = jax.jit(maxmin_weights)
      for step in range(1, 401):
        mixed = np.tensordot(mix, rewards, axes=1)
        policy = references.optimal_policy(reference, mixed, 0.5)
        got = utilities(policy, reference, rewards, 0.5, weights)
        if rule == "exponentiated":
          mix = np.asarray(update(mix, got))
        else:  # the paper's hard choice, averaged like fictitious play
          mix = mix + (np.asarray(worst(got)) - mix) / (step + 1)
        average += (mix - average) / step
    self.assertLess(exact.value - got.min(), 1e-2)
    np.testing.assert_allclose(mix, exact.weights, atol=0.05)

  def test_minimum_over_samples_is_stricter(self):
    reference, rewards, _ = problem(2, 1, 5)
    exact = maxmin_policy(reference, rewards, beta=0.5)
    pointwise = rewards.min(axis=0)
    answer = references.optimal_policy(reference, pointwise, 0.5)
    got = utilities(answer, reference, rewards, 0.5, np.ones(1)).min()
    promised = references.regularised_utility(
      answer, reference, pointwise, 0.5
    )[0]
    self.assertLessEqual(promised, got)  # E[min] ≤ min E
    self.assertLess(got, exact.value)

  @parameterized.parameters(
    (
      r"rewards must be \[K, ..., Y\].*\(3, 2, 3\)",
      dict(rewards=np.ones((3, 2, 3))),
    ),
    ("beta must be positive, got 0", dict(beta=0.0)),
    ("rewards must be finite", dict(rewards=np.full((3, 2, 4), np.nan))),
    ("reference_probs must be positive", dict(reference_probs=np.eye(4)[:2])),
    ("sum to 1", dict(reference_probs=np.ones((2, 4)))),
    (r"prompt_probs must be \(2,\)", dict(prompt_probs=np.ones(3) / 3)),
    ("not be negative", dict(prompt_probs=np.array([1.5, -0.5]))),
  )
  def test_errors(self, message, change):
    reference, rewards, _ = problem(3, 2, 4)
    arguments = dict(reference_probs=reference, rewards=rewards, beta=1.0)
    with self.assertRaisesRegex(ValueError, message):
      maxmin_policy(**(arguments | change))


if __name__ == "__main__":
  absltest.main()
