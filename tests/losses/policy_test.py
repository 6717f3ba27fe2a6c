"""Clipped losses, group advantages and corrections against NumPy and peers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  clipped_policy_loss,
  clipped_value_loss,
  decoupled_advantages,
  group_relative_advantages,
  policy_clipped,
  truncated_importance_weights,
)
from tests import references, transforms

RATIOS = np.array([1.5, 0.5, 1.0, 4.0])
ADVANTAGES = np.array([1.0, -1.0, 2.0, -1.0])
GRPO = np.array(
  [0.5745004, 0.0996860, 0.7419659, 0.8941783, 0.5965666, 0.4532518]
)


class PolicyLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.now, self.old, self.advantages = np.random.default_rng(0).normal(
      size=(3, 24)
    )

  @parameterized.parameters(None, 1.5)
  def test_matches_reference(self, dual_clip):
    loss = jax.jit(
      functools.partial(clipped_policy_loss, clip_eps=0.3, dual_clip=dual_clip)
    )
    np.testing.assert_allclose(
      loss(self.now, self.old, self.advantages),
      references.clipped_policy_loss(
        self.now, self.old, self.advantages, 0.3, dual_clip
      ),
      rtol=1e-12,
    )

  def test_two_ranges_match_reference(self):
    clip_eps = (0.2, 0.28)
    loss = functools.partial(clipped_policy_loss, clip_eps=clip_eps)
    arguments = (self.now, self.old, self.advantages)
    np.testing.assert_allclose(
      jax.jit(loss)(*arguments),
      references.clipped_policy_loss(*arguments, clip_eps),
      rtol=1e-12,
    )
    transforms.assert_second_order(loss, *arguments)
    grad = jax.grad(lambda x: jnp.sum(loss(x, *arguments[1:])))
    np.testing.assert_array_equal(
      policy_clipped(*arguments, clip_eps=clip_eps),
      grad(jnp.asarray(self.now)) == 0,
    )

  def test_a_higher_range_lets_good_tokens_alone_grow(self):
    # Ratio 1.25 lies between 1.2 and 1.28; 0.75 below 0.8.
    now = np.log(np.array([1.25, 1.25, 0.75]))
    gains = np.array([1.0, -1.0, -1.0])
    clipped = policy_clipped(now, np.zeros(3), gains)
    np.testing.assert_array_equal(clipped, [True, False, True])
    clipped = policy_clipped(now, np.zeros(3), gains, clip_eps=(0.2, 0.28))
    np.testing.assert_array_equal(clipped, [False, False, True])
    with self.assertRaisesRegex(ValueError, "clip_eps must be positive"):
      policy_clipped(now, np.zeros(3), gains, clip_eps=(0.2, 0.0))

  def test_published_clipping(self):
    arguments = (np.log(RATIOS), np.zeros(4), ADVANTAGES)
    plain = clipped_policy_loss(*arguments)
    np.testing.assert_allclose(jnp.mean(plain), 0.4, rtol=1e-6)
    dual = clipped_policy_loss(*arguments, dual_clip=3.0)
    np.testing.assert_allclose(jnp.mean(dual), 0.15, rtol=1e-6)
    clipped = policy_clipped(*arguments)
    np.testing.assert_array_equal(clipped, [True, True, False, False])

  @parameterized.parameters((1.0, -0.1711778), (-1.0, 0.1933333))
  def test_published_surrogate_of_rlax(self, sign, expected):
    logits = np.array([[1.0, 1, 1], [2, 0, 0], [-1, -2, -3]])
    old = np.array([[1.0, 1, 1], [2, 0, 0], [-3, -2, -1]])
    pick = lambda x: jax.nn.log_softmax(x)[np.arange(3), np.arange(3)]
    loss = clipped_policy_loss(
      pick(logits), pick(old), sign * np.array([0.3, 0.2, 0.1])
    )
    self.assertAlmostEqual(float(jnp.mean(loss)), expected, places=6)

  def test_value_and_gradient_of_torch(self):
    torch = pytest.importorskip("torch")
    now = torch.tensor(self.now, requires_grad=True)
    ratio = torch.exp(now - torch.tensor(self.old))
    gain = torch.tensor(self.advantages)
    want = -torch.minimum(ratio * gain, torch.clamp(ratio, 0.8, 1.2) * gain)
    want.sum().backward()
    np.testing.assert_allclose(
      clipped_policy_loss(self.now, self.old, self.advantages),
      want.detach().numpy(),
    )
    grad = jax.grad(
      lambda x: jnp.sum(clipped_policy_loss(x, self.old, self.advantages))
    )
    np.testing.assert_allclose(grad(jnp.asarray(self.now)), now.grad.numpy())

  def test_first_step_is_the_policy_gradient(self):
    # At a ratio of 1 the two branches tie and must not halve the gradient.
    grad = jax.grad(
      lambda x: jnp.sum(clipped_policy_loss(x, self.old, self.advantages))
    )
    np.testing.assert_allclose(grad(jnp.asarray(self.old)), -self.advantages)

  def test_a_shift_of_both_policies_changes_nothing(self):
    np.testing.assert_allclose(
      clipped_policy_loss(self.now + 2, self.old + 2, self.advantages),
      clipped_policy_loss(self.now, self.old, self.advantages),
      rtol=1e-12,
    )

  def test_clipped_tokens_are_those_without_gradient(self):
    grad = jax.grad(
      lambda x: jnp.sum(clipped_policy_loss(x, self.old, self.advantages))
    )(jnp.asarray(self.now))
    np.testing.assert_array_equal(
      policy_clipped(self.now, self.old, self.advantages), grad == 0
    )

  def test_derivatives_and_transforms(self):
    loss = functools.partial(clipped_policy_loss, clip_eps=0.3, dual_clip=2.0)
    arguments = (self.now, self.old, self.advantages)
    transforms.assert_second_order(loss, *arguments)
    transforms.assert_jit_and_vmap(loss, *arguments)
    transforms.assert_jit_and_vmap(policy_clipped, *arguments)

  @parameterized.parameters(None, 3.0)
  def test_finite_at_extremes(self, dual_clip):
    now = np.array([1e4, -1e4, 1e4, -1e4, 0.0])
    advantages = np.array([1e4, 1e4, -1e4, -1e4, 0.0])
    transforms.assert_finite(
      functools.partial(clipped_policy_loss, dual_clip=dual_clip),
      now,
      -now,
      advantages,
    )

  def test_dtypes_and_errors(self):
    half = [jnp.ones(3, jnp.bfloat16)] * 3
    self.assertEqual(clipped_policy_loss(*half).dtype, jnp.float32)
    for fn in (clipped_policy_loss, policy_clipped):
      with self.assertRaisesRegex(TypeError, "advantages must be floating"):
        fn(self.now, self.old, self.advantages.astype(int))
      with self.assertRaisesRegex(ValueError, r"old_log_probs \(3,\)"):
        fn(self.now, self.old[:3], self.advantages)
      with self.assertRaisesRegex(ValueError, "clip_eps must be positive"):
        fn(self.now, self.old, self.advantages, clip_eps=0.0)
    with self.assertRaisesRegex(ValueError, "dual_clip must be above 1, got 1"):
      clipped_policy_loss(self.now, self.old, self.advantages, dual_clip=1.0)


class ValueLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.values, self.old, self.returns = np.random.default_rng(0).normal(
      size=(3, 24)
    )

  def test_matches_reference(self):
    np.testing.assert_allclose(
      jax.jit(clipped_value_loss)(self.values, self.old, self.returns),
      references.clipped_value_loss(self.values, self.old, self.returns, 0.2),
      rtol=1e-12,
    )

  def test_hand_cases(self):
    # Inside the range: half the square. Outside, the worse of the two.
    loss = clipped_value_loss(
      np.array([1.1, 2.0, 2.0]), np.ones(3), np.array([0.1, 0.0, 3.0])
    )
    np.testing.assert_allclose(loss, [0.5, 2.0, 1.62])

  def test_common_shift_changes_nothing(self):
    np.testing.assert_allclose(
      clipped_value_loss(self.values + 2, self.old + 2, self.returns + 2),
      clipped_value_loss(self.values, self.old, self.returns),
      rtol=1e-9,
    )

  def test_derivatives_and_transforms(self):
    arguments = (self.values, self.old, self.returns)
    transforms.assert_second_order(clipped_value_loss, *arguments)
    transforms.assert_jit_and_vmap(clipped_value_loss, *arguments)
    far = np.array([1e4, -1e4, 0.0])
    transforms.assert_finite(clipped_value_loss, far, -far, far)

  def test_dtypes_and_errors(self):
    half = [jnp.ones(3, jnp.bfloat16)] * 3
    self.assertEqual(clipped_value_loss(*half).dtype, jnp.float32)
    with self.assertRaisesRegex(TypeError, "returns must be floating"):
      clipped_value_loss(self.values, self.old, self.returns.astype(int))
    with self.assertRaisesRegex(ValueError, r"values \(24,\), old_values"):
      clipped_value_loss(self.values, self.old[:3], self.returns)
    with self.assertRaisesRegex(ValueError, "clip_eps must be positive"):
      clipped_value_loss(self.values, self.old, self.returns, clip_eps=-1.0)


class GroupAdvantagesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.rewards = np.random.default_rng(0).normal(size=(3, 4))

  def test_rloo_of_tunix_and_trl(self):
    got = group_relative_advantages(
      np.arange(1.0, 7).reshape(2, 3), kind="rloo"
    )
    np.testing.assert_allclose(got, [[-1.5, 0, 1.5]] * 2)
    # Four samples of three prompts, sample by sample.
    rewards = np.array([1, 2, 3, 2, 3, 4, 5, 6, 7, 8, 9, 10.0]).reshape(4, 3).T
    got = group_relative_advantages(rewards, kind="rloo").T.reshape(-1)
    want = np.repeat([-4, -8 / 3, 4 / 3, 16 / 3], 3)
    np.testing.assert_allclose(got, want)
    self.assertAlmostEqual(float(got[7]), 1.3333333, places=7)

  def test_grpo_of_tunix(self):
    np.testing.assert_allclose(
      group_relative_advantages(GRPO.reshape(2, 3)),
      [[0.307498, -1.117636, 0.810138], [1.094526, -0.228671, -0.865855]],
      atol=2e-6,
    )

  def test_matches_a_loop(self):
    others = lambda row, i: np.mean(np.delete(row, i))
    rloo = [[row[i] - others(row, i) for i in range(4)] for row in self.rewards]
    np.testing.assert_allclose(
      group_relative_advantages(self.rewards, kind="rloo"), rloo
    )
    np.testing.assert_allclose(
      group_relative_advantages(self.rewards, kind="dr_grpo"),
      [row - row.mean() for row in self.rewards],
      atol=1e-15,
    )
    np.testing.assert_allclose(
      group_relative_advantages(self.rewards, kind="grpo"),
      [(r - r.mean()) / (r.std(ddof=1) + 1e-6) for r in self.rewards],
    )

  @parameterized.parameters("grpo", "rloo", "dr_grpo")
  def test_shift_order_and_edges(self, kind):
    fn = functools.partial(group_relative_advantages, kind=kind)
    np.testing.assert_allclose(
      fn(self.rewards[:, ::-1] + 3), fn(self.rewards)[:, ::-1], rtol=1e-9
    )
    np.testing.assert_array_equal(fn(np.full((2, 4), 0.5)), 0.0)
    transforms.assert_finite(fn, np.array([[1.0] * 4, [1e4, -1e4, 0, 0]]))
    transforms.assert_second_order(fn, self.rewards)
    transforms.assert_jit_and_vmap(fn, self.rewards)
    self.assertEqual(fn(jnp.ones((2, 3), jnp.bfloat16)).dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "kind must be one of dr_grpo"):
      group_relative_advantages(self.rewards, kind="ppo")
    with self.assertRaisesRegex(ValueError, r"at least 2.*\(3, 1\)"):
      group_relative_advantages(self.rewards[:, :1])
    with self.assertRaisesRegex(TypeError, "rewards must be floating"):
      group_relative_advantages(np.ones((2, 3), int))


class DecoupledAdvantagesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.rewards = np.random.default_rng(0).normal(size=(5, 4, 3))
    self.weights = np.array([0.2, 0.5, 0.3])

  def test_matches_reference(self):
    np.testing.assert_allclose(
      jax.jit(decoupled_advantages)(self.rewards, weights=self.weights),
      references.decoupled_advantages(self.rewards, self.weights),
      rtol=1e-10,
    )
    np.testing.assert_allclose(
      decoupled_advantages(self.rewards),
      references.decoupled_advantages(self.rewards, np.ones(3)),
      rtol=1e-10,
    )

  def test_one_reward_is_grpo(self):
    np.testing.assert_allclose(
      decoupled_advantages(self.rewards[..., :1]),
      group_relative_advantages(self.rewards[..., 0]),
      rtol=1e-12,
    )

  def test_scales_do_not_matter_and_combinations_stay_apart(self):
    scale = np.array([1.0, 1e3, 5.0])
    np.testing.assert_allclose(
      decoupled_advantages(self.rewards * scale + 7.0),
      decoupled_advantages(self.rewards),
      atol=1e-4,
    )
    # The example of the paper: two rewards, one or both of which are earned.
    one = np.array([[[0.0, 0.0], [0.0, 1.0]]])
    both = np.array([[[0.0, 0.0], [1.0, 1.0]]])
    joint = lambda r: group_relative_advantages(r.sum(-1))
    np.testing.assert_allclose(joint(one), joint(both), atol=1e-5)
    np.testing.assert_allclose(
      decoupled_advantages(both), 2 * decoupled_advantages(one), rtol=1e-6
    )

  def test_order_of_responses_and_rewards_is_free(self):
    whole = decoupled_advantages(self.rewards, weights=self.weights)
    turned = decoupled_advantages(
      self.rewards[:, ::-1, ::-1], weights=self.weights[::-1]
    )
    np.testing.assert_allclose(turned[:, ::-1], whole, rtol=1e-10)

  def test_equal_rewards_give_nothing(self):
    loss = lambda r: jnp.sum(jnp.sin(decoupled_advantages(r)))
    same = jnp.ones((2, 3, 2))
    np.testing.assert_array_equal(decoupled_advantages(same), 0.0)
    np.testing.assert_array_equal(jax.grad(loss)(same), 0.0)

  def test_derivatives_and_transforms(self):
    transforms.assert_second_order(decoupled_advantages, self.rewards)
    transforms.assert_jit_and_vmap(decoupled_advantages, self.rewards)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "at least 2 responses"):
      decoupled_advantages(self.rewards[:, :1])
    with self.assertRaisesRegex(ValueError, r"weights must be \[3\]"):
      decoupled_advantages(self.rewards, weights=np.ones(2))
    with self.assertRaisesRegex(TypeError, "rewards must be floating"):
      decoupled_advantages(np.ones((2, 3, 2), int))


class ImportanceWeightsTest(parameterized.TestCase):
  def test_ratio_up_to_the_limit_without_gradient(self):
    learner = np.log(np.array([0.5, 0.2, 0.9]))
    sampler = np.log(np.array([0.25, 0.4, 0.1]))
    with jax.enable_x64(True):
      fn = functools.partial(truncated_importance_weights, limit=3.0)
      np.testing.assert_allclose(fn(learner, sampler), [2.0, 0.5, 3.0])
      grad = jax.grad(lambda x: jnp.sum(fn(x, sampler)))(jnp.asarray(learner))
      np.testing.assert_array_equal(grad, 0.0)
      transforms.assert_jit_and_vmap(fn, learner, sampler)
      transforms.assert_finite(fn, np.array([1e4, -1e4]), np.array([-1e4, 1e4]))

  def test_dtypes_and_errors(self):
    half = jnp.ones(2, jnp.bfloat16)
    self.assertEqual(
      truncated_importance_weights(half, half).dtype, jnp.float32
    )
    with self.assertRaisesRegex(ValueError, "limit must be positive"):
      truncated_importance_weights(half, half, limit=0.0)
    with self.assertRaisesRegex(ValueError, r"sampler_log_probs \(1,\)"):
      truncated_importance_weights(half, half[:1])
    with self.assertRaisesRegex(TypeError, "log_probs must be floating"):
      truncated_importance_weights(np.ones(2, int), half)


if __name__ == "__main__":
  absltest.main()
