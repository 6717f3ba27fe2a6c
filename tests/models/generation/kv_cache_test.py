"""Rows of different age in one ring of slots."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign import models
from jaxalign.models import decoder
from jaxalign.models.generation import kv_cache, sampling
from tests.models.generation.generate_test import LONG, PAD, padded
from tests.models.samples import start


class SlotsTest(absltest.TestCase):
  def test_a_row_that_begins_later_is_the_same_row(self):
    _, stacked = start(LONG)
    params = decoder.unstack_layers(stacked)
    options, knobs = sampling.sampling_options(
      LONG,
      max_new_tokens=8,
      min_new_tokens=0,
      temperature=1.0,
      top_k=None,
      top_p=None,
      repetition_penalty=1.2,
      eos_ids=(),
      pad_id=PAD,
      key_kind="threefry2x32",
    )
    tokens, mask = padded()
    keys = jax.random.split(jax.random.key(3), 4)
    data = jax.random.key_data(keys)
    expected = models.generate(
      LONG,
      stacked,
      tokens,
      mask,
      keys=keys,
      max_new_tokens=8,
      repetition_penalty=1.2,
      pad_id=PAD,
    )
    state = kv_cache.empty_slots(LONG, options, batch=2, prompt_length=6)
    self.assertEqual(state.cached.shape, (2, 14))
    begin = jax.jit(kv_cache.start_rows, static_argnums=(0, 1))
    advance = jax.jit(kv_cache.advance, static_argnums=(0, 1))

    def fill(state, row, prompt):
      at = slice(prompt, prompt + 1)
      return begin(
        LONG,
        options,
        params,
        knobs,
        state,
        jnp.array([row], jnp.int32),
        tokens[at],
        mask[at],
        data[at],
        jnp.array([8], jnp.int32),
      )

    found = {}
    state = fill(state, 0, 0)
    owner = {0: 0}
    queue = [1, 2, 3]
    # Another prompt enters at uneven steps, past the end of the ring.
    for turn in range(40):
      for row in range(2):
        if state.done[row]:
          if row in owner:
            found[owner.pop(row)] = state.tokens[row]
          if queue and turn % 3 == row:
            owner[row] = queue.pop(0)
            state = fill(state, row, owner[row])
      state = advance(LONG, options, params, knobs, state)
    self.assertGreater(int(state.slot), state.cached.shape[1])
    self.assertLen(found, 4)
    for prompt, got in found.items():
      np.testing.assert_array_equal(got, expected.tokens[prompt])

  def test_all_rows_at_once_are_rows_put_into_empty_slots(self):
    _, stacked = start(LONG)
    params = decoder.unstack_layers(stacked)
    options, knobs = sampling.sampling_options(
      LONG,
      max_new_tokens=3,
      min_new_tokens=0,
      temperature=1.0,
      top_k=None,
      top_p=None,
      repetition_penalty=1.2,
      eos_ids=(4,),
      pad_id=PAD,
      key_kind="threefry2x32",
    )
    tokens, mask = padded()
    mask[1] = False  # ended before it begins
    data = jax.random.key_data(jax.random.split(jax.random.key(3), 4))

    @jax.jit
    def both(params):
      empty = kv_cache.empty_slots(LONG, options, batch=4, prompt_length=6)
      rows = jnp.arange(4, dtype=jnp.int32)
      limit = jnp.full(4, 3, jnp.int32)
      given = LONG, options, params, knobs
      return (
        kv_cache.start_all(*given, tokens, mask, data),
        kv_cache.start_rows(*given, empty, rows, tokens, mask, data, limit),
      )

    got, expected = both(params)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    self.assertEqual(got.done.tolist().count(True), 1)

  def test_rows_out_of_range_are_nobody(self):
    _, stacked = start(LONG)
    options, knobs = sampling.sampling_options(
      LONG,
      max_new_tokens=3,
      min_new_tokens=0,
      temperature=0.0,
      top_k=None,
      top_p=None,
      repetition_penalty=1.0,
      eos_ids=(),
      pad_id=PAD,
      key_kind="threefry2x32",
    )
    state = kv_cache.empty_slots(LONG, options, batch=2, prompt_length=6)
    tokens, mask = padded()
    after = kv_cache.start_rows(
      LONG,
      options,
      decoder.unstack_layers(stacked),
      knobs,
      state,
      jnp.array([2, 5], jnp.int32),
      tokens[:2],
      mask[:2],
      jax.random.key_data(jax.random.split(jax.random.key(0), 2)),
      jnp.array([3, 3], jnp.int32),
    )
    np.testing.assert_array_equal(after.done, [True, True])
    np.testing.assert_array_equal(after.count, [0, 0])
    np.testing.assert_array_equal(after.cached, state.cached)


if __name__ == "__main__":
  absltest.main()
