"""Log-probabilities in slices: those of the whole, without the whole."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign import models
from jaxalign.models import heads
from tests.models.samples import GPT2, LLAMA, WIDE, rows, start


class TokenLogProbsTest(parameterized.TestCase):
  @parameterized.product(config=(LLAMA, GPT2), slice_size=(1, 7, 23, 64))
  def test_equals_the_softmax_of_all_logits(self, config, slice_size):
    model, params = start(config)
    tokens, mask = rows()
    out = model.apply(params, tokens, mask)
    expected = np.take_along_axis(
      np.asarray(jax.nn.log_softmax(out.logits)), tokens[..., None], axis=-1
    )[..., 0]
    got = heads.token_log_probs(
      config, params, out.hidden, tokens, slice_size=slice_size
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)

  @parameterized.parameters(LLAMA, GPT2)
  def test_derivatives(self, config):
    self.enter_context(jax.enable_x64(True))
    config = dataclasses.replace(config, **WIDE)
    _, params = start(config)
    tokens, _ = rows()
    hidden = np.random.default_rng(0).normal(size=(*tokens.shape, 8))
    name = "embed" if config.tie_embeddings else "lm_head"

    def total(hidden, table):
      chosen = heads.token_log_probs(
        config, params | {name: table}, hidden, tokens, slice_size=7
      )
      return jnp.sum(jnp.sin(chosen))

    check_grads(jax.jit(total), (hidden, params[name]), order=2, rtol=1e-4)

  def test_no_array_of_all_logits_is_ever_made(self):
    config = dataclasses.replace(
      LLAMA, vocab_size=2_003, max_positions=64, num_layers=1
    )
    model = models.causal_lm(config)
    tokens, mask = np.zeros((4, 64), np.int32), np.ones((4, 64), bool)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens, mask)

    def sizes(loss):
      """Elements of the largest float array with an axis of logits."""
      text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
      shapes = re.findall(r"f32\[([\d,]+)\]", text)
      return max(np.prod([int(n) for n in s.split(",")]) for s in shapes)

    def in_slices(params):
      hidden = model.apply(params, tokens, mask).hidden
      return jnp.sum(
        heads.token_log_probs(config, params, hidden, tokens, slice_size=256)
      )

    def at_once(params):
      logits = model.apply(params, tokens, mask).logits
      return jnp.sum(jax.nn.log_softmax(logits)[..., 0])

    # At least, for a GPU's kernels want a rounder number.
    self.assertGreaterEqual(sizes(at_once), 4 * 64 * 2_003)
    self.assertLess(sizes(in_slices), 4 * 64 * 257)

  @parameterized.parameters((2_003, 8_192, 2_003), (2_003, 1_500, 1_002))
  def test_a_slice_is_no_longer_than_it_must_be(self, size, most, expected):
    config = dataclasses.replace(LLAMA, vocab_size=size)
    model = models.causal_lm(config)
    tokens, mask = rows()
    params = jax.eval_shape(model.init, jax.random.key(0), tokens, mask)
    hidden = jnp.zeros((*tokens.shape, 8))
    text = str(
      jax.make_jaxpr(
        lambda params: heads.token_log_probs(
          config, params, hidden, tokens, slice_size=most
        )
      )(params)
    )
    widths = re.findall(rf"f32\[{tokens.size},(\d+)\]", text)
    self.assertEqual(max(int(width) for width in widths), expected)

  @parameterized.parameters((LLAMA.vocab_size, 3), (5, 4))
  def test_one_slice_is_not_taken_again_for_the_gradient(self, most, products):
    _, params = start(LLAMA)
    tokens, _ = rows()
    hidden = jnp.zeros((*tokens.shape, 8))

    def total(hidden, params):
      return jnp.sum(
        heads.token_log_probs(LLAMA, params, hidden, tokens, slice_size=most)
      )

    text = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(hidden, params))
    self.assertEqual(text.count("dot_general["), products)

  def test_far_logits_stay_finite(self):
    _, params = start(LLAMA)
    tokens, _ = rows()
    hidden = jnp.full((*tokens.shape, 8), 1e4)
    got = heads.token_log_probs(LLAMA, params, hidden, tokens, slice_size=5)
    self.assertTrue(np.isfinite(got).all())
    self.assertLess(got.max(), 1e-3)

  def test_errors(self):
    _, params = start(LLAMA)
    tokens, _ = rows()
    hidden = jnp.zeros((*tokens.shape, 8))
    call = lambda *x, **k: heads.token_log_probs(LLAMA, params, *x, **k)
    with self.assertRaisesRegex(ValueError, r"leading axes of tokens \(3, 6\)"):
      call(hidden[:, :-1], tokens)
    with self.assertRaisesRegex(ValueError, "slice_size must be >= 1, got 0"):
      call(hidden, tokens, slice_size=0)
    with self.assertRaisesRegex(TypeError, "tokens must be integer"):
      call(hidden, tokens * 1.0)


if __name__ == "__main__":
  absltest.main()
