"""A queue of prompts through a few rows gives what each would get alone."""

from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import attention
from jaxalign.models.generation import continuous_batching
from tests.models.generation.generate_test import LONG, PAD, padded
from tests.models.samples import start

QUEUE = tuple(
  tuple(np.random.default_rng(i).integers(1, 23, 1 + i % 5)) for i in range(9)
)


def run(params, **options):
  tokens, mask = padded(QUEUE)
  return continuous_batching.generate_queue(
    LONG,
    params,
    tokens,
    mask,
    keys=jax.random.split(jax.random.key(1), 9),
    pad_id=PAD,
    **{"max_new_tokens": 12, "batch_size": 3} | options,
  )


class ContinuousTest(parameterized.TestCase):
  @parameterized.parameters((1, 1), (3, 1), (3, 2), (3, 3), (16, 4))
  def test_equals_generate(self, batch_size, refill_size):
    _, params = start(LONG)
    tokens, mask = padded(QUEUE)
    options = dict(eos_ids=(2, 7, 8), top_k=20)
    expected = models.generate(
      LONG,
      params,
      tokens,
      mask,
      keys=jax.random.split(jax.random.key(1), 9),
      max_new_tokens=12,
      pad_id=PAD,
      **options,
    )
    self.assertGreater(len(np.unique(expected.mask.sum(-1))), 2)
    got = run(params, batch_size=batch_size, refill_size=refill_size, **options)
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_array_equal(got.mask, expected.mask)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, atol=1e-5)

  def test_a_window_that_grows_with_the_cache_is_the_whole_cache(self):
    # The ring of 16 + 13 slots goes round more than once. Another batch size,
    # or the program of the first run would do.
    _, params = start(LONG)
    whole = run(params, max_new_tokens=13, batch_size=2)
    with mock.patch.object(attention, "SHORTEST_WINDOW", 4):
      self.assertEqual(attention.windows_of(29), (4, 8, 16, 29))
      got = run(params, max_new_tokens=13, batch_size=3)
      tokens, mask = padded(QUEUE)
      alone = models.generate(
        LONG,
        params,
        tokens,
        mask,
        keys=jax.random.split(jax.random.key(1), 9),
        max_new_tokens=13,
        pad_id=PAD,
      )
    for other in (got, alone):
      np.testing.assert_array_equal(other.tokens, whole.tokens)
      np.testing.assert_allclose(other.log_probs, whole.log_probs, atol=1e-5)

  def test_each_prompt_has_its_limit(self):
    _, params = start(LONG)
    limits = np.array([1, 12, 3, 4, 5, 1, 1, 8, 2])
    got = run(params, limits=limits)
    np.testing.assert_array_equal(got.mask.sum(-1), limits)
    whole = run(params)
    np.testing.assert_array_equal(
      got.tokens, np.where(got.mask, whole.tokens, PAD)
    )

  def test_refilling_takes_fewer_steps(self):
    _, params = start(LONG)
    limits = np.array([12, 1, 1, 1, 12, 1, 1, 1, 12])
    advance, steps = continuous_batching._advance, {}
    for refill_size in (1, 3):
      seen = []

      def recorded(*args, seen=seen):
        before = int(args[4].slot)
        state = advance(*args)
        seen.append(int(state.slot) - before)
        return state

      with mock.patch.object(continuous_batching, "_advance", recorded):
        run(params, limits=limits, refill_size=refill_size)
      steps[refill_size] = sum(seen)
    # Every batch of three holds one long row.
    self.assertEqual(steps[3], 3 * 11)
    self.assertLess(steps[1], 0.5 * steps[3])

  @parameterized.parameters(
    (dict(refill_size=4), r"refill_size must be in .*\[1, 3\], got 4"),
    (dict(limits=np.full(9, 13)), r"limits must be \[9\] numbers in \[1, 12\]"),
    (dict(max_new_tokens=60), "at most max_positions = 64"),
  )
  def test_errors(self, options, regex):
    _, params = start(LONG)
    with self.assertRaisesRegex(ValueError, regex):
      run(params, **options)


if __name__ == "__main__":
  absltest.main()
