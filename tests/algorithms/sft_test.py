"""The answer loss against NumPy: which tokens count, and their mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from jaxalign.algorithms import sft, train_state
from jaxalign.algorithms import update as contract

TEXTS = np.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
ANSWERS = np.array(
  [[0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]], bool
)


def batch():
  return {
    "segment_ids": jnp.asarray(TEXTS),
    "loss_mask": jnp.asarray(ANSWERS),
    "where": jnp.array([True, True, False]),
    "row": jnp.arange(3),
    "values": jnp.asarray(np.random.default_rng(0).normal(size=(3, 5))),
  }


def log_probs(params, batch):
  return params["scale"] * batch["values"]


class AnswerLikelihoodTest(absltest.TestCase):
  def test_which_tokens_count(self):
    np.testing.assert_array_equal(
      sft.counted_targets(batch()),
      # Token 3 of the first row begins a text; the third row fills up.
      np.array([[1, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], bool),
    )

  def test_equals_the_mean_over_the_tokens_of_the_batch(self):
    self.enter_context(jax.enable_x64(True))
    made = batch()
    params = {"scale": jnp.array(2.0)}
    gradient = contract.make_gradient(sft.answer_likelihood(log_probs))
    grads, loss, metrics, *_ = gradient(params, made, ())
    counted = np.asarray(sft.counted_targets(made))
    mean = np.asarray(made["values"])[counted].mean()
    np.testing.assert_allclose(loss, -2 * mean, rtol=1e-6)
    np.testing.assert_allclose(grads["scale"], -mean, rtol=1e-6)
    total, count = metrics["train/nll"]
    np.testing.assert_allclose(float(total) / float(count), loss, rtol=1e-6)

  def test_accumulation_changes_nothing(self):
    made = {k: jnp.concatenate([v, v[::-1]]) for k, v in batch().items()}
    params = {"scale": jnp.array(1.5)}
    objective = sft.answer_likelihood(log_probs)
    whole = contract.make_gradient(objective)(params, made, ())
    parts = contract.make_gradient(objective, accumulation=3)(params, made, ())
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts
    )

  def test_what_does_not_count_is_not_read(self):
    made = batch()
    garbage = jnp.where(sft.counted_targets(made), made["values"], jnp.nan)
    params = {"scale": jnp.array(2.0)}
    gradient = contract.make_gradient(sft.answer_likelihood(log_probs))
    clean = gradient(params, made, ())
    dirty = gradient(params, made | {"values": garbage}, ())
    np.testing.assert_allclose(dirty.loss, clean.loss)

  def test_a_batch_without_answers_is_zero(self):
    made = batch() | {"loss_mask": jnp.zeros((3, 6), bool)}
    params = {"scale": jnp.array(2.0)}
    optimizer = optax.sgd(1.0)
    update = contract.make_update(sft.answer_likelihood(log_probs), optimizer)
    state, metrics = update(
      train_state.init_state(params, optimizer), made, jax.random.key(0)
    )
    self.assertEqual(float(metrics["train/loss"]), 0.0)
    self.assertEqual(float(state.params["scale"]), 2.0)


if __name__ == "__main__":
  absltest.main()
