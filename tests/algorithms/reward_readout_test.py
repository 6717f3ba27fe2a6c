"""Outputs read as rewards: means, tails and spreads against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from absl.testing import absltest, parameterized

from jaxalign.algorithms import reward_readout

UTILITIES = (1.0, 0.5, -1.0)


class ReadoutTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.logits = np.random.default_rng(0).normal(size=(4, 2, 3))

  def test_plain_rewards_are_the_outputs(self):
    outputs = jnp.asarray(self.logits)
    np.testing.assert_array_equal(reward_readout.PLAIN(outputs), outputs)
    self.assertEqual(reward_readout.PLAIN.num_rewards(3), 3)

  def test_labels(self):
    probs = np.exp(self.logits)
    probs /= probs.sum(-1, keepdims=True)
    mean = probs @ UTILITIES
    std = np.sqrt(probs @ np.square(UTILITIES) - mean**2)
    for options, expected in (
      ({}, mean),
      ({"risk": "mean_std", "kappa": 0.7}, mean - 0.7 * std),
      ({"risk": "cvar", "alpha": 1.0}, mean),
    ):
      read = reward_readout.Readout("labels", UTILITIES, **options)
      got = jax.jit(read)(self.logits)
      self.assertEqual(got.shape, (4, 2, 1))
      np.testing.assert_allclose(got[..., 0], expected, rtol=1e-12)
      self.assertEqual(read.num_rewards(3), 1)

  def test_the_tail_of_labels_is_the_worst_label(self):
    logits = jnp.log(jnp.array([0.2, 0.3, 0.5]))
    read = reward_readout.Readout("labels", UTILITIES, risk="cvar", alpha=0.75)
    np.testing.assert_allclose(read(logits)[0], (-0.5 + 0.25 * 0.5) / 0.75)

  def test_label_shares_stand_behind_the_reward(self):
    read = reward_readout.Readout("labels", UTILITIES, "mean_std", kappa=0.7)
    both = reward_readout.with_parts(read)
    self.assertEqual(both.num_rewards(3), 4)
    got = jax.jit(both)(self.logits)
    np.testing.assert_allclose(got[..., :1], read(self.logits), rtol=1e-12)
    np.testing.assert_allclose(
      got[..., 1:], jax.nn.softmax(self.logits), rtol=1e-12
    )
    self.assertIs(
      reward_readout.with_parts(reward_readout.PLAIN), reward_readout.PLAIN
    )
    with self.assertRaisesRegex(ValueError, "no labels in a 'rewards' readout"):
      reward_readout.WithLabels(reward_readout.PLAIN)

  def test_factors_stand_behind_the_reward_that_people_share(self):
    out = self.logits
    for kind, expected in (
      ("low_rank", out[..., 0]),
      ("ideal_points", out[..., 0] - (out[..., 1:] ** 2).sum(-1) / 2),
    ):
      read = reward_readout.Readout(kind)
      self.assertEqual((read.num_rewards(3), read.num_factors(3)), (1, 2))
      both = reward_readout.with_parts(read)
      self.assertEqual(both.num_rewards(3), 3)
      got = jax.jit(both)(out)
      np.testing.assert_allclose(got[..., 0], expected, rtol=1e-12)
      np.testing.assert_array_equal(got[..., 1:], out[..., 1:])
      np.testing.assert_allclose(read(out)[..., 0], expected, rtol=1e-12)
      with self.assertRaisesRegex(ValueError, f"{kind}.* must have 2 outputs"):
        read.num_rewards(1)
      with self.assertRaisesRegex(ValueError, f"'mean' with kind='{kind}'"):
        reward_readout.Readout(kind, risk="cvar", alpha=0.1)
    # A point of one's own: the nearer, the better, but for what all share.
    own = np.array([0.3, -1.2])
    away = ((out[..., 1:] - own) ** 2).sum(-1) / 2
    mine = expected + out[..., 1:] @ own
    np.testing.assert_allclose(mine, out[..., 0] - away + own @ own / 2)
    self.assertEqual(reward_readout.PLAIN.num_factors(3), 0)
    with self.assertRaisesRegex(ValueError, "no factors in a 'rewards'"):
      reward_readout.WithFactors(reward_readout.PLAIN)

  def test_a_normal(self):
    mean, log_std = self.logits[..., 0], self.logits[..., 1]
    std = np.exp(log_std)
    tail = std * scipy.stats.norm.pdf(scipy.stats.norm.ppf(0.3)) / 0.3
    for options, expected in (
      ({}, mean),
      ({"risk": "mean_std", "kappa": 2.0}, mean - 2 * std),
      ({"risk": "cvar", "alpha": 0.3}, mean - tail),
      ({"risk": "cvar", "alpha": 1.0}, mean),
    ):
      read = reward_readout.Readout("mean_variance", **options)
      got = read(jnp.asarray(self.logits[..., :2]))[..., 0]
      np.testing.assert_allclose(got, expected, rtol=1e-12)

  @parameterized.parameters(
    ({"kind": "ranks"}, "kind must be one of .*'ranks'"),
    ({"kind": "labels"}, "utilities go with kind='labels' alone, got None"),
    ({"utilities": UTILITIES}, "utilities go with kind='labels' alone"),
    ({"risk": "cvar", "alpha": 0.1}, "risk must be 'mean' with kind='rewards'"),
    ({"kind": "mean_variance", "risk": "cvar"}, "alpha goes with risk='cvar'"),
    ({"kind": "mean_variance", "kappa": 1.0}, "kappa goes with risk='mean_std"),
    (
      {"kind": "mean_variance", "risk": "cvar", "alpha": 0.0},
      "alpha must be in",
    ),
    (
      {"kind": "mean_variance", "risk": "mean_std", "kappa": -1.0},
      "kappa must be >= 0",
    ),
  )
  def test_refuses(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      reward_readout.Readout(**options)

  def test_the_number_of_outputs_must_fit(self):
    with self.assertRaisesRegex(ValueError, "must have 2 outputs, got 1"):
      reward_readout.Readout("mean_variance").num_rewards(1)
    with self.assertRaisesRegex(ValueError, "must have 3 outputs, got 6"):
      reward_readout.Readout("labels", UTILITIES).num_rewards(6)


if __name__ == "__main__":
  absltest.main()
