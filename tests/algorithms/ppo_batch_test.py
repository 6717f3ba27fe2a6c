"""What a batch of scored responses becomes, and what is reported of it."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo_batch
from tests.algorithms import bigram, policy_reference


class PrepareTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.batch = bigram.batch(8)
    self.actor, self.frozen, _ = bigram.params()

  def prepared(self, number=1, batch=None, **changes):
    cfg = bigram.config(**changes)
    state, frozen = bigram.state(cfg)
    return ppo_batch.prepare(
      bigram.networks(),
      state,
      frozen,
      self.batch if batch is None else batch,
      cfg,
      number=number,
    )

  def divergence(self):
    """KL of each response, by loops."""
    found = []
    for row, mask in zip(
      np.asarray(self.batch["tokens"]),
      np.asarray(self.batch["mask"]),
      strict=True,
    ):
      gap = policy_reference.token_log_probs(
        self.actor["table"], row[0]
      ) - policy_reference.token_log_probs(self.frozen["table"], row[0])
      found.append(gap[mask[0, bigram.P :]].sum())
    return np.array(found)

  def test_log_probs_are_of_the_tokens_they_stand_at(self):
    found = self.prepared().experience
    for r in (0, 1, 3):
      expected = policy_reference.token_log_probs(
        self.actor["table"], np.asarray(self.batch["tokens"])[r, 0]
      )
      counted = np.asarray(self.batch["mask"])[r, 0, bigram.P :]
      np.testing.assert_allclose(
        found["old_log_probs"][r, 0],
        np.where(counted, expected, 0.0),
        rtol=1e-12,
      )

  def test_reports_kl_utilities_and_mismatch(self):
    found = self.prepared()
    where = np.asarray(self.batch["where"])
    kl = self.divergence()
    np.testing.assert_allclose(found.observed_kl, kl[where].mean())
    scores = np.asarray(self.batch["scores"])[where, 0]
    group = np.asarray(self.batch["group"])
    for k, name in enumerate(bigram.GROUPS):
      np.testing.assert_allclose(
        found.metrics[f"train/utility/{name}"], scores[:, k].mean()
      )
      own = where & (group == k)
      np.testing.assert_allclose(
        found.metrics[f"train/kl/{name}"], kl[own].mean()
      )
    self.assertGreater(float(found.metrics["train/mismatch_mean_abs"]), 0.1)
    same = dict(self.batch, sampler_log_probs=found.experience["old_log_probs"])
    again = self.prepared(batch=same).metrics
    np.testing.assert_allclose(again["train/mismatch_mean_abs"], 0.0)
    np.testing.assert_allclose(again["train/mismatch_max_ratio"], 1.0)

  def test_a_group_without_prompts_has_no_kl(self):
    batch = dict(self.batch, group=jnp.zeros_like(self.batch["group"]))
    metrics = self.prepared(batch=batch).metrics
    own, other = (float(metrics[f"train/kl/{n}"]) for n in bigram.GROUPS)
    self.assertTrue(np.isfinite(own))
    self.assertTrue(np.isnan(other))

  def test_micro_batches_change_nothing(self):
    whole, parts = self.prepared(), self.prepared(number=4)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)

  def test_moments_and_weights_move_on(self):
    found = self.prepared(
      reward=dict(scale="std"),
      welfare=dict(kind="exponentiated", step_size=1.0),
    )
    np.testing.assert_array_equal(found.state.moments.number, 7)
    np.testing.assert_allclose(jnp.sum(found.state.group_weights), 1, rtol=1e-6)
    utilities = [float(found.metrics[f"train/utility/{n}"]) for n in "ab"]
    expected = np.exp(-np.array(utilities))
    np.testing.assert_allclose(
      found.state.group_weights, expected / expected.sum(), rtol=1e-6
    )

  def test_integer_scores_are_refused(self):
    batch = dict(self.batch, scores=jnp.zeros((8, 1, 2), jnp.int32))
    with self.assertRaisesRegex(TypeError, "scores must be floating point"):
      self.prepared(batch=batch)


class SparedForwardTest(parameterized.TestCase):
  def spared(self, agrees=True, **changes):
    sections = {
      "policy": dict(kind="grpo", whiten=False),
      "critic": bigram.NO_CRITIC,
      "kl": dict(place="loss", estimator="k3"),
    }
    sections = {
      name: values | changes.get(name, {}) for name, values in sections.items()
    }
    networks = bigram.networks("none")._replace(sampler_agrees=agrees)
    return ppo_batch.spares_forward(networks, bigram.config(**sections))

  def test_one_step_on_what_the_policy_sampled(self):
    self.assertTrue(self.spared())
    self.assertTrue(self.spared(policy=dict(kind="rloo")))

  @parameterized.parameters(
    ("the sampler is another policy", dict(agrees=False)),
    ("the second step is off the policy", dict(policy=dict(epochs=2))),
    ("so is a second minibatch", dict(policy=dict(minibatches=2))),
    ("weights compare the two", dict(policy=dict(importance_limit=2.0))),
    ("the KL is a reward", dict(kl=dict(place="reward", estimator="k1"))),
    (
      "the KL moves its coefficient",
      dict(kl=dict(controller="adaptive", target=1.0, horizon=9.0)),
    ),
  )
  def test_a_policy_that_more_depends_on_is_passed_forward(self, why, changes):
    self.assertFalse(self.spared(**changes), why)


if __name__ == "__main__":
  absltest.main()
