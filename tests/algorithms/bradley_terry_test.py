"""Bradley-Terry on pairs through the two-phase update, against NumPy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import bradley_terry, update

B, T, V = 6, 5, 7


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """Mean embedding over attended tokens, optionally scaled per row."""
  values = jnp.where(mask, params["table"][tokens], 0.0)
  mean = values.sum(-1) / jnp.maximum(mask.sum(-1), 1)
  if dropout_keys is not None:
    mean = mean * jax.vmap(lambda k: jax.random.uniform(k, (), mean.dtype))(
      dropout_keys
    )
  return Output(mean[:, None], mean[:, None])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


class BradleyTerryTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {"table": jnp.array(rng.normal(size=V))}
    lengths = rng.integers(1, T + 1, size=(B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array([True, True, False, True, True, True]),
      "chosen_prob": jnp.array(rng.uniform(size=B), jnp.float32),
      "margin": jnp.array(rng.uniform(size=B), jnp.float32),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    table = np.array(self.params["table"])
    mask = np.array(self.batch["mask"])
    values = np.where(mask, table[np.array(self.batch["tokens"])], 0.0)
    rewards = values.sum(-1) / mask.sum(-1)
    self.where = np.array(self.batch["where"])
    self.chosen, self.rejected = rewards[:, 0], rewards[:, 1]

  def config(self, **changes):
    base = {"labels": "hard", "flip_rate": 0.0, "margin": None, "centering": 0}
    return bradley_terry.PairLossConfig(**base | changes)

  def loss(self, batch=None, *, dropout=False, **changes):
    objective = bradley_terry.bradley_terry(
      apply, self.config(**changes), dropout=dropout
    )
    batch = self.batch if batch is None else batch
    batch = batch | {"key": update.row_keys(jax.random.key(3), batch["row"])}
    gradient = update.make_gradient(objective, accumulation=2)
    return gradient(self.params, batch, ())[:3]

  def reference(self, *, flip_rate=0.0, margin=0.0, prob=None, centering=0.0):
    gap = self.chosen - self.rejected - margin
    right = 1 - flip_rate if prob is None else prob
    per_pair = -right * np.log(sigmoid(gap)) - (1 - right) * np.log(
      sigmoid(-gap)
    )
    per_pair += centering * (self.chosen + self.rejected) ** 2
    return per_pair[self.where].mean()

  def test_plain_loss_and_reported_means(self):
    _, loss, report = self.loss()
    np.testing.assert_allclose(loss, self.reference(), rtol=1e-12)
    means = {k: total / count for k, (total, count) in report.items()}
    gap = (self.chosen - self.rejected)[self.where]
    np.testing.assert_allclose(means["train/nll"], loss, rtol=1e-12)
    np.testing.assert_allclose(means["train/accuracy"], np.mean(gap > 0))
    np.testing.assert_allclose(means["train/reward_gap"], gap.mean())
    np.testing.assert_allclose(
      means["train/reward_mean"],
      ((self.chosen + self.rejected) / 2)[self.where].mean(),
    )

  def test_every_option_enters_the_loss(self):
    margin = np.array(self.batch["margin"], np.float64)
    prob = np.array(self.batch["chosen_prob"], np.float64)
    for changes, reference in (
      ({"flip_rate": 0.1}, {"flip_rate": 0.1}),
      ({"margin": "column"}, {"margin": margin}),
      ({"labels": "votes"}, {"prob": prob}),
      ({"centering": 0.3}, {"centering": 0.3}),
      (
        {"labels": "votes", "margin": "column", "centering": 0.2},
        {"prob": prob, "margin": margin, "centering": 0.2},
      ),
    ):
      with self.subTest(**changes):
        _, loss, report = self.loss(**changes)
        np.testing.assert_allclose(loss, self.reference(**reference), rtol=1e-6)
        # The plain figures do not move with the training loss.
        total, count = report["train/nll"]
        np.testing.assert_allclose(total / count, self.reference())

  def test_rows_out_of_count_leak_into_neither_loss_nor_gradient(self):
    grads, loss, _ = self.loss()
    garbage = self.batch | {
      "mask": self.batch["mask"].at[2].set(False),
      "margin": self.batch["margin"].at[2].set(jnp.nan),
    }
    other_grads, other, _ = self.loss(garbage)
    np.testing.assert_array_equal(loss, other)
    np.testing.assert_array_equal(grads["table"], other_grads["table"])

  def test_a_batch_without_pairs_has_zero_gradient(self):
    nothing = self.batch | {"where": jnp.zeros(B, bool)}
    grads, loss, _ = self.loss(nothing)
    self.assertEqual(float(loss), 0.0)
    np.testing.assert_array_equal(grads["table"], np.zeros(V))

  def test_dropout_draws_anew_for_both_responses(self):
    same = self.batch | {
      "tokens": self.batch["tokens"].at[:, 1].set(self.batch["tokens"][:, 0]),
      "mask": self.batch["mask"].at[:, 1].set(self.batch["mask"][:, 0]),
    }
    _, _, plain = self.loss(same)
    _, _, dropped = self.loss(same, dropout=True)
    self.assertEqual(float(plain["train/reward_gap"][0]), 0.0)
    self.assertNotEqual(float(dropped["train/reward_gap"][0]), 0.0)

  def test_score_is_each_responses_reward(self):
    rewards = bradley_terry.make_score(apply)(self.params, self.batch)
    self.assertEqual(rewards.shape, (B, 2, 1))
    np.testing.assert_allclose(rewards[:, 0, 0], self.chosen, rtol=1e-12)
    np.testing.assert_allclose(rewards[:, 1, 0], self.rejected, rtol=1e-12)

  @parameterized.parameters(
    ({"labels": "soft"}, "labels must be one of"),
    ({"margin": "strength"}, "margin must be one of"),
    ({"flip_rate": 0.5}, "flip_rate must be in"),
    ({"labels": "votes", "flip_rate": 0.1}, "votes already say"),
    ({"centering": -1.0}, "centering must be >= 0"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      self.config(**changes)


if __name__ == "__main__":
  absltest.main()
