"""Which of a policy's own answers make a pair, and what the pair weighs."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import online_dpo

R, G, N = 3, 3, 2


class PairsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    draw = lambda: jnp.array(-rng.uniform(0, 2, (R, G, N)), jnp.float32)
    self.experience = {
      "old_log_probs": draw(),
      "ref_log_probs": draw(),
      "counted": jnp.ones((R, G, N), jnp.bool_),
    }
    self.scores = jnp.array(
      [
        [[1.0, 0.0], [3.0, 0.0], [2.0, 0.0]],  # the second group is indifferent
        [[0.0, 9.0], [5.0, 7.0], [4.0, 8.0]],
        [[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]],  # does not count
      ]
    )
    self.where = jnp.array([True, True, False])

  def label(self):
    return online_dpo.label_pairs(
      self.experience, self.scores, where=self.where, beta=0.3
    )

  def dpo(self, log_probs, r, chosen, rejected):
    gap = np.sum(log_probs - self.experience["ref_log_probs"], axis=-1)[r]
    return np.log1p(np.exp(-0.3 * (gap[chosen] - gap[rejected])))

  def test_best_against_worst_of_each_group(self):
    pairs, fit, metrics = self.label()
    np.testing.assert_array_equal(pairs["chosen"][:2], [[1, 0], [1, 0]])
    np.testing.assert_array_equal(pairs["rejected"][0, 0], 0)
    np.testing.assert_array_equal(pairs["rejected"][1], [0, 1])
    np.testing.assert_allclose(
      pairs["pair_weight"], [[0.5, 0.0], [0.5, 1.0], [0.0, 0.0]]
    )
    np.testing.assert_allclose(metrics["train/pair_share"], 0.75)
    old = np.asarray(self.experience["old_log_probs"])
    first = (self.dpo(old, 0, 1, 0) + self.dpo(old, 1, 1, 0)) / 2
    np.testing.assert_allclose(fit, [first, self.dpo(old, 1, 0, 1)], rtol=1e-5)

  def test_the_loss_is_the_weighted_mean(self):
    pairs, fit, _ = self.label()
    objective = online_dpo.preference_objective(
      lambda params, batch: params, beta=0.3
    )
    batch = self.experience | pairs
    at = self.experience["old_log_probs"]
    loss, metrics = objective.loss(objective.forward(at, batch), batch, ())
    np.testing.assert_allclose(loss, jnp.sum(fit), rtol=1e-5)
    np.testing.assert_allclose(metrics["train/approx_kl"][0], 0.0, atol=1e-6)
    slope = jax.grad(
      lambda x: objective.loss(objective.forward(x, batch), batch, ())[0]
    )(at)
    # Descent raises what a group likes best; the row under the mask is still.
    self.assertLess(float(slope[0, 1, 0]), 0.0)
    self.assertGreater(float(slope[0, 0, 0]), 0.0)
    np.testing.assert_array_equal(slope[2], 0.0)


if __name__ == "__main__":
  absltest.main()
