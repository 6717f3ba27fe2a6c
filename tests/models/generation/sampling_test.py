"""What is drawn, how often, and what its log-probability is said to be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.models.generation import sampling
from tests.models.samples import LLAMA, REWARD

CONFIG = dataclasses.replace(LLAMA, vocab_size=8)
LOGITS = np.array([2.0, 1.5, 1.0, 0.2, 0.0, -0.5, -1.0, -3.0], np.float32)
DEFAULTS = dict(
  max_new_tokens=4,
  min_new_tokens=0,
  temperature=1.0,
  top_k=None,
  top_p=None,
  repetition_penalty=1.0,
  eos_ids=(),
  pad_id=0,
  key_kind="threefry2x32",
)


def options(**changes):
  return sampling.sampling_options(CONFIG, **DEFAULTS | changes)


def shaped(logits=LOGITS, seen=None, count=0, **changes):
  opts, knobs = options(**changes)
  return np.asarray(
    sampling.shaped_logits(
      jnp.asarray(logits)[None],
      opts,
      knobs,
      seen=None if seen is None else jnp.asarray(seen)[None],
      count=jnp.full(1, count, jnp.int32),
    )
  )[0]


def softmax(logits):
  odds = np.exp(logits - logits.max())
  return odds / odds.sum()


class ShapedLogitsTest(parameterized.TestCase):
  def kept(self, **changes):
    return set(np.flatnonzero(shaped(**changes) > -1e30))

  def test_top_k(self):
    self.assertEqual(self.kept(top_k=3), {0, 1, 2})
    self.assertEqual(self.kept(top_k=8), set(range(8)))

  @parameterized.parameters(0.05, 0.3, 0.6, 0.9, 0.999, 1.0)
  def test_nucleus_is_the_smallest_set_of_that_mass(self, top_p):
    probs = softmax(LOGITS.astype(np.float64))
    size = 1 + np.flatnonzero(np.cumsum(probs) >= top_p - 1e-9)[0]
    self.assertEqual(self.kept(top_p=top_p), set(range(size)))

  def test_nucleus_is_taken_of_what_top_k_leaves_at_the_temperature(self):
    hot = softmax(LOGITS[:3].astype(np.float64) / 2.0)
    self.assertLess(hot[0], 0.5)
    self.assertEqual(
      self.kept(top_k=3, temperature=2.0, top_p=float(hot[0])), {0}
    )
    self.assertEqual(
      self.kept(top_k=3, temperature=2.0, top_p=float(hot[0]) + 0.01), {0, 1}
    )

  def test_temperature_divides(self):
    np.testing.assert_allclose(shaped(temperature=0.5), LOGITS * 2, rtol=1e-6)

  def test_penalty_lowers_what_the_row_holds(self):
    seen = np.isin(np.arange(8), (0, 6))
    got = shaped(seen=seen, repetition_penalty=2.0)
    np.testing.assert_allclose(got[[0, 6]], [1.0, -2.0])
    np.testing.assert_array_equal(got[~seen], LOGITS[~seen])

  def test_no_end_before_the_minimum(self):
    blocked = dict(eos_ids=(0, 2), min_new_tokens=2)
    self.assertEqual(self.kept(count=1, **blocked), {1, 3, 4, 5, 6, 7})
    self.assertEqual(self.kept(count=2, **blocked), set(range(8)))


class DrawTest(parameterized.TestCase):
  def draw(self, number, **changes):
    opts, knobs = options(**changes)
    return jax.jit(
      lambda data: sampling.draw_tokens(
        jnp.broadcast_to(jnp.asarray(LOGITS), (number, 8)),
        opts,
        knobs,
        key_data=data,
        seen=None,
        count=jnp.zeros(number, jnp.int32),
      )
    )(jax.random.key_data(jax.random.split(jax.random.key(0), number)))

  @parameterized.parameters(
    dict(), dict(temperature=0.7), dict(top_k=3), dict(top_p=0.8)
  )
  def test_frequencies(self, **changes):
    number = 20_000
    tokens, _ = self.draw(number, **changes)
    expected = softmax(shaped(**changes).astype(np.float64))
    found = np.bincount(tokens, minlength=8) / number
    spread = np.sqrt(expected * (1 - expected) / number)
    self.assertTrue(np.all(np.abs(found - expected) < 4.5 * spread + 1e-9))

  def test_log_probs_are_those_of_the_model_itself(self):
    for changes in (
      dict(),
      dict(temperature=0.5, top_k=2),
      dict(temperature=0),
    ):
      tokens, log_probs = self.draw(16, **changes)
      expected = np.log(softmax(LOGITS.astype(np.float64)))[np.asarray(tokens)]
      np.testing.assert_allclose(log_probs, expected, atol=1e-6)

  def test_greedy(self):
    self.assertEqual(set(np.asarray(self.draw(5, temperature=0)[0])), {0})


class ErrorTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(max_new_tokens=0), "max_new_tokens must be >= 1, got 0"),
    (dict(min_new_tokens=5), r"min_new_tokens must be in .*\[0, 4\], got 5"),
    (dict(temperature=-1.0), "temperature must be >= 0, got -1.0"),
    (dict(temperature=float("nan")), "temperature must be >= 0, got nan"),
    (dict(top_k=0), r"top_k must be in .*\[1, 8\], got 0"),
    (dict(top_p=0.0), r"top_p must be in \(0, 1\], got 0.0"),
    (dict(repetition_penalty=0.0), "repetition_penalty must be > 0, got 0.0"),
    (dict(eos_ids=(1, 8)), r"eos_ids must be in .*\[0, 8\), got \(1, 8\)"),
    (dict(pad_id=-1), "pad_id must be in .*got -1"),
  )
  def test_errors_name_argument_got_and_allowed(self, changes, regex):
    with self.assertRaisesRegex(ValueError, regex):
      options(**changes)

  def test_a_reward_model_does_not_generate(self):
    with self.assertRaisesRegex(ValueError, "num_outputs must be None"):
      sampling.sampling_options(REWARD, **DEFAULTS)


if __name__ == "__main__":
  absltest.main()
