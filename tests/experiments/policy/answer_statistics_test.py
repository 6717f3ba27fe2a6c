"""Perplexity, reward gaps and what is kept of answers, by hand."""

import json

import numpy as np
from absl.testing import absltest

from jaxalign.data.stats import diversity
from jaxalign.experiments.policy import answer_statistics as statistics


class AnswerStatisticsTest(absltest.TestCase):
  def test_perplexity_is_per_token_and_per_answer(self):
    nll = np.array([np.log(8.0) * 3, 0.0, np.log(4.0)], np.float32)
    np.testing.assert_allclose(
      statistics.perplexities(nll, np.array([3, 5, 0])), [8, 1, 4], rtol=1e-6
    )

  def test_gaps_are_between_answers_to_the_same_prompt(self):
    scores = np.array([[0.0, 1.0, 4.0], [10.0, 10.0, 12.0]])
    np.testing.assert_array_equal(
      statistics.reward_gaps(scores), [0, 1, 2, 2, 3, 4]
    )
    self.assertEmpty(statistics.reward_gaps(np.ones((5, 1))))

  def test_many_gaps_are_thinned_by_rank(self):
    scores = np.random.default_rng(0).normal(size=(1000, 3))
    few = statistics.reward_gaps(scores)
    self.assertLen(few, statistics.NUM_GAPS)
    whole = np.sort(np.abs(scores[:, [0, 0, 1]] - scores[:, [1, 2, 2]]).ravel())
    self.assertEqual(few[[0, -1]].tolist(), whole[[0, -1]].tolist())
    shares = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(
      np.quantile(few, shares), np.quantile(whole, shares), atol=0.01
    )

  def test_what_is_kept(self):
    texts = ["a b c", "a b d", "e f g", "a b c"]
    scores = np.array([[[0.0, 1.0], [2.0, 1.0]], [[1.0, 3.0], [1.0, 0.0]]])
    found = statistics.describe(
      texts,
      np.log([2.0, 2.0, 4.0, 16.0]),
      np.array([1, 1, 1, 1]),
      scores,
      ("warm", "brief"),
    )
    self.assertEqual(found["gaps"], {"warm": [0, 2], "brief": [0, 3]})
    self.assertAlmostEqual(found["perplexity"]["mean"], 6)
    self.assertAlmostEqual(found["perplexity"]["median"], 3)
    self.assertEqual(found["self_bleu"], diversity.self_bleu(texts))
    json.dumps(found, allow_nan=False)
    one = statistics.describe(
      texts[:1], np.zeros(1), np.ones(1), scores[:1, :1], ("warm", "brief")
    )
    self.assertIsNone(one["self_bleu"])
    self.assertEqual(one["gaps"], {"warm": [], "brief": []})


if __name__ == "__main__":
  absltest.main()
