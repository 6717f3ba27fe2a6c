"""What is drawn, how often, and what its log-probability is said to be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.models import heads
from jaxalign.models.generation import sampling
from tests import transforms
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


def truncated_logs(logits, token, top_k=None, top_p=None):
  """log q of one token by sorting, float64: what is kept, and the token."""
  order = np.argsort(-logits)
  probs = softmax(logits)
  kept = order if top_k is None else order[:top_k]
  if top_p is not None:
    within = probs[kept] / probs[kept].sum()
    before = np.cumsum(within) - within
    kept = kept[before < top_p]
  counted = {*kept.tolist(), token}
  return np.log(probs[token] / sum(probs[v] for v in counted))


class TruncatedLogProbsTest(parameterized.TestCase):
  B, T, V, D = 2, 5, 8, 16

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.config = dataclasses.replace(CONFIG, embed_dim=self.D)
    self.hidden = rng.normal(size=(self.B, self.T, self.D)).astype(np.float32)
    self.table = rng.normal(size=(self.V, self.D)).astype(np.float32)
    self.tokens = rng.integers(0, self.V, size=(self.B, self.T))

  def params(self, table=None):
    table = jnp.asarray(self.table if table is None else table)
    if self.config.tie_embeddings:
      return {"embed": {"tokens": table}}
    return {"lm_head": {"kernel": table.T}}

  def logs(self, tokens=None, hidden=None, table=None, **given):
    cut = sampling.Truncation(
      given.pop("top_k", None), given.pop("top_p", None)
    )
    return sampling.truncated_log_probs(
      self.config,
      self.params(table),
      jnp.asarray(self.hidden if hidden is None else hidden),
      jnp.asarray(self.tokens if tokens is None else tokens, jnp.int32),
      cut,
      **given,
    )

  @parameterized.parameters(
    dict(top_k=3),
    dict(top_p=0.6),
    dict(top_k=5, top_p=0.7, temperature=0.8),
    dict(top_k=1),
    dict(top_k=8, top_p=1.0),
  )
  def test_is_the_law_that_is_drawn_from(self, **given):
    temperature = given.get("temperature", 1.0)
    cuts = {k: v for k, v in given.items() if k != "temperature"}
    got = np.stack(
      [self.logs(np.full_like(self.tokens, v), **given) for v in range(self.V)],
      axis=-1,
    )
    logits = self.hidden.astype(np.float64) @ self.table.T / temperature
    for place in np.ndindex(self.B, self.T):
      want = [truncated_logs(logits[place], v, **cuts) for v in range(self.V)]
      np.testing.assert_allclose(got[place], want, rtol=1e-4, atol=1e-5)
      drawn = shaped(logits[place].astype(np.float32), **cuts)
      kept = drawn > -1e30
      self.assertAlmostEqual(np.exp(got[place][kept]).sum(), 1.0, places=5)
      np.testing.assert_allclose(
        np.exp(got[place][kept]), softmax(drawn)[kept], rtol=1e-4
      )

  def test_how_many_places_at_a_time_changes_nothing(self):
    want = self.logs(top_k=3, columns=16)
    for columns in (1, 2, 5):
      np.testing.assert_allclose(
        self.logs(top_k=3, columns=columns), want, rtol=1e-6
      )
    plain = heads.token_log_probs(
      self.config,
      self.params(),
      jnp.asarray(self.hidden),
      jnp.asarray(self.tokens, jnp.int32),
    )
    np.testing.assert_allclose(self.logs(), plain, rtol=1e-5)

  def test_its_score_has_mean_0_where_the_whole_softmax_has_not(self):
    # E over what is drawn of the gradient of log q: 0, or learning is biased.
    def mean_score(**given):
      def of(table, v):
        tokens = jnp.full((1, 1), v, jnp.int32)
        return self.logs(tokens, self.hidden[:1, :1], table, **given)[0, 0]

      slopes = [jax.grad(of)(jnp.asarray(self.table), v) for v in range(self.V)]
      drawn = softmax(shaped(self.hidden[0, 0] @ self.table.T, top_k=3))
      mean = sum(p * g for p, g in zip(drawn, slopes, strict=True))
      return float(jnp.abs(mean).max())

    self.assertLess(mean_score(top_k=3), 1e-5)
    self.assertGreater(mean_score(), 5e-3)

  def test_derivatives(self):
    with jax.enable_x64(True):
      self.config = dataclasses.replace(
        self.config, dtype="float64", param_dtype="float64"
      )
      self.hidden, self.table = (
        np.float64(self.hidden), np.float64(self.table)
      )  # fmt: skip
      transforms.assert_second_order(
        lambda hidden, table: self.logs(
          hidden=hidden, table=table, top_k=4, top_p=0.9
        ),
        self.hidden,
        self.table,
      )

  def test_shapes_must_fit(self):
    with self.assertRaisesRegex(ValueError, "tokens"):
      self.logs(self.tokens[:, :2], top_k=3)


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
