"""The sampler of this library keeps the protocol that others stand in for."""

import jax
import numpy as np
from absl.testing import absltest

from jaxalign import losses, models
from tests.models.generation.generate_test import LONG, PAD, padded, recomputed
from tests.models.samples import start


class SamplerTest(absltest.TestCase):
  def test_is_generate_with_its_options(self):
    _, params = start(LONG)
    keys = jax.random.split(jax.random.key(0), 4)
    options = dict(max_new_tokens=6, top_k=5, eos_ids=(2,), pad_id=PAD)
    sampler: models.Sampler = models.local_sampler(LONG, **options)
    got = sampler(params, *padded(), keys=keys)
    expected = models.generate(LONG, params, *padded(), keys=keys, **options)
    jax.tree.map(np.testing.assert_array_equal, got, expected)

  def test_an_engine_outside_may_stray(self):
    model, params = start(LONG)
    del model
    keys = jax.random.split(jax.random.key(0), 4)
    local = models.local_sampler(LONG, max_new_tokens=6, pad_id=PAD)

    def outside(params, prompts, mask, *, keys):
      """Weights of an older step, as an engine that lags behind has them."""
      older = jax.tree.map(lambda x: x * 1.05, params)
      return local(older, prompts, mask, keys=keys)

    def mismatch(sampler):
      out = sampler(params, *padded(), keys=keys)
      ours = jax.numpy.asarray(recomputed(LONG, params, padded(), out))
      return losses.log_prob_mismatch(ours, out.log_probs, where=out.mask)

    self.assertLess(mismatch(local).mean_abs, 1e-5)
    self.assertGreater(mismatch(outside).mean_abs, 1e-2)
    self.assertGreater(mismatch(outside).kl, 1e-4)


if __name__ == "__main__":
  absltest.main()
