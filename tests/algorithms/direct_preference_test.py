"""Implicit rewards and their rows against NumPy, in any layout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import (
  bradley_terry,
  denoised,
  group_dro,
  mixture,
  more,
  row_loss,
  update,
)
from jaxalign.algorithms import direct_preference as direct
from tests import references

B, T, V, D, U = 8, 6, 11, 3, 4
PLAIN = bradley_terry.PLAIN
VOTES = dataclasses.replace(PLAIN, labels="votes")
FLIPS = dataclasses.replace(PLAIN, flip_rate=0.2, margin="column")
DENOISED = dataclasses.replace(
  PLAIN, denoise=denoised.DenoiseConfig("smooth_margin")
)
EM = direct.EmDpoConfig(
  "em_dpo", num_components=2, num_users=U, steps_per_round=1, beta=0.3
)
CASES = {
  "dpo": (direct.DpoConfig("dpo", beta=0.3), PLAIN),
  "dpo_votes": (direct.DpoConfig("dpo", beta=0.3, average=True), VOTES),
  "dpo_flips": (direct.DpoConfig("dpo", beta=0.3), FLIPS),
  "dpo_denoised": (direct.DpoConfig("dpo", beta=0.3), DENOISED),
  "robust_dpo": (direct.RobustDpoConfig("robust_dpo", beta=0.3), FLIPS),
  "ipo": (direct.IpoConfig("ipo", beta=0.3, average=True), PLAIN),
  "ipo_votes": (direct.IpoConfig("ipo", beta=0.3), VOTES),
  "simpo": (direct.SimpoConfig("simpo", beta=2.0, gamma=0.7), PLAIN),
  "em_dpo": (EM, VOTES),
}


class DirectPreferenceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, 3, size=(B, 2, 1))
    lengths = rng.integers(3, T + 1, size=(B, 2, 1))
    place = np.arange(T)
    where = np.ones(B, bool)
    where[5] = False
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(place < lengths),
      "response": jnp.array((place >= prompts) & (place < lengths)),
      "ref_log_probs": jnp.array(rng.normal(size=(B, 2))),
      "where": jnp.array(where),
      "chosen_prob": jnp.array(rng.uniform(size=B)),
      "margin": jnp.array(rng.normal(size=B)),
      "annotator": jnp.array(rng.integers(-1, U, B), jnp.int32),
      "source": jnp.array(np.arange(B) % 2, jnp.int32),
      "group": jnp.array(np.arange(B) % 2, jnp.int32),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    self.table = jnp.array(rng.normal(size=(2, V, D)))
    self.share = rng.dirichlet(np.ones(2), U)

  def read(self, params, batch, gain=None):
    """Log-linear policies: a token's is the sum of its row times the gain."""
    counted = direct.answer_tokens(batch)[..., None]
    of = lambda table: jnp.sum(
      jnp.where(counted, table[batch["tokens"][..., 1:]], 0.0), axis=2
    )
    features = of(params["table"][0])
    tables = params["table"][: params["number"].size]
    gain = jnp.ones(D) if gain is None else gain
    log_probs = [jnp.sum(of(table) * gain[None, None], -1) for table in tables]
    return direct.Likelihood(jnp.stack(log_probs, -1), features)

  def made(self, name, coupling=None, **read):
    config, loss = CASES[name]
    rows = config.rows(loss)
    if name == "em_dpo":
      rows = rows._replace(carry=mixture.start(jnp.array(self.share)))
    params = {"table": self.table, "number": jnp.zeros(rows.num_outputs)}
    forward = direct.pair_forward(
      lambda p, b: self.read(p, b, **read), config.reward
    )
    made = (
      row_loss.mean(rows)
      if coupling is None
      else coupling.couple(rows, batch_size=B, num_features=D)
    )
    return row_loss.couple(forward, rows, made), params

  def by_hand(self, name):
    """Losses [B] and rewards [B, 2, H], by NumPy."""
    config, loss = CASES[name]
    b = jax.tree.map(np.asarray, self.batch)
    counted = b["response"][..., 1:]
    values = np.asarray(self.table).sum(-1)[:, b["tokens"][..., 1:]]
    log_probs = np.where(counted, values, 0).sum(-1)  # [2, B, R]
    ratio = log_probs - (0 if name == "simpo" else b["ref_log_probs"])
    if config.reward.average:
      ratio = ratio / counted.sum(-1)
    rewards = np.moveaxis(config.beta * ratio, 0, -1)
    margin = b["margin"] if loss.uses_margin else np.zeros(B)
    soft = name.endswith(("votes", "denoised")) or name == "em_dpo"
    prob = b["chosen_prob"] if soft else np.ones(B)
    each = []
    for k in range(2):
      c, r = rewards[:, 0, k], rewards[:, 1, k]
      if name == "robust_dpo":
        each.append(references.robust_preference_loss(c, r, 0.2, margin))
      elif name.startswith("ipo"):
        each.append(references.ipo_loss(c, r, 0.3, prob, margin))
      else:
        prob = np.full(B, 0.8) if name == "dpo_flips" else prob
        shift = 0.7 if name == "simpo" else 0.0
        each.append(references.soft_preference_loss(c - shift, r, prob, margin))
    if name == "em_dpo":
      user = b["annotator"]
      gamma = np.where(
        (user >= 0)[:, None], self.share[user], self.share.mean(0)
      )
      return (gamma * np.stack(each, -1)).sum(-1), rewards
    return each[0], rewards[..., :1]

  def test_policies_of_latent_groups_have_no_heads(self):
    with self.assertRaisesRegex(ValueError, "separate must be True in recipe"):
      direct.EmDpoConfig(
        "em_dpo", num_components=2, steps_per_round=1, separate=False
      )

  @parameterized.parameters(*CASES)
  def test_loss_matches_reference_however_the_batch_is_split(self, name):
    objective, params = self.made(name)
    losses, rewards = self.by_hand(name)
    where = np.asarray(self.batch["where"])
    outputs = objective.forward(params, self.batch)
    np.testing.assert_allclose(
      np.stack([outputs.chosen, outputs.rejected], 1)[where],
      rewards[where],
      rtol=1e-11,
    )
    found = [
      jax.jit(update.make_gradient(objective, accumulation=number))(
        params, self.batch, objective.carry
      )
      for number in (1, 2)
    ]
    for one in found:
      np.testing.assert_allclose(one.loss, losses[where].mean(), rtol=1e-6)
    np.testing.assert_allclose(
      found[1].gradient["table"], found[0].gradient["table"], atol=1e-12
    )
    self.assertGreater(np.abs(found[0].gradient["table"]).max(), 1e-3)

  @parameterized.parameters("dpo", "ipo_votes", "simpo", "em_dpo")
  def test_garbage_in_rows_that_do_not_count(self, name):
    objective, params = self.made(name)
    compute = jax.jit(update.make_gradient(objective))
    want = compute(params, self.batch, objective.carry)
    dirty = dict(self.batch)
    for key in ("ref_log_probs", "margin", "chosen_prob"):
      dirty[key] = dirty[key].at[5].set(jnp.nan)
    got = compute(params, dirty, objective.carry)
    np.testing.assert_array_equal(got.loss, want.loss)
    np.testing.assert_array_equal(got.gradient["table"], want.gradient["table"])

  @parameterized.parameters("dpo", "dpo_votes", "ipo", "robust_dpo", "simpo")
  def test_source_gradients_are_those_in_the_gain(self, name):
    coupling = more.MoreConfig("more", num_sources=2, decay=None)
    objective, params = self.made(name, coupling)
    outputs = objective.forward(params, self.batch)
    sums = objective.statistics(outputs, self.batch)
    config, loss = CASES[name]

    def source_losses(gain):
      moved, _ = self.made(name, coupling, gain=gain)
      out = moved.forward(params, self.batch)
      each = config.rows(loss).losses(out, self.batch)
      own = jax.nn.one_hot(self.batch["source"], 2, axis=0) == 1
      own = own & self.batch["where"][None]
      return jnp.sum(jnp.where(own, each[None], 0.0), axis=1)

    want = jax.jacobian(source_losses)(jnp.ones(D))
    np.testing.assert_allclose(sums.gradients[0], want, rtol=1e-6, atol=1e-9)

  def test_groups_are_weighed_by_their_loss(self):
    coupling = group_dro.GroupDroConfig(
      "group_dro", num_groups=2, step_size=0.5
    )
    objective, params = self.made("ipo", coupling)
    losses, _ = self.by_hand("ipo")
    where, group = (np.asarray(self.batch[k]) for k in ("where", "group"))
    means = np.array([losses[where & (group == g)].mean() for g in range(2)])
    weights = np.exp(0.5 * means) / np.exp(0.5 * means).sum()
    got = update.make_gradient(objective)(params, self.batch, objective.carry)
    np.testing.assert_allclose(got.loss, weights @ means, rtol=1e-6)

  def test_metrics_tell_the_responses_apart(self):
    objective, params = self.made("dpo")
    got = update.make_gradient(objective)(params, self.batch, objective.carry)
    _, rewards = self.by_hand("dpo")
    where = np.asarray(self.batch["where"])
    for side, name in enumerate(("chosen", "rejected")):
      total, count = got.metrics[f"train/{name}_reward"]
      np.testing.assert_allclose(
        total / count, rewards[where, side, 0].mean(), rtol=1e-6
      )

  def test_errors(self):
    for make in (
      lambda: direct.DpoConfig("dpo", beta=0.0),
      lambda: direct.IpoConfig("ipo", beta=0.0),
      lambda: direct.RobustDpoConfig("robust_dpo", beta=0.0),
      lambda: direct.SimpoConfig("simpo", beta=0.0),
      lambda: dataclasses.replace(EM, beta=0.0),
    ):
      with self.assertRaisesRegex(ValueError, "beta must be > 0, got 0"):
        make()
    with self.assertRaisesRegex(ValueError, "gamma must be >= 0, got -1"):
      direct.SimpoConfig("simpo", gamma=-1.0)
    with self.assertRaisesRegex(ValueError, "hard labels by loss.flip_rate"):
      direct.RobustDpoConfig("robust_dpo").rows(VOTES)
    with self.assertRaisesRegex(ValueError, "centering must be 0, got 0.1"):
      direct.IpoConfig("ipo").rows(dataclasses.replace(PLAIN, centering=0.1))


if __name__ == "__main__":
  absltest.main()
