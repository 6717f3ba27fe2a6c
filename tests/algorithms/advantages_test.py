"""Rewards, advantages and token weights against loops and hand cases."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo_batch
from tests import references
from tests.algorithms import bigram, policy_reference


class AdvantagesTest(parameterized.TestCase):
  def experience(self, batch):
    rng = np.random.default_rng(5)
    counted = np.asarray(batch["mask"])[..., bigram.P :]
    counted = counted & np.asarray(batch["where"])[:, None, None]
    logs = lambda: jnp.where(
      counted, jnp.array(-rng.uniform(0, 2, counted.shape), jnp.float32), 0.0
    )
    return {
      "counted": jnp.array(counted),
      "old_log_probs": logs(),
      "ref_log_probs": logs(),
    }

  def test_group_advantages_are_of_the_whole_reward(self):
    cfg = bigram.config(
      policy=dict(kind="rloo", whiten=False), critic=bigram.NO_CRITIC
    )
    batch = bigram.batch(4, 3)
    exp = self.experience(batch)
    scores = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    found, _ = ppo_batch.estimate_advantages(
      exp, jnp.array(scores), None, cfg, kl_coef=0.1
    )
    gap = np.sum(exp["old_log_probs"] - exp["ref_log_probs"], axis=-1)
    total = scores - 0.1 * gap
    for r in (0, 1, 3):
      for g in range(3):
        others = np.delete(total[r], g).mean()
        mine = np.asarray(exp["counted"])[r, g]
        np.testing.assert_allclose(
          found["advantages"][r, g],
          np.where(mine, total[r, g] - others, 0.0),
          rtol=1e-4,
          atol=1e-5,
        )
    np.testing.assert_array_equal(found["advantages"][2], 0.0)

  def test_gdpo_normalises_each_group_then_the_batch(self):
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(4, 3, 2)).astype(np.float32)
    scores[..., 1] *= 100.0
    penalties = -rng.integers(0, 2, (4, 3)).astype(np.float32)
    where = np.array([True, True, False, True])
    weights = np.array([0.7, 0.3], np.float32)
    got = ppo_batch.decoupled_relative(
      jnp.asarray(np.where(where[:, None, None], scores, np.nan)),
      jnp.asarray(penalties),
      jnp.asarray(weights),
      where=jnp.asarray(where),
    )
    each = np.concatenate([scores, penalties[..., None]], -1)[where]
    summed = references.decoupled_advantages(
      each.astype(np.float64), [0.7, 0.3, 0.5]
    )
    np.testing.assert_allclose(
      np.asarray(got)[where],
      (summed - summed.mean()) / summed.std(),
      rtol=1e-4,
      atol=1e-5,
    )
    np.testing.assert_array_equal(np.asarray(got)[~where], 0.0)

  def test_gdpo_reaches_the_learner(self):
    changes = dict(
      critic=bigram.NO_CRITIC, kl=dict(place="loss", estimator="k2")
    )
    policy = dict(kind="gdpo", whiten=False)
    cfg = bigram.config(policy=policy, welfare=dict(kind="mean"), **changes)
    batch = bigram.batch(4, 3)
    state, frozen = bigram.state(cfg, critic="none")
    found = ppo_batch.prepare(
      bigram.networks("none"), state, frozen, batch, cfg
    ).experience
    expected = ppo_batch.decoupled_relative(
      batch["scores"],
      jnp.zeros((4, 3)),
      jnp.full(2, 0.5),
      where=batch["where"],
    )
    counted = np.asarray(found["counted"])
    spread = np.broadcast_to(np.asarray(expected)[..., None], counted.shape)
    np.testing.assert_allclose(
      np.asarray(found["advantages"])[counted], spread[counted], rtol=1e-4
    )

  def test_whitening_is_over_the_whole_batch(self):
    cfg = bigram.config()
    exp = self.experience(bigram.batch(6))
    values = jnp.array(
      np.random.default_rng(2).normal(size=exp["counted"].shape), jnp.float32
    )
    found, metrics = ppo_batch.estimate_advantages(
      exp, jnp.ones((6, 1)), values, cfg, kl_coef=0.1
    )
    counted = np.asarray(exp["counted"])
    white = np.asarray(found["advantages"])[counted]
    np.testing.assert_allclose(white.mean(), 0.0, atol=1e-5)
    np.testing.assert_allclose(white.std(), 1.0, rtol=1e-4)
    returns = np.asarray(found["returns"])[counted]
    left = returns - np.asarray(values)[counted]
    np.testing.assert_allclose(
      metrics["train/explained_variance"],
      1 - left.var() / returns.var(),
      rtol=1e-3,
      atol=1e-4,
    )

  def test_the_score_is_on_the_last_token_and_kl_on_every_one(self):
    """λ = 1 without values: the advantage is the sum of what is still due."""
    cfg = bigram.config(policy=dict(whiten=False), critic=dict(gae_lambda=1.0))
    batch = bigram.batch(6)
    exp = self.experience(batch)
    found, _ = ppo_batch.estimate_advantages(
      exp,
      jnp.full((6, 1), 2.0),
      jnp.zeros(exp["counted"].shape),
      cfg,
      kl_coef=0.5,
    )
    gap = np.asarray(exp["old_log_probs"] - exp["ref_log_probs"])
    for r in (0, 1, 3, 4, 5):
      length = int(np.asarray(exp["counted"])[r, 0].sum())
      for t in range(length):
        due = 2.0 - 0.5 * gap[r, 0, t:length].sum()
        np.testing.assert_allclose(found["advantages"][r, 0, t], due, rtol=1e-5)
      np.testing.assert_array_equal(found["advantages"][r, 0, length:], 0.0)

  @parameterized.parameters(
    ("token_mean", [[1 / 4, 1 / 4], [0, 1 / 4]]),
    ("sequence_mean", [[1 / 8, 1 / 4], [0, 1 / 4]]),
    ("sequence_sum", [[1 / 4, 1 / 4], [0, 1 / 4]]),
    ("max_length", [[1 / 12, 1 / 12], [0, 1 / 12]]),
  )
  def test_token_weights_by_hand(self, aggregation, expected):
    counted = jnp.array(
      [
        [[True, True, False], [True, False, False]],
        [[False] * 3, [True, False, False]],
      ]
    )
    cfg = bigram.section("policy", aggregation=aggregation, minibatches=2)
    found = ppo_batch.token_weights(counted, jnp.array([True, True]), cfg)
    np.testing.assert_allclose(found, 2 * np.array(expected), rtol=1e-6)

  def test_reference_loop_agrees_with_case_19(self):
    """The loops that the golden step rests on, on a published case."""
    rewards = np.array([0.0, 0.0, 1.0])
    values = np.array([0.1, 0.2, 0.3])
    frozen = np.zeros((bigram.V, bigram.V))
    batch = {
      "tokens": np.array([[[0, 1, 2, 3, 4]]]),
      "mask": np.ones((1, 1, 5), bool),
      "where": np.array([True]),
    }
    critic = np.array([0.0, *values, 0.0])
    (found,) = policy_reference.advantages(
      frozen,
      frozen,
      critic,
      batch,
      kl_coef=0.0,
      discount=1.0,
      lam=0.95,
      scores=rewards[-1:],
    )
    np.testing.assert_allclose(found[0], [0.82675, 0.765, 0.7], atol=1e-6)


if __name__ == "__main__":
  absltest.main()
