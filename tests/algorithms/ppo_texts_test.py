"""PPO-ptx against sums in NumPy: its loss, gradient, masks and weights."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import ppo, ppo_texts, update
from tests import transforms
from tests.algorithms import bigram, policy_reference


def reference_nll(table, batch):
  """Mean surprise per answer token of packed rows, by loops, float64."""
  logs = policy_reference.log_softmax(np.asarray(table, np.float64))
  total, number = 0.0, 0
  names = ("tokens", "segment_ids", "loss_mask", "where")
  arrays = {name: np.asarray(batch[f"text_{name}"]) for name in names}
  for row in range(len(arrays["tokens"])):
    if not arrays["where"][row]:
      continue
    for t in range(1, arrays["tokens"].shape[1]):
      text = arrays["segment_ids"][row]
      if text[t] == 0 or text[t] != text[t - 1]:
        continue
      if arrays["loss_mask"][row, t]:
        tokens = arrays["tokens"][row]
        total -= logs[tokens[t - 1], tokens[t]]
        number += 1
  return total / number, number


class PpoTextsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.batch = bigram.batch() | bigram.texts()
    self.table = bigram.params()[0]["table"]

  def loss(self, table, batch, coef=0.7, minibatches=1):
    ready = ppo_texts.weighted(batch, minibatches=minibatches)
    plain = update.Objective(
      lambda params, batch: jnp.zeros(()),
      lambda outputs, batch: (),
      lambda outputs, batch, context: (outputs, {}),
    )
    objective = ppo_texts.beside(plain, bigram.text_log_probs, coef=coef)
    outputs = objective.forward({"table": table}, ready)
    return objective.loss(outputs, ready, ())

  def test_is_the_mean_over_answer_tokens(self):
    want, number = reference_nll(self.table, self.batch)
    got, metrics = self.loss(self.table, self.batch)
    np.testing.assert_allclose(got, 0.7 * want, rtol=1e-12)
    total, count = metrics["train/text_nll"]
    self.assertEqual(int(count), number)
    np.testing.assert_allclose(total / count, want, rtol=1e-12)

  def test_gradient_is_that_of_the_reference(self):
    want = policy_reference.slope(
      lambda table: 0.7 * reference_nll(table, self.batch)[0], self.table
    )
    got = jax.grad(lambda table: self.loss(table, self.batch)[0])(self.table)
    np.testing.assert_allclose(got, want, atol=1e-8)
    transforms.assert_second_order(
      lambda table: self.loss(table, self.batch)[0], self.table
    )

  def test_rows_may_come_in_any_order_and_padding_hold_anything(self):
    want, _ = self.loss(self.table, self.batch)
    order = np.random.default_rng(0).permutation(8)
    moved = {
      k: v[order] if k.startswith("text_") else v for k, v in self.batch.items()
    }
    np.testing.assert_allclose(self.loss(self.table, moved)[0], want)
    dirty = dict(self.batch)
    kept = self.batch["text_mask"] & self.batch["text_where"][:, None]
    dirty["text_tokens"] = jnp.where(kept, self.batch["text_tokens"], 4)
    of = jax.value_and_grad(lambda t, b: self.loss(t, b)[0])
    for a, b in zip(
      of(self.table, dirty), of(self.table, self.batch), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=1e-12)

  def test_minibatches_add_up(self):
    whole, _ = self.loss(self.table, self.batch)
    ready = ppo_texts.weighted(self.batch, minibatches=4)
    parts = []
    for first in range(0, 8, 2):
      part = {k: v[first : first + 2] for k, v in ready.items()}
      nll = -bigram.text_log_probs(
        {"table": self.table}, ppo_texts.texts_of(part)
      )
      each = jnp.where(part["text_counted"], nll, 0.0).sum(-1)
      parts.append(0.7 * jnp.sum(each * part["text_weight"]))
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-12)

  def test_no_text_at_all_is_0(self):
    self.batch["text_where"] = jnp.zeros(8, bool)
    value, slope = jax.value_and_grad(
      lambda table: self.loss(table, self.batch)[0]
    )(self.table)
    self.assertEqual(float(value), 0.0)
    np.testing.assert_array_equal(slope, 0.0)

  def test_a_step_is_the_policys_and_the_texts(self):
    changes = dict(policy=dict(text_coef=0.7))
    moved = {}
    for name, given in (("with", changes), ("without", {})):
      cfg = bigram.config(**given)
      optimizers = bigram.sgd(1.0)
      start, frozen = bigram.state(cfg, optimizers=optimizers)
      learn = ppo.make_learn(
        bigram.networks(),
        optimizers,
        cfg,
        texts=(lambda p, f, b: bigram.text_log_probs(p, b)) if given else None,
      )
      state, metrics = jax.jit(learn)(
        start, frozen, self.batch, jax.random.key(0)
      )
      moved[name] = state.actor.params["table"]
      self.assertEqual("train/text_nll" in metrics, bool(given))
    slope = jax.grad(lambda table: self.loss(table, self.batch)[0])(self.table)
    np.testing.assert_allclose(
      moved["with"], moved["without"] - slope, atol=1e-12
    )
    with self.assertRaisesRegex(ValueError, "set together"):
      ppo.make_learn(bigram.networks(), optimizers, bigram.config(**changes))

  def test_a_policy_that_is_only_rewarded_forgets_its_texts(self):
    def end(coef):
      cfg = bigram.config(policy=dict(text_coef=coef), kl=dict(coef=0.0))
      optimizers = bigram.sgd(0.5)
      state, frozen = bigram.state(cfg, optimizers=optimizers)
      learn = jax.jit(
        ppo.make_learn(
          bigram.networks(),
          optimizers,
          cfg,
          texts=(lambda p, f, b: bigram.text_log_probs(p, b)) if coef else None,
        )
      )
      for seed in range(60):
        batch = bigram.batch(seed=seed) | bigram.texts()
        state, _ = learn(state, frozen, batch, jax.random.key(seed))
      return reference_nll(state.actor.params["table"], batch)[0]

    before = reference_nll(self.table, self.batch)[0]
    self.assertLess(end(2.0), min(before, end(None)) - 0.1)


class NamesTest(absltest.TestCase):
  def test_names_go_both_ways(self):
    arrays = {name: np.zeros(2) for name in ppo_texts.ARRAYS}
    found = ppo_texts.texts_of(ppo_texts.named(arrays | {"row": 1}))
    self.assertEqual({*found}, {*ppo_texts.ARRAYS})


if __name__ == "__main__":
  absltest.main()
