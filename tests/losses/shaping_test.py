"""Rewards per token and shaping against NumPy and published numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.losses import (
  clipped_scores,
  missing_eos_penalty,
  overlong_penalty,
  repeated_ngram_fraction,
  token_rewards,
)
from tests import references, transforms

KL = np.array([[0.1, -0.2, 0.3, 0.0], [0.2, 0.1, 0.5, 0.4]])
WHERE = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
SCORES = np.array([1.5, -12.0])


class TokenRewardsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_published_placement(self):
    got = token_rewards(
      clipped_scores(SCORES, limit=10.0), KL, kl_coef=0.1, where=WHERE
    )
    np.testing.assert_allclose(
      got, [[-0.01, 0.02, 1.47, 0], [-0.02, -10.01, 0, 0]], atol=1e-12
    )

  def test_matches_reference_with_gaps_and_left_padding(self):
    rng = np.random.default_rng(0)
    where = rng.random((6, 5)) < 0.5
    where[0] = False
    kl, scores = rng.normal(size=(6, 5)), rng.normal(size=6)
    got = jax.jit(token_rewards)(scores, kl, kl_coef=0.3, where=where)
    want = references.token_rewards(scores, kl, 0.3, where)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_array_equal(got[0], 0.0)

  def test_rewards_add_up_to_the_score_less_the_penalty(self):
    got = token_rewards(SCORES, KL, kl_coef=0.1, where=WHERE)
    np.testing.assert_allclose(
      got.sum(axis=1), SCORES - 0.1 * (KL * WHERE).sum(axis=1)
    )
    # Five tokens at a KL of 1 cost half a reward at a coefficient of 0.1.
    ones = np.ones((12, 5))
    penalty = token_rewards(np.zeros(12), ones, kl_coef=0.1, where=ones > 0)
    np.testing.assert_allclose(penalty.sum(axis=1), -0.5)

  @parameterized.parameters(jnp.bfloat16, jnp.float16, jnp.int32, jnp.float32)
  def test_a_score_survives_whatever_stands_beside_it(self, dtype):
    with jax.enable_x64(False):
      got = token_rewards(
        jnp.array([0.7]),
        jnp.zeros((1, 3), dtype),
        kl_coef=0.1,
        where=jnp.ones((1, 3), bool),
      )
    self.assertEqual(got.dtype, jnp.float32)
    np.testing.assert_array_equal(got, np.array([[0, 0, 0.7]], np.float32))
    counted = token_rewards(
      jnp.array([3]), jnp.zeros((1, 2)), kl_coef=0.1, where=WHERE[:1, :2]
    )
    np.testing.assert_array_equal(counted, [[0, 3]])

  def test_float64_stays(self):
    got = token_rewards(SCORES, KL, kl_coef=0.1, where=WHERE)
    self.assertEqual(got.dtype, jnp.float64)
    narrow = token_rewards(
      SCORES.astype("f"), KL.astype("f"), kl_coef=0.1, where=WHERE
    )
    self.assertEqual(narrow.dtype, jnp.float32)

  def test_garbage_under_the_mask_reaches_neither_value_nor_gradient(self):
    total = lambda kl: jnp.sum(
      token_rewards(SCORES, kl, kl_coef=0.1, where=WHERE) ** 2
    )
    want = jax.value_and_grad(total)(jnp.asarray(KL))
    got = jax.value_and_grad(total)(jnp.where(WHERE, KL, jnp.nan))
    for g, w in zip(got, want, strict=True):
      np.testing.assert_array_equal(g, w)

  def test_derivatives_and_transforms(self):
    fn = lambda s, kl, beta: token_rewards(s, kl, kl_coef=beta, where=WHERE)
    transforms.assert_second_order(fn, SCORES, KL, 0.1)
    bound = lambda s, kl: fn(s, kl, 0.1)
    transforms.assert_jit_and_vmap(bound, SCORES, KL)
    transforms.assert_finite(bound, SCORES * 1e4, KL * 1e4)

  @parameterized.parameters(
    (ValueError, r"scores must be \[B\]", dict(scores=np.ones(3))),
    (ValueError, "scores must have 1 axes", dict(scores=np.ones((2, 1)))),
    (ValueError, r"kl \(2, 4\), where \(2, 3\)", dict(where=WHERE[:, :3])),
    (TypeError, "where must be bool", dict(where=WHERE * 1)),
    (ValueError, "kl_coef must have 0 axes", dict(kl_coef=np.ones(2))),
    (TypeError, "scores must be floating", dict(scores=np.ones(2) * 1j)),
  )
  def test_errors(self, error, message, change):
    arguments = dict(scores=SCORES, kl_coef=0.1, where=WHERE) | change
    with self.assertRaisesRegex(error, message):
      token_rewards(arguments.pop("scores"), KL, **arguments)


class ShapingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_missing_eos(self):
    got = missing_eos_penalty(
      SCORES, ended=np.array([True, False]), penalty=1.0
    )
    np.testing.assert_allclose(got, [1.5, -13.0])
    fn = functools.partial(
      missing_eos_penalty, ended=np.array([True, False]), penalty=0.5
    )
    transforms.assert_second_order(fn, SCORES)
    transforms.assert_jit_and_vmap(fn, SCORES)
    half = missing_eos_penalty(
      jnp.ones(2, jnp.bfloat16), ended=WHERE[0, :2], penalty=1.0
    )
    self.assertEqual(half.dtype, jnp.float32)

  def test_clipped_scores(self):
    np.testing.assert_array_equal(
      clipped_scores(SCORES, limit=10.0), [1.5, -10.0]
    )
    fn = functools.partial(clipped_scores, limit=10.0)
    transforms.assert_second_order(fn, SCORES)
    transforms.assert_jit_and_vmap(fn, SCORES)

  def test_published_overlong_penalty(self):
    lengths = np.array([50, 80, 90, 100, 110])
    got = jax.jit(functools.partial(overlong_penalty, limit=100, buffer=20))(
      lengths
    )
    np.testing.assert_array_equal(got, [0, 0, -0.5, -1, -1])
    self.assertEqual(got.dtype, jnp.float32)

  def test_repeated_ngrams_by_hand(self):
    tokens = np.array([[1, 2, 1, 2, 1], [1, 2, 3, 4, 5], [7, 7, 7, 7, 7]])
    full = np.ones((3, 5), bool)
    np.testing.assert_allclose(
      repeated_ngram_fraction(tokens, where=full, ngram=2), [0.5, 0.0, 0.75]
    )
    short = np.arange(5) < 2
    np.testing.assert_array_equal(
      repeated_ngram_fraction(tokens[0], where=short, ngram=3), 0.0
    )

  @settings(max_examples=25, deadline=None)
  @given(
    st.lists(
      st.tuples(st.integers(0, 2), st.booleans()), min_size=8, max_size=8
    ),
    st.integers(1, 3),
  )
  def test_repeated_ngrams_match_a_set(self, steps, ngram):
    tokens = np.array([t for t, _ in steps])
    where = np.array([w for _, w in steps])
    np.testing.assert_allclose(
      repeated_ngram_fraction(tokens, where=where, ngram=ngram),
      references.repeated_ngram_fraction(tokens, where, ngram),
      atol=1e-7,
    )

  def test_repeated_ngrams_batched(self):
    tokens = np.random.default_rng(0).integers(0, 2, (2, 3, 7))
    where = np.ones((2, 3, 7), bool)
    batched = jax.jit(repeated_ngram_fraction)(tokens, where=where)
    looped = [
      [repeated_ngram_fraction(t, where=w) for t, w in zip(*row, strict=True)]
      for row in zip(tokens, where, strict=True)
    ]
    np.testing.assert_array_equal(batched, looped)

  def test_errors(self):
    ended = np.ones(2, bool)
    with self.assertRaisesRegex(ValueError, "penalty must not be negative"):
      missing_eos_penalty(SCORES, ended=ended, penalty=-1.0)
    with self.assertRaisesRegex(TypeError, "ended must be bool"):
      missing_eos_penalty(SCORES, ended=SCORES, penalty=1.0)
    with self.assertRaisesRegex(ValueError, r"scores \(2,\), ended \(1,\)"):
      missing_eos_penalty(SCORES, ended=ended[:1], penalty=1.0)
    for fn in (
      functools.partial(missing_eos_penalty, ended=ended, penalty=1.0),
      functools.partial(clipped_scores, limit=1.0),
    ):
      with self.assertRaisesRegex(TypeError, "scores must be floating"):
        fn(np.ones(2, int))
    with self.assertRaisesRegex(ValueError, "limit must be positive"):
      clipped_scores(SCORES, limit=0.0)
    with self.assertRaisesRegex(TypeError, "lengths must be integer"):
      overlong_penalty(SCORES, limit=10, buffer=2)
    with self.assertRaisesRegex(ValueError, r"buffer must be in \[1, 10\]"):
      overlong_penalty(np.ones(2, int), limit=10, buffer=11)
    tokens = np.ones((2, 4), int)
    with self.assertRaisesRegex(ValueError, r"ngram must be in \[1, 4\]"):
      repeated_ngram_fraction(tokens, where=WHERE, ngram=5)
    with self.assertRaisesRegex(TypeError, "tokens must be integer"):
      repeated_ngram_fraction(KL, where=WHERE)
    with self.assertRaisesRegex(ValueError, r"where \(2, 3\)"):
      repeated_ngram_fraction(tokens, where=WHERE[:, :3])


if __name__ == "__main__":
  absltest.main()
