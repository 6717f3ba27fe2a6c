"""Scale, clip and penalties of a score, by hand and in any order."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import reward_shaping
from tests.algorithms import bigram


def config(**changes):
  return bigram.section("reward", **changes)


def everything(n):
  return jnp.ones(n, jnp.bool_)


class MomentsTest(parameterized.TestCase):
  def test_are_those_of_all_scores_so_far(self):
    rng = np.random.default_rng(0)
    scores = (3 + 2 * rng.normal(size=60)).astype(np.float32)
    moments = reward_shaping.init_moments()
    for part in np.split(scores, [5, 6, 30]):
      moments = reward_shaping.update_moments(
        moments, jnp.array(part), where=everything(len(part))
      )
    np.testing.assert_allclose(moments.number, 60)
    np.testing.assert_allclose(moments.mean, scores.mean(), rtol=1e-5)
    np.testing.assert_allclose(moments.squares / 60, scores.var(), rtol=1e-4)

  def test_nothing_that_counts_changes_nothing(self):
    start = reward_shaping.Moments(*map(jnp.float32, (3.0, 1.5, 2.0)))
    found = reward_shaping.update_moments(
      start, jnp.array([jnp.nan, 7.0]), where=jnp.zeros(2, jnp.bool_)
    )
    np.testing.assert_array_equal(found, start)

  @parameterized.parameters(
    ("none", None, [1.0, 3.0, 5.0]),
    ("std", None, [0.5, 1.5, 2.5]),
    ("standardise", None, [-1.0, 0.0, 1.0]),
    ("standardise", 0.8, [-0.8, 0.0, 0.8]),
  )
  def test_scales_then_clips(self, scale, clip, expected):
    moments = reward_shaping.Moments(*map(jnp.float32, (4.0, 3.0, 16.0)))
    found = reward_shaping.scaled_scores(
      jnp.array([1.0, 3.0, 5.0]), moments, config(scale=scale, clip=clip)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)

  def test_scores_that_never_differed_keep_their_unit(self):
    moments = reward_shaping.update_moments(
      reward_shaping.init_moments(), jnp.full(4, 2.0), where=everything(4)
    )
    found = reward_shaping.scaled_scores(
      jnp.full(4, 2.0), moments, config(scale="std")
    )
    np.testing.assert_array_equal(found, 2.0)


class ShapedTest(parameterized.TestCase):
  def test_each_penalty_by_hand(self):
    tokens = jnp.array([[1, 2, 1, 2], [3, 4, 5, 6]], jnp.int32)
    where = jnp.array([[True] * 4, [True, True, False, False]])
    ended = jnp.array([False, True])
    score = lambda **changes: np.asarray(
      reward_shaping.shaped_scores(
        jnp.array([1.0, 1.0]),
        tokens,
        where=where,
        ended=ended,
        config=config(**changes),
      )
    )
    np.testing.assert_allclose(score(), [1, 1])
    np.testing.assert_allclose(score(missing_eos=0.5), [0.5, 1])
    np.testing.assert_allclose(score(overlong=2.0, overlong_buffer=4), [-1, 0])
    # 12, 21, 12: one of three was there before.
    np.testing.assert_allclose(
      score(repetition=3.0, repetition_ngram=2), [0, 1], atol=1e-6
    )

  @parameterized.parameters(
    (dict(scale="max"), "scale must be one of"),
    (dict(clip=0.0), "clip must be > 0"),
    (dict(missing_eos=-1.0), "missing_eos must be >= 0"),
    (dict(overlong=1.0), "set together"),
    (dict(repetition_ngram=2), "set together"),
    (dict(repetition=1.0, repetition_ngram=0), "must be >= 1"),
  )
  def test_refuses(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)


if __name__ == "__main__":
  absltest.main()
