"""Distributional critic: one step of learning against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo
from tests import references
from tests.algorithms import bigram, policy_reference

LOW, HIGH = bigram.ATOMS["low"], bigram.ATOMS["high"]
BETA, LAMBDA, DISCOUNT = float(np.float32(0.1)), 0.95, 0.9


def softmax(logits):
  return np.exp(policy_reference.log_softmax(logits))


class DistributionalCriticTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.batch = bigram.batch()
    actor, ref, critic = bigram.params(num_atoms=bigram.ATOMS["num_atoms"])
    self.actor, self.ref = (np.asarray(x["table"]) for x in (actor, ref))
    self.critic = np.asarray(critic["value"])
    self.laws = softmax(self.critic)
    self.means = self.laws @ np.linspace(LOW, HIGH, self.laws.shape[1])

  def learned(self, **changes):
    cfg = bigram.config(
      critic=bigram.ATOMS | dict(discount=DISCOUNT) | changes,
      welfare=dict(kind="single", group=0),
    )
    start, frozen = bigram.state(cfg, critic=cfg.critic.kind)
    learn = ppo.make_learn(
      bigram.networks(cfg.critic.kind), bigram.sgd(1.0), cfg
    )
    return jax.jit(learn)(start, frozen, self.batch, jax.random.key(0))

  def rows(self):
    """Of each response that counts: its tokens, rewards and returns' laws."""
    scores = np.asarray(self.batch["scores"], np.float64)[:, 0, 0]
    for i, tokens in enumerate(np.asarray(self.batch["tokens"])[:, 0]):
      if not self.batch["where"][i]:
        continue
      length = int(np.asarray(self.batch["mask"])[i, 0, bigram.P :].sum())
      gap = policy_reference.token_log_probs(self.actor, tokens)
      gap = gap - policy_reference.token_log_probs(self.ref, tokens)
      rewards = -BETA * gap[:length]
      rewards[-1] += scores[i]
      before = tokens[bigram.P - 1 : bigram.P - 1 + length]
      laws = references.projected_returns(
        self.laws[before], rewards, LOW, HIGH, DISCOUNT, LAMBDA,
        np.ones(length, bool),
      )  # fmt: skip
      yield before, laws

  def value_loss(self, logits):
    """Token mean of the cross-entropy."""
    terms = [
      -np.sum(law * policy_reference.log_softmax(logits)[token])
      for before, laws in self.rows()
      for token, law in zip(before, laws, strict=True)
    ]
    return sum(terms) / len(terms)

  def advantages(self):
    return policy_reference.advantages(
      self.actor,
      self.ref,
      self.means,
      self.batch,
      kl_coef=BETA,
      discount=DISCOUNT,
      lam=LAMBDA,
      scores=np.asarray(self.batch["scores"], np.float64)[:, 0, 0],
    )

  def policy_loss(self, table):
    return policy_reference.policy_loss(
      table,
      self.actor,
      self.batch,
      policy_reference.whiten(self.advantages()),
      0.2,
    )

  def test_a_step_of_its_own_network(self):
    state, metrics = self.learned()
    step = policy_reference.slope(self.value_loss, self.critic)
    self.assertGreater(np.abs(step).max(), 0.01)
    np.testing.assert_allclose(
      state.critic.params["value"], self.critic - step, atol=2e-8
    )
    np.testing.assert_allclose(
      metrics["train/value_loss"], self.value_loss(self.critic)
    )
    returns = np.concatenate(
      [row[1] for row in self.advantages() if row is not None]
    )
    outside = np.mean((returns < LOW) | (returns > HIGH))
    self.assertBetween(outside, 0.01, 0.99)
    np.testing.assert_allclose(metrics["train/returns_out_of_range"], outside)
    # The policy's advantages are those of the means.
    step = policy_reference.slope(self.policy_loss, self.actor)
    np.testing.assert_allclose(
      state.actor.params["table"], self.actor - step, atol=2e-8
    )

  def test_a_step_of_a_shared_trunk(self):
    state, _ = self.learned(kind="shared", coef=0.1)
    step = policy_reference.slope(self.value_loss, self.critic)
    np.testing.assert_allclose(
      state.actor.params["value"], self.critic - 0.1 * step, atol=2e-8
    )
    step = policy_reference.slope(self.policy_loss, self.actor)
    np.testing.assert_allclose(
      state.actor.params["table"], self.actor - step, atol=2e-8
    )

  @parameterized.parameters("none", "std")
  def test_a_step_on_the_law_of_labels(self, scale):
    batch = bigram.labelled(bigram.batch(groups=1))
    cfg = bigram.config(
      ("a",),
      critic=bigram.ATOMS | dict(num_labels=3),
      reward=dict(scale=scale),
      kl=dict(coef=0.0),
    )
    start, frozen = bigram.state(cfg)
    learn = ppo.make_learn(bigram.networks(), bigram.sgd(1.0), cfg)
    state, _ = jax.jit(learn)(start, frozen, batch, jax.random.key(0))
    scores, probs, gaps = (
      np.asarray(batch[k], np.float64)[:, 0]
      for k in ("scores", "label_probs", "label_gaps")
    )
    where = np.asarray(batch["where"])
    unit = scores[where].std() if scale == "std" else 1.0
    rows = []
    for i in np.flatnonzero(where):
      tokens = np.asarray(batch["tokens"])[i, 0]
      length = int(np.asarray(batch["mask"])[i, 0, bigram.P :].sum())
      rewards = np.zeros(length)
      rewards[-1] = scores[i, 0] / unit
      before = tokens[bigram.P - 1 : bigram.P - 1 + length]
      laws = references.projected_returns(
        self.laws[before], rewards, LOW, HIGH, 1.0, LAMBDA,
        np.ones(length, bool), probs[i], gaps[i] / unit,
      )  # fmt: skip
      rows.append((before, laws))

    def value_loss(logits):
      terms = [
        -np.sum(law * policy_reference.log_softmax(logits)[token])
        for before, laws in rows
        for token, law in zip(before, laws, strict=True)
      ]
      return sum(terms) / len(terms)

    step = policy_reference.slope(value_loss, self.critic)
    np.testing.assert_allclose(
      # Moments, and with them the unit, are kept in float32.
      state.critic.params["value"],
      self.critic - step,
      atol=2e-8 if scale == "none" else 1e-6,
    )
    # One outcome at the mean would have been another step.
    alone = batch | {"label_gaps": jnp.zeros_like(batch["label_gaps"])}
    other, _ = jax.jit(learn)(start, frozen, alone, jax.random.key(0))
    apart = other.critic.params["value"] - state.critic.params["value"]
    self.assertGreater(float(jnp.abs(apart).max()), 1e-3)
    np.testing.assert_allclose(  # and the policy's is the same
      other.actor.params["table"], state.actor.params["table"], atol=1e-12
    )

  def test_it_learns_the_law_and_not_only_the_mean(self):
    """Two outcomes that no reader of the prompt can tell apart."""
    cfg = bigram.config(
      critic=dict(clip=None, num_atoms=5, low=-1.0, high=1.0, gae_lambda=1.0),
      kl=dict(coef=0.0),
      welfare=dict(kind="single", group=0),
      policy=dict(epochs=40),
    )
    start, frozen = bigram.state(cfg, optimizers=bigram.sgd(2.0))
    batch = bigram.batch(16)
    batch["scores"] = jnp.where(
      jnp.arange(16)[:, None, None] % 4 == 0, 1.0, -1.0
    ) * jnp.ones((16, 1, 2))
    batch["tokens"] = jnp.zeros_like(batch["tokens"])
    batch["where"] = jnp.ones(16, bool)
    batch["mask"] = batch["mask"].at[..., bigram.P + 1 :].set(False)
    learn = ppo.make_learn(bigram.networks(), bigram.sgd(2.0), cfg)
    state, _ = jax.jit(learn)(start, frozen, batch, jax.random.key(0))
    law = softmax(np.asarray(state.critic.params["value"]))[0]
    np.testing.assert_allclose(law, [0.75, 0, 0, 0, 0.25], atol=0.03)


if __name__ == "__main__":
  absltest.main()
