"""Rewards are a sequence's own: padding and batch mates never move them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from tests.models.samples import GPT2, LLAMA, start

REWARD = dataclasses.replace(LLAMA, num_outputs=3)
EOS = 2  # also the padding id, as in many checkpoints
TEXTS = (
  (5, 6, 7, 8, 9, 10, 11),
  (EOS, EOS, 3, EOS, EOS),
  (4,),
  (EOS,),
  (3, EOS, 12, 13, EOS, 14),
)


def layout(texts, padding, width):
  """Texts as rows of `width` tokens with the padding asked for."""
  tokens = np.full((len(texts), width), EOS, np.int32)
  mask = np.zeros(tokens.shape, bool)
  for row, ids in enumerate(texts):
    spare = width - len(ids)
    start = {"right": 0, "left": spare, "both": spare // 2}[padding]
    tokens[row, start : start + len(ids)] = ids
    mask[row, start : start + len(ids)] = True
  return tokens, mask


class RewardTest(parameterized.TestCase):
  @parameterized.parameters(REWARD, dataclasses.replace(GPT2, num_outputs=3))
  def test_padding_and_batch_mates_change_nothing(self, config):
    model, params = start(config)
    apply = jax.jit(model.apply)
    expected = apply(params, *layout(TEXTS, "right", 12))
    self.assertEqual(expected.rewards.shape, (5, 3))
    self.assertEqual(expected.features.shape, (5, 8))
    self.assertEqual(expected.rewards.dtype, jnp.float32)
    spread = np.abs(np.diff(expected.rewards, axis=0)).max(axis=-1)
    self.assertTrue(np.all(spread > 0.01), "texts must differ to tell anything")
    close = lambda got, want: jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want
    )
    for padding in ("left", "both"):
      close(apply(params, *layout(TEXTS, padding, 12)), expected)
    tokens, mask = layout(TEXTS, "right", 12)
    # What lies under the mask is not read, not even if it is no token.
    close(apply(params, np.where(mask, tokens, -100), mask), expected)
    close(apply(params, *layout(TEXTS, "right", 7)), expected)
    alone = [
      apply(params, tokens[i : i + 1], mask[i : i + 1]) for i in range(5)
    ]
    close(jax.tree.map(lambda *x: jnp.concatenate(x), *alone), expected)
    swapped = apply(params, tokens[::-1], mask[::-1])
    close(jax.tree.map(lambda x: x[::-1], swapped), expected)

  @parameterized.parameters(REWARD, dataclasses.replace(GPT2, num_outputs=3))
  def test_a_row_without_tokens_is_zero_and_harmless(self, config):
    model, params = start(config)
    tokens, mask = layout(TEXTS[:2], "left", 7)

    @jax.jit
    def evaluate(params, mask):
      loss = lambda p: jnp.sum(jnp.cos(model.apply(p, tokens, mask).rewards))
      return model.apply(params, tokens, mask), jax.grad(loss)(params)

    out, grads = evaluate(params, mask & np.array([[True], [False]]))
    np.testing.assert_array_equal(out.rewards[1], np.zeros(3))
    np.testing.assert_array_equal(out.features[1], np.zeros(8))
    self.assertTrue(np.all(out.rewards[0] != 0))
    for grad in jax.tree.leaves(grads):
      self.assertTrue(np.isfinite(grad).all())
    _, grads = evaluate(params, np.zeros_like(mask))
    for grad in jax.tree.leaves(grads):
      self.assertEqual(np.abs(grad).max(), 0)

  @parameterized.parameters(REWARD, dataclasses.replace(GPT2, num_outputs=3))
  def test_the_mean_is_over_the_response(self, config):
    _, params = start(config)
    model = models.reward_model(dataclasses.replace(config, pooling="mean"))
    apply = jax.jit(model.apply)
    # The mean of what a model that reads the last token reads of each prefix.
    last = jax.jit(models.reward_model(config).apply)
    begins = (3, 0, 0, 0, 5)
    wanted = []
    for text, begin in zip(TEXTS, begins, strict=True):
      prefixes = [text[: i + 1] for i in range(begin, len(text))]
      found = last(params, *layout(prefixes, "right", 12)).features
      wanted.append(np.asarray(found, np.float64).mean(0))
    for padding in ("right", "left", "both"):
      tokens, mask = layout(TEXTS, padding, 12)
      place = np.cumsum(mask, axis=1) - 1
      response = place >= np.array(begins)[:, None]  # also under the mask
      out = apply(params, tokens, mask, response=response)
      np.testing.assert_allclose(out.features, wanted, atol=1e-5)
      np.testing.assert_allclose(
        out.rewards, out.features @ params["score"]["kernel"], atol=1e-5
      )
    none = apply(params, tokens, mask, response=np.zeros_like(mask))
    whole = apply(params, tokens, mask, response=mask)
    np.testing.assert_array_equal(none.rewards, whole.rewards)

    def loss(params):
      out = model.apply(params, tokens, mask & False, response=response)
      return jnp.sum(jnp.cos(out.rewards))

    for grad in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
      self.assertEqual(np.abs(grad).max(), 0)

  def test_the_token_before_the_last_is_read_without_it(self):
    config = dataclasses.replace(REWARD, pooling="before_last")
    model, params = start(config)
    shorter = [text[: max(len(text) - 1, 1)] for text in TEXTS]
    plain = dataclasses.replace(REWARD, pooling="last")
    last = models.reward_model(plain).apply
    expected = last(params, *layout(shorter, "right", 12)).features
    for padding in ("right", "left", "both"):
      found = model.apply(params, *layout(TEXTS, padding, 12))
      np.testing.assert_allclose(found.features, expected, atol=1e-5)
    tokens, mask = layout(TEXTS, "right", 12)
    nothing = model.apply(params, tokens, np.zeros_like(mask))
    np.testing.assert_array_equal(nothing.rewards, 0.0)

  def test_a_mean_must_be_told_its_tokens(self):
    model, params = start(dataclasses.replace(REWARD, pooling="mean"))
    inputs = layout(TEXTS, "right", 7)
    with self.assertRaisesRegex(ValueError, "response must mark the tokens"):
      model.apply(params, *inputs)
    with self.assertRaisesRegex(TypeError, "response must be bool"):
      model.apply(params, *inputs, response=np.ones((5, 7), np.int32))
    with self.assertRaisesRegex(ValueError, "shapes must be equal"):
      model.apply(params, *inputs, response=np.ones((5, 6), bool))
    with self.assertRaisesRegex(
      ValueError, "pooling must be one of before_last, last, mean"
    ):
      dataclasses.replace(REWARD, pooling="max")
    with self.assertRaisesRegex(
      ValueError, "pooling belongs to a reward model"
    ):
      dataclasses.replace(LLAMA, pooling="mean")

  def test_rewards_are_features_times_the_head(self):
    model, params = start(REWARD)
    inputs = layout(TEXTS, "right", 7)
    out = jax.jit(model.apply)(params, *inputs)
    np.testing.assert_allclose(
      out.rewards, out.features @ params["score"]["kernel"], atol=1e-6
    )


class LanguageTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_heads_read_hidden(self, tied):
    config = dataclasses.replace(LLAMA, tie_embeddings=tied, value_head=True)
    model, params = start(config)
    tokens, mask = layout(TEXTS, "left", 7)
    out = jax.jit(model.apply)(params, tokens, mask)
    kernel = (
      params["embed"]["tokens"].T if tied else params["lm_head"]["kernel"]
    )
    self.assertEqual(tied, "lm_head" not in params)
    np.testing.assert_allclose(out.logits, out.hidden @ kernel, atol=1e-5)
    np.testing.assert_allclose(
      out.values, out.hidden @ params["value"]["kernel"][:, 0], atol=1e-5
    )
    plain = models.causal_lm(dataclasses.replace(config, value_head=False))
    shapes = jax.eval_shape(plain.apply, params, tokens, mask)
    self.assertIsNone(shapes.values)

  def test_a_value_head_may_give_several_numbers(self):
    config = dataclasses.replace(LLAMA, value_head=True, num_values=3)
    model, params = start(config)
    tokens, mask = layout(TEXTS, "left", 7)
    out = jax.jit(model.apply)(params, tokens, mask)
    self.assertEqual(out.values.shape, (*tokens.shape, 3))
    np.testing.assert_allclose(
      out.values, out.hidden @ params["value"]["kernel"], atol=1e-5
    )

  def test_bfloat16_logits_are_summed_in_float32(self):
    model, params = start(dataclasses.replace(LLAMA, dtype="bfloat16"))
    inputs = layout(TEXTS, "right", 7)
    logits = jax.jit(model.apply)(params, *inputs).logits
    self.assertEqual(logits.dtype, jnp.float32)
    rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
    self.assertGreater(np.mean(np.asarray(rounded != logits)), 0.9)


class DropoutTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model, self.params = start(dataclasses.replace(REWARD, dropout=0.3))
    texts = (TEXTS[0], TEXTS[4], TEXTS[0], TEXTS[0])
    self.inputs = layout(texts, "right", 8)
    self.apply = jax.jit(self.model.apply)
    self.keys = jax.random.split(jax.random.key(1), 4)

  def rewards(self, rows, keys, width=8):
    tokens, mask = (np.pad(x, ((0, 0), (0, 4))) for x in self.inputs)
    rows = np.asarray(rows)
    return self.apply(
      self.params,
      tokens[rows, :width],
      mask[rows, :width],
      dropout_keys=self.keys[np.asarray(keys)],
    ).rewards

  def test_a_row_has_its_own_mask(self):
    every = self.rewards([0, 1, 2, 3], [0, 1, 2, 3])
    turned = self.rewards([3, 2, 1, 0], [3, 2, 1, 0])
    np.testing.assert_allclose(turned[::-1], every, atol=1e-6)
    halves = self.rewards([2, 3], [2, 3])
    np.testing.assert_allclose(halves, every[2:], atol=1e-6)
    # The same text under other keys, and without any, is another reward.
    self.assertGreater(np.abs(every[0] - every[2]).max(), 0.01)
    plain = self.apply(self.params, *self.inputs).rewards
    self.assertGreater(np.abs(every[0] - plain[0]).max(), 0.01)
    np.testing.assert_allclose(
      self.rewards([0, 2], [3, 3]), jnp.stack([every[3], every[3]]), atol=1e-6
    )

  def test_longer_padding_keeps_the_mask(self):
    short = self.rewards([0, 1, 2, 3], [0, 1, 2, 3])
    longer = self.rewards([0, 1, 2, 3], [0, 1, 2, 3], width=12)
    np.testing.assert_allclose(longer, short, atol=1e-5)

  def test_rate_zero_ignores_keys(self):
    apply = jax.jit(models.reward_model(REWARD).apply)
    np.testing.assert_array_equal(
      apply(self.params, *self.inputs, dropout_keys=self.keys).rewards,
      apply(self.params, *self.inputs).rewards,
    )


if __name__ == "__main__":
  absltest.main()
