"""Prompt at once, then token by token: the logits of the whole sequence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.models import blocks, decoder
from jaxalign.models.generation import decode
from tests.models.hf import families_test
from tests.models.samples import GPT2, LLAMA, start

CONFIGS = {
  "llama": LLAMA,
  "gpt2": GPT2,
  "window": dataclasses.replace(LLAMA, sliding_window=3),
  "neox": dataclasses.replace(
    families_test.tiny("gpt_neox"), max_positions=16, rotary_fraction=0.5
  ),
  "opt": dataclasses.replace(families_test.tiny("opt"), max_positions=16),
  "qwen3": dataclasses.replace(
    families_test.tiny("qwen3", tie_embeddings=False), max_positions=16
  ),
}


class SteppingTest(parameterized.TestCase):
  @parameterized.parameters(*CONFIGS)
  def test_equals_the_forward_of_the_whole(self, name):
    config = CONFIGS[name]
    model, params = start(config)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (3, 12)).astype(np.int32)
    mask = np.ones((3, 12), bool)
    # Padding of the prompt, which is the first 7 tokens, on either side.
    mask[0, :3] = mask[1, 5:7] = False
    logits = model.apply(params, tokens, mask).logits
    each = decoder.unstack_layers(params)
    filled = decode.prefill(config, each, tokens[:, :7], mask[:, :7])
    last = [6, 4, 6]
    np.testing.assert_allclose(
      filled.logits, np.asarray(logits)[np.arange(3), last], atol=1e-5
    )
    widen = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 5), (0, 0)))
    caches = tuple(blocks.Cache(*map(widen, c)) for c in filled.caches)
    cached = jnp.pad(filled.positions, ((0, 0), (0, 5)), constant_values=-1)
    step = jax.jit(decode.step, static_argnums=0)
    for slot in range(7, 12):
      positions = jnp.asarray(mask[:, :slot].sum(-1), jnp.int32)
      cached = cached.at[:, slot].set(positions)
      got, caches = step(
        config,
        each,
        tokens[:, slot],
        positions,
        caches,
        cached,
        jnp.int32(slot),
      )
      np.testing.assert_allclose(got, logits[:, slot], atol=1e-5)


if __name__ == "__main__":
  absltest.main()
