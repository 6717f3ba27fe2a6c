"""The gate of ArmoRM by hand; folders are in the test of its source."""

import numpy as np
from absl.testing import absltest

from jaxalign.models.hf import gated


class GateTest(absltest.TestCase):
  def test_a_score_is_a_weighted_sum_of_transformed_rewards(self):
    kernel = np.array([[1.0, -1.0], [0.0, 2.0]])
    bias = np.array([0.5, 0.0])
    last = np.array([[1.0, 0.0], [0.0, 1.0]])
    transform = np.array([[1.0, 0.0], [-0.5, 1.0]])
    layers = ((kernel, bias), (last, np.zeros(2)))
    gate = gated.Gate(layers, 2.0, 4.0, transform)
    rewards = np.array([[3.0, 1.0], [3.0, 1.0]])
    features = np.array([[1.0, 1.0], [-2.0, 0.0]])
    # ReLU of (1.5, 1) and of (-1.5, 2), over a temperature of 4.
    logits = np.array([[1.5, 1.0], [0.0, 2.0]]) / 4
    weights = 2 * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(
      gate(rewards, features), (weights * [2.5, 1.0]).sum(1), rtol=1e-12
    )

  def test_the_config_without_its_gate(self):
    theirs = {
      "architectures": [gated.ARCHITECTURE],
      "auto_map": {},
      "gating_temperature": 10,
      "hidden_size": 4,
    }
    self.assertTrue(gated.is_gated(theirs))
    plain = gated.plain(theirs)
    self.assertFalse(gated.is_gated(plain))
    self.assertEqual({*plain}, {"architectures", "hidden_size"})
    self.assertTrue(gated.belongs("gating.layers.0.weight"))
    self.assertFalse(gated.belongs("model.norm.weight"))


if __name__ == "__main__":
  absltest.main()
