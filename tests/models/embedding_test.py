"""Embeddings: positions with an offset, and logits by their transpose."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.models import decoder
from tests.models.samples import GPT2, LLAMA, start


class EmbeddingTest(absltest.TestCase):
  def test_positions_begin_after_the_offset(self):
    config = dataclasses.replace(GPT2, position_offset=2)
    _, params = start(config)
    table = params["embed"]
    self.assertEqual(table["positions"].shape[0], config.max_positions + 2)
    tokens = jnp.array([[3, 4]])
    module = decoder.Embedding(config)
    got = module.apply({"params": table}, tokens, jnp.array([[0, 5]]))
    expected = (
      table["tokens"][tokens[0]] + table["positions"][jnp.array([2, 7])]
    )
    np.testing.assert_allclose(got[0], expected, rtol=1e-6)

  def test_heads_score_every_token(self):
    _, params = start(LLAMA)
    hidden = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    tied = decoder.Embedding(LLAMA).apply(
      {"params": params["embed"]}, hidden, method="logits"
    )
    np.testing.assert_allclose(
      tied, hidden @ np.asarray(params["embed"]["tokens"]).T, atol=1e-5
    )
    own = decoder.language_head(LLAMA).apply(
      {"params": params["lm_head"]}, hidden
    )
    np.testing.assert_allclose(
      own, hidden @ np.asarray(params["lm_head"]["kernel"]), atol=1e-5
    )


if __name__ == "__main__":
  absltest.main()
