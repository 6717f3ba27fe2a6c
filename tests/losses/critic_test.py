"""A distributional critic against a loop and against the scalar critic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  categorical_advantages,
  categorical_critic_loss,
  categorical_returns,
  projected_returns,
  two_hot,
)
from jaxalign.ops import gae
from tests import references, transforms


class CriticTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.probs = rng.dirichlet(np.ones(4), size=(3, 6))
    self.final = rng.dirichlet(np.ones(4), size=3)
    self.where = rng.random((3, 6)) < 0.6
    self.where[0] = True
    self.where[1] = False
    self.utilities = np.array([1.0, 0.5, -0.2, -1.0])

  @parameterized.parameters(0.0, 0.7, 1.0)
  def test_returns_match_reference(self, gae_lambda):
    got = jax.jit(
      functools.partial(categorical_returns, gae_lambda=gae_lambda)
    )(self.probs, self.final, where=self.where)
    want = [
      references.categorical_returns(v, f, gae_lambda, w)
      for v, f, w in zip(self.probs, self.final, self.where, strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(got.sum(axis=-1), self.where * 1.0, atol=1e-12)

  def test_advantages_are_those_of_a_scalar_critic(self):
    # Reward at the end only and no discount: utilities commute with λ-returns.
    returns = categorical_returns(
      self.probs, self.final, gae_lambda=0.6, where=self.where
    )
    got = categorical_advantages(
      np.where(self.where[..., None], self.probs, 0), returns, self.utilities
    )
    scalar = gae(
      np.zeros((3, 6)),
      self.probs @ self.utilities,
      discount=1.0,
      gae_lambda=0.6,
      where=self.where,
      final_value=self.final @ self.utilities,
    )
    np.testing.assert_allclose(got, scalar.advantages, atol=1e-12)

  def test_last_step_alone_is_trained_on_the_label(self):
    returns = categorical_returns(
      self.probs[:1], self.final[:1], gae_lambda=0.0
    )
    np.testing.assert_allclose(returns[0, -1], self.final[0])
    np.testing.assert_allclose(returns[0, :-1], self.probs[0, 1:])

  def test_loss_is_least_at_the_returns(self):
    returns = self.probs[0]
    loss = categorical_critic_loss(np.log(returns), returns)
    np.testing.assert_allclose(
      loss, -np.sum(returns * np.log(returns), axis=-1)
    )
    grad = jax.grad(lambda x: jnp.sum(categorical_critic_loss(x, returns)))
    np.testing.assert_allclose(grad(jnp.log(returns)), 0.0, atol=1e-12)
    shifted = categorical_critic_loss(np.log(returns) + 3, returns)
    np.testing.assert_allclose(shifted, loss)

  def test_garbage_under_the_mask(self):
    logits = np.log(self.probs)
    returns = categorical_returns(
      self.probs, self.final, gae_lambda=0.6, where=self.where
    )

    def total(x):
      out = categorical_returns(
        jax.nn.softmax(x), self.final, gae_lambda=0.6, where=self.where
      )
      loss = categorical_critic_loss(x, returns, where=self.where)
      return jnp.sum(loss) + jnp.sum(out**2)

    total = jax.jit(jax.value_and_grad(total))
    want = total(jnp.asarray(logits))
    garbage = jnp.where(self.where[..., None], logits, jnp.nan)
    got = total(garbage)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
    counted = self.where[..., None] & np.ones(4, bool)
    np.testing.assert_allclose(got[1][counted], want[1][counted], rtol=1e-9)
    np.testing.assert_array_equal(
      categorical_critic_loss(garbage, returns, where=self.where)[1], 0.0
    )

  def test_derivatives_and_transforms(self):
    returns = functools.partial(
      categorical_returns, gae_lambda=0.6, where=self.where
    )
    loss = functools.partial(categorical_critic_loss, where=self.where)
    transforms.assert_second_order(returns, self.probs, self.final)
    transforms.assert_jit_and_vmap(returns, self.probs, self.final)
    transforms.assert_second_order(loss, np.log(self.probs), self.probs)
    transforms.assert_jit_and_vmap(loss, np.log(self.probs), self.probs)
    arguments = (self.probs, self.probs[::-1], self.utilities)
    transforms.assert_second_order(categorical_advantages, *arguments)
    transforms.assert_jit_and_vmap(categorical_advantages, *arguments)
    transforms.assert_finite(
      categorical_critic_loss, self.probs * 1e4, self.probs
    )

  def test_dtypes(self):
    half = jnp.full((2, 4), 0.25, jnp.bfloat16)
    for out in (
      categorical_returns(half, half[0], gae_lambda=0.5),
      categorical_critic_loss(half, half),
      categorical_advantages(half, half, half[0]),
    ):
      self.assertEqual(out.dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"final_probs must be \[..., d\]"):
      categorical_returns(self.probs, self.final[:2], gae_lambda=0.5)
    with self.assertRaisesRegex(ValueError, "gae_lambda.*-1"):
      categorical_returns(self.probs, self.final, gae_lambda=-1.0)
    with self.assertRaisesRegex(ValueError, r"where must be \(3, 6\)"):
      categorical_returns(
        self.probs, self.final, gae_lambda=0.5, where=self.where[:2]
      )
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      categorical_critic_loss(self.probs, self.probs, where=self.where * 1.0)
    with self.assertRaisesRegex(ValueError, r"where must be \(3, 6\)"):
      categorical_critic_loss(self.probs, self.probs, where=self.where[:2])
    with self.assertRaisesRegex(ValueError, r"returns \(1, 6, 4\)"):
      categorical_critic_loss(self.probs, self.probs[:1])
    with self.assertRaisesRegex(ValueError, r"utilities must be \(4,\)"):
      categorical_advantages(self.probs, self.probs, self.utilities[:2])
    with self.assertRaisesRegex(TypeError, "value_probs must be floating"):
      categorical_returns(self.probs.astype(int), self.final, gae_lambda=0.5)


RANGE = dict(low=-2.0, high=1.5)


class ProjectionTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(1)
    self.probs = rng.dirichlet(np.ones(5), size=(4, 6))
    self.rewards = rng.normal(size=(4, 6))
    self.where = rng.random((4, 6)) < 0.6
    self.where[0], self.where[1] = True, False
    self.final = dict(
      final_probs=rng.dirichlet(np.ones(3), size=4),
      final_gaps=rng.normal(size=(4, 3)),
    )

  def returns(self, probs=None, rewards=None, **changes):
    knobs = dict(**RANGE, discount=0.9, gae_lambda=0.6, where=self.where)
    return projected_returns(
      self.probs if probs is None else probs,
      self.rewards if rewards is None else rewards,
      **knobs | changes,
    )

  def test_two_hot_is_the_value_on_two_atoms(self):
    values = np.array([-9.0, -2.0, -1.9, -0.25, 0.1, 1.5, 7.0])
    got = two_hot(values, num_atoms=5, **RANGE)
    want = [references.two_hot(v, -2.0, 1.5, 5) for v in values]
    np.testing.assert_allclose(got, want, atol=1e-15)
    np.testing.assert_allclose(got.sum(axis=-1), 1.0)
    self.assertLessEqual(int((np.asarray(got) > 0).sum(axis=-1).max()), 2)
    np.testing.assert_allclose(
      got @ np.linspace(-2, 1.5, 5), np.clip(values, -2, 1.5), atol=1e-15
    )

  @parameterized.parameters((1.0, 1.0), (0.9, 0.6), (1.0, 0.0), (0.0, 0.5))
  def test_projected_returns_match_reference(self, discount, gae_lambda):
    got = self.returns(discount=discount, gae_lambda=gae_lambda)
    want = [
      references.projected_returns(p, r, -2.0, 1.5, discount, gae_lambda, w)
      for p, r, w in zip(self.probs, self.rewards, self.where, strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.sum(axis=-1), self.where * 1.0, atol=1e-12)

  def test_means_are_the_returns_of_a_scalar_critic(self):
    # Rewards so small that nothing on the inner atoms leaves the range.
    inner = self.probs * np.array([0, 1, 1, 1, 0.0])
    inner /= inner.sum(axis=-1, keepdims=True)
    atoms = np.linspace(-2.0, 1.5, 5)
    rewards = 0.01 * self.rewards
    got = self.returns(inner, rewards) @ atoms
    scalar = gae(
      rewards, inner @ atoms, discount=0.9, gae_lambda=0.6, where=self.where
    )
    np.testing.assert_allclose(got, scalar.returns, atol=1e-12)

  @parameterized.parameters((1.0, 1.0), (0.9, 0.6), (1.0, 0.0))
  def test_several_outcomes_match_reference(self, discount, gae_lambda):
    got = self.returns(discount=discount, gae_lambda=gae_lambda, **self.final)
    rows = self.probs, self.rewards, self.where, *self.final.values()
    want = [
      references.projected_returns(
        p, r, -2.0, 1.5, discount, gae_lambda, w, *of
      )
      for p, r, w, *of in zip(*rows, strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.sum(axis=-1), self.where * 1.0, atol=1e-12)
    one = self.returns(discount=discount, gae_lambda=gae_lambda)
    self.assertGreater(np.abs(got - one).max(), 0.01)

  def test_outcomes_spread_around_a_mean_that_stays(self):
    inner = self.probs * np.array([0, 1, 1, 1, 0.0])
    inner /= inner.sum(axis=-1, keepdims=True)
    probs = self.final["final_probs"]
    gaps = 0.1 * self.final["final_gaps"]
    gaps -= (probs * gaps).sum(axis=-1, keepdims=True)
    args = inner, 0.01 * self.rewards
    atoms = np.linspace(-2.0, 1.5, 5)
    one = self.returns(*args)
    several = self.returns(*args, final_probs=probs, final_gaps=gaps)
    np.testing.assert_allclose(several @ atoms, one @ atoms, atol=1e-12)
    # An outcome alone is the reward itself, in whatever order others stand.
    alone = dict(final_probs=np.ones((4, 1)), final_gaps=np.zeros((4, 1)))
    np.testing.assert_allclose(self.returns(*args, **alone), one, atol=1e-15)
    turned = self.returns(
      *args, final_probs=probs[:, ::-1], final_gaps=gaps[:, ::-1]
    )
    np.testing.assert_allclose(turned, several, atol=1e-15)

  def test_labels_at_the_end_are_the_mixture_of_their_atoms(self):
    rewards = np.zeros((1, 6))
    shares = np.array([[0.2, 0.0, 0.5, 0.0, 0.3]])
    got = self.returns(
      self.probs[:1],
      rewards,
      discount=1.0,
      where=self.where[:1],
      final_probs=shares,
      final_gaps=np.linspace(-2.0, 1.5, 5)[None],
    )
    want = categorical_returns(self.probs[:1], shares, gae_lambda=0.6)
    np.testing.assert_allclose(got, want, atol=1e-12)

  def test_garbage_outcomes_under_the_mask_move_nothing(self):
    def total(probs, gaps):
      found = self.returns(final_probs=probs, final_gaps=gaps)
      return jnp.sum(found**2)

    total = jax.jit(jax.value_and_grad(total, (0, 1)))
    want = total(*self.final.values())
    dirty = [x.copy() for x in self.final.values()]
    for x in dirty:
      x[1] = np.nan  # of which no step counts
    jax.tree.map(np.testing.assert_array_equal, total(*dirty), want)

  def test_outcomes_are_differentiable_and_transform(self):
    fn = lambda rewards, probs, gaps: self.returns(
      None, rewards, final_probs=probs, final_gaps=gaps
    )
    args = self.rewards, *self.final.values()
    transforms.assert_second_order(fn, *args)
    transforms.assert_jit_and_vmap(fn, *args)

  def test_one_reward_at_the_end_needs_no_projection(self):
    rewards = np.zeros((1, 6))
    rewards[0, -1] = 0.3
    got = self.returns(
      self.probs[:1], rewards, discount=1.0, where=self.where[:1]
    )
    want = categorical_returns(
      self.probs[:1],
      two_hot(rewards[:, -1], num_atoms=5, **RANGE),
      gae_lambda=0.6,
    )
    np.testing.assert_allclose(got, want, atol=1e-12)

  def test_garbage_under_the_mask_moves_no_projection(self):
    def total(probs, rewards):
      return jnp.sum(self.returns(probs, rewards) ** 2)

    total = jax.jit(jax.value_and_grad(total, (0, 1)))
    want = total(self.probs, self.rewards)
    got = total(
      np.where(self.where[..., None], self.probs, np.nan),
      np.where(self.where, self.rewards, np.nan),
    )
    jax.tree.map(np.testing.assert_array_equal, got, want)

  def test_projections_are_differentiable_and_transform(self):
    transforms.assert_second_order(self.returns, self.probs, self.rewards)
    transforms.assert_jit_and_vmap(self.returns, self.probs, self.rewards)
    hot = functools.partial(two_hot, num_atoms=5, **RANGE)
    transforms.assert_second_order(hot, self.rewards)
    transforms.assert_jit_and_vmap(hot, self.rewards)
    transforms.assert_finite(self.returns, self.probs, self.rewards * 1e4)

  def test_laws_are_at_least_float32(self):
    half = jnp.full((2, 4), 0.25, jnp.bfloat16)
    knobs = dict(discount=1.0, gae_lambda=0.5, **RANGE)
    got = projected_returns(half, half[:, 0], **knobs)
    self.assertEqual(got.dtype, jnp.float32)
    self.assertEqual(two_hot(half, num_atoms=3, **RANGE).dtype, jnp.float32)

  def test_projection_errors(self):
    with self.assertRaisesRegex(ValueError, r"rewards must be \[..., T\].*\(3"):
      self.returns(rewards=self.rewards[:3])
    with self.assertRaisesRegex(ValueError, "gae_lambda must be.*1.5"):
      self.returns(gae_lambda=1.5)
    with self.assertRaisesRegex(ValueError, r"where \(2, 6\)"):
      self.returns(where=self.where[:2])
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      self.returns(where=self.where * 1.0)
    with self.assertRaisesRegex(TypeError, "rewards must be floating"):
      self.returns(rewards=self.rewards.astype(int))
    with self.assertRaisesRegex(ValueError, "go together, got one"):
      self.returns(final_probs=self.final["final_probs"])
    with self.assertRaisesRegex(ValueError, r"final_probs must be \(4, 'd'\)"):
      self.returns(**{k: x[:2] for k, x in self.final.items()})
    with self.assertRaisesRegex(ValueError, r"final_gaps \(4, 2\)"):
      self.returns(
        **self.final | {"final_gaps": self.final["final_gaps"][:, 1:]}
      )
    with self.assertRaisesRegex(ValueError, "num_atoms=1, low=-2.0"):
      two_hot(self.rewards, num_atoms=1, **RANGE)
    with self.assertRaisesRegex(ValueError, "low=1.0, high=1.0"):
      two_hot(self.rewards, num_atoms=3, low=1.0, high=1.0)
    with self.assertRaisesRegex(TypeError, "values must be floating"):
      two_hot(np.arange(3), num_atoms=3, **RANGE)


if __name__ == "__main__":
  absltest.main()
