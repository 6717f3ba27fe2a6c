"""The terms of the policy's loss, each alone, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo_batch, ppo_losses
from tests.algorithms import bigram

SHAPE = (2, 1, 3)


class PolicyLossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    draw = lambda: jnp.array(rng.normal(size=SHAPE), jnp.float32)
    self.new = -jnp.abs(draw())
    self.values = draw()
    self.batch = {
      "counted": jnp.array([[[True, True, False]], [[True, False, False]]]),
      "old_log_probs": self.new + 0.3 * draw(),
      "ref_log_probs": self.new + 0.5 * draw(),
      "advantages": draw(),
      "importance": jnp.abs(draw()),
      "old_values": self.values + 0.5 * draw(),
      "returns": draw(),
      "weight": jnp.array([[0.5], [2.0]]),
    }

  def loss(self, outputs=None, kl_coef=0.7, **changes):
    objective = ppo_losses.policy_objective(
      None, bigram.config(**changes), jnp.float32(kl_coef)
    )
    if outputs is None:
      outputs = ppo_batch.PolicyOutputs(
        self.new, self.new, jnp.abs(self.values), self.values
      )
    return objective.loss(outputs, self.batch, ())

  def total(self, per_token):
    weight = np.asarray(self.batch["weight"])[..., None]
    counted = np.asarray(self.batch["counted"])
    return np.sum(np.where(counted, per_token * weight, 0.0))

  def arrays(self):
    return {k: np.asarray(v, np.float64) for k, v in self.batch.items()}

  def test_the_upper_range_may_be_wider(self):
    b = self.arrays()
    ratio = np.exp(np.asarray(self.new, np.float64) - b["old_log_probs"])
    clip = np.maximum(
      -ratio * b["advantages"], -np.clip(ratio, 0.9, 1.3) * b["advantages"]
    )
    policy = dict(clip_eps=0.1, clip_eps_high=0.3)
    got, _ = self.loss(policy=policy)
    np.testing.assert_allclose(got, self.total(clip), rtol=1e-5)
    even, _ = self.loss(policy=dict(clip_eps=0.1))
    self.assertGreater(abs(float(got - even)), 1e-4)

  def test_terms_add_up(self):
    b = self.arrays()
    ratio = np.exp(np.asarray(self.new, np.float64) - b["old_log_probs"])
    clip = np.maximum(
      -ratio * b["advantages"], -np.clip(ratio, 0.8, 1.2) * b["advantages"]
    )
    plain, metrics = self.loss()
    np.testing.assert_allclose(plain, self.total(clip), rtol=1e-5)
    counted = b["counted"].astype(bool)
    np.testing.assert_allclose(metrics["train/policy_loss"][1], 3)
    np.testing.assert_allclose(
      metrics["train/entropy"][0],
      -np.asarray(self.new)[counted].sum(),
      rtol=1e-5,
    )
    drift = np.asarray(self.new, np.float64) - b["ref_log_probs"]
    with_kl, _ = self.loss(kl=dict(place="loss", estimator="k2"))
    np.testing.assert_allclose(
      with_kl, self.total(clip + 0.7 * 0.5 * drift**2), rtol=1e-5
    )
    bonus, _ = self.loss(policy=dict(entropy_coef=0.1))
    np.testing.assert_allclose(
      bonus, self.total(clip - 0.1 * np.abs(self.values)), rtol=1e-5
    )
    corrected, _ = self.loss(policy=dict(importance_limit=2.0))
    np.testing.assert_allclose(
      corrected, self.total(clip * b["importance"]), rtol=1e-5
    )
    shared, metrics = self.loss(critic=dict(kind="shared", coef=0.5, clip=0.2))
    v = np.asarray(self.values, np.float64)
    held = np.clip(v, b["old_values"] - 0.2, b["old_values"] + 0.2)
    errors = 0.5 * np.maximum(
      (v - b["returns"]) ** 2, (held - b["returns"]) ** 2
    )
    np.testing.assert_allclose(
      shared, self.total(clip + 0.5 * errors), rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics["train/value_loss"][0], errors[counted].sum(), rtol=1e-5
    )

  def test_a_nan_under_the_mask_reaches_no_gradient(self):
    counted = self.batch["counted"]

    def loss(x):
      outputs = ppo_batch.PolicyOutputs(
        jnp.where(counted, x, jnp.nan),
        x,
        jnp.where(counted, x, jnp.nan),
        jnp.where(counted, x, jnp.nan),
      )
      return self.loss(
        outputs,
        policy=dict(entropy_coef=0.1),
        critic=dict(kind="shared", coef=0.5),
        kl=dict(place="loss", estimator="k3"),
      )[0]

    self.batch["ref_log_probs"] = jnp.where(
      counted, self.batch["ref_log_probs"], jnp.nan
    )
    value, slope = jax.value_and_grad(loss)(self.new)
    self.assertTrue(np.isfinite(value))
    self.assertTrue(np.isfinite(slope).all())
    np.testing.assert_array_equal(
      np.where(np.asarray(counted), 0.0, slope), 0.0
    )

  @parameterized.parameters(None, 0.2)
  def test_the_critic_of_its_own(self, clip):
    cfg = bigram.config(critic=dict(clip=clip))
    objective = ppo_losses.value_objective(None, cfg)
    loss, metrics = objective.loss(self.values, self.batch, ())
    errors = ppo_losses.value_losses(self.values, self.batch, cfg.critic)
    np.testing.assert_allclose(loss, self.total(np.asarray(errors)), rtol=1e-5)
    np.testing.assert_allclose(metrics["train/value_loss"][1], 3)


if __name__ == "__main__":
  absltest.main()
