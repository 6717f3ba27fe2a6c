"""Held-out pairs under the recorded labels, a second judge's, and both."""

import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.records.record import Record
from jaxalign.experiments import evaluate
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import pair_scores
from tests.experiments.train_reward_test import smoke_config


def records(*probs):
  return [
    Record(prompt="Q", responses=("a", f"b{i}"), judge_prob=prob, source="s")
    for i, prob in enumerate(probs)
  ]


class LabelSetsTest(absltest.TestCase):
  def test_a_judge_without_an_opinion_is_left_out(self):
    sets = pair_scores.label_sets(records(0.9, None, 0.2, 0.5, 0.6))
    self.assertEqual(sets.recorded[pair_scores.RECORDED].tolist(), [0, 2, 4])
    self.assertEqual(sets.judged[pair_scores.JUDGE].tolist(), [0, 2, 4])
    self.assertEqual(sets.judged[pair_scores.AGREED].tolist(), [0, 4])
    self.assertEqual(sets.sign[[0, 2, 4]].tolist(), [1, -1, 1])

  def test_without_a_judge_there_are_none(self):
    sets = pair_scores.label_sets(records(None, None))
    self.assertEqual((sets.recorded, sets.judged), ({}, {}))

  def test_evaluation_scores_every_label_set(self):
    found = records(1.0, 0.0, 1.0, 0.0, None)
    config = smoke_config()
    tokenizer = preferences.open_tokenizer(config.data, None)
    pairs = preferences.first(
      config.data, preferences.Pairs(found, None, {}), 5, tokenizer
    )
    # A model of the judge's mind, but for the third pair.
    gaps = np.array([2.0, -2.0, -1.0, -3.0, 1.0], np.float32)
    rewards = np.stack([gaps, np.zeros(5, np.float32)], axis=1)[..., None]
    workdir = epath.Path(tempfile.mkdtemp())
    evaluate.write_evaluation(
      workdir, {"model": rewards}, pairs, None, config.eval, 0
    )
    scores = json.loads((workdir / "eval.json").read_text())["models"]["model"]
    for name, number, accuracy in (
      ("all", 5, 2 / 5),
      (pair_scores.RECORDED, 4, 1 / 4),
      (pair_scores.JUDGE, 4, 3 / 4),
      (pair_scores.AGREED, 2, 1 / 2),
    ):
      self.assertEqual(scores[name]["num_pairs"], number)
      self.assertAlmostEqual(scores[name]["accuracy"]["value"], accuracy, 6)
    self.assertIn(pair_scores.JUDGE, (workdir / "report.html").read_text())


if __name__ == "__main__":
  absltest.main()
