"""Reward and language outputs: types, pooling, and what may not move them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import heads

LLAMA = models.DecoderConfig(
  vocab_size=31,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  embed_dim=16,
  mlp_dim=24,
  num_outputs=3,
)
GPT2 = dataclasses.replace(
  LLAMA,
  num_kv_heads=4,
  norm="layer",
  activation="gelu_tanh",
  gated=False,
  positions="learned",
  qkv_bias=True,
  out_bias=True,
  mlp_bias=True,
  tie_embeddings=True,
  family="gpt2",
)
LENGTHS = (7, 4, 1, 6)


def rows(padding, width, seed=0, pad_id=0):
  """Four sequences laid out with the padding asked for."""
  rng = np.random.default_rng(seed)
  tokens = np.full((len(LENGTHS), width), pad_id, np.int32)
  mask = np.zeros((len(LENGTHS), width), bool)
  for row, length in enumerate(LENGTHS):
    ids = rng.integers(0, LLAMA.vocab_size, length)
    start = {"right": 0, "left": width - length, "both": (width - length) // 2}[
      padding
    ]
    tokens[row, start : start + length] = ids
    mask[row, start : start + length] = True
  return tokens, mask


class RewardTest(parameterized.TestCase):
  @parameterized.product(config=(LLAMA, GPT2))
  def test_padding_of_any_kind_changes_nothing(self, config):
    model = models.reward_model(config)
    params = model.init(jax.random.key(0), *rows("right", 7))
    apply = jax.jit(model.apply)
    expected = apply(params, *rows("right", 7))
    self.assertEqual(expected.rewards.shape, (4, 3))
    self.assertEqual(expected.rewards.dtype, jnp.float32)
    self.assertEqual(expected.features.shape, (4, 16))
    for padding in ("right", "left", "both"):
      # The padding id is one that also occurs in the text, then no token.
      for pad_id in (2, -100):
        got = apply(params, *rows(padding, 12, pad_id=pad_id))
        np.testing.assert_allclose(got.rewards, expected.rewards, atol=1e-5)
        np.testing.assert_allclose(got.features, expected.features, atol=1e-5)

  def test_last_attended_position(self):
    mask = np.array([[1, 1, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(heads.last_attended(mask), [1, 2, 1, 0])


if __name__ == "__main__":
  absltest.main()
