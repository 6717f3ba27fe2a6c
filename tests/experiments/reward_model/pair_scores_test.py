"""Held-out pairs under the recorded labels, a second judge's, and both."""

import json
import tempfile

import jax
import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.batching import pair_dataset
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
    dataset = pair_dataset.encode_pairs(
      found, tokenizer, max_length=config.data.max_length
    )
    pairs = preferences.Pairs(found, dataset, dataset.counts)
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


class OverPeopleTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.config = pair_scores.EvalConfig(num_samples=400)
    # Half of 30 people are predicted at 0.95, the others at 0.4.
    self.annotator = np.repeat(np.arange(30), 20)
    right = rng.random(600) < np.where(self.annotator % 2, 0.95, 0.4)
    size = np.abs(rng.normal(size=600)) + 0.1
    self.gaps = np.where(right, size, -size).astype(np.float32)
    self.subsets = {"all": np.arange(600), "some": np.arange(80, 500)}

  def scores(self, annotator):
    return pair_scores.summarise(
      self.gaps,
      self.subsets,
      self.config,
      3,
      pair_scores.clusters_of(annotator),
    )

  def test_intervals_are_as_wide_as_people_differ(self):
    over_people, over_pairs = self.scores(self.annotator), self.scores(
      np.full(600, -1)
    )  # fmt: skip
    self.assertEqual(over_people["all"]["num_people"], 30)
    self.assertEqual(over_people["some"]["num_people"], 21)
    self.assertNotIn("num_people", over_pairs["all"])
    right = (self.gaps > 0).reshape(30, 20).mean(axis=1)
    error = 1.96 * right.std(ddof=1) / np.sqrt(30)
    for subset in self.subsets:
      for name in pair_scores.SCORES:
        wide, thin = over_people[subset][name], over_pairs[subset][name]
        self.assertEqual(wide["value"], thin["value"])
        if name != "ece":
          self.assertBetween(wide["value"], wide["low"], wide["high"])
          self.assertGreater(
            wide["high"] - wide["low"], 1.5 * (thin["high"] - thin["low"])
          )
    accuracy = over_people["all"]["accuracy"]
    self.assertAlmostEqual(
      accuracy["high"] - accuracy["low"], 2 * error, delta=0.3 * error
    )
    self.assertEqual(
      over_people["all"]["ece"]["noise_floor"],
      over_pairs["all"]["ece"]["noise_floor"],
    )

  def test_a_person_per_pair_is_the_bootstrap_over_pairs(self):
    people = np.arange(600)
    found = pair_scores.summarise(
      self.gaps, self.subsets, self.config, 3, people
    )
    plain = pair_scores.summarise(self.gaps, self.subsets, self.config, 3)
    for name in pair_scores.SCORES:
      wide, thin = found["some"][name], plain["some"][name]
      for end in ("low", "high"):
        self.assertAlmostEqual(wide[end], thin[end], delta=0.015)

  def test_who_counts_as_a_person(self):
    few = np.repeat(np.arange(9), 3)
    self.assertIsNone(pair_scores.clusters_of(few))
    self.assertIsNone(pair_scores.clusters_of(np.arange(40)))
    self.assertIsNone(pair_scores.clusters_of(np.full(40, -1)))
    some = np.array([4, -1, *range(20, 30), 4, -1])
    self.assertEqual(
      pair_scores.clusters_of(some).tolist(), [0, 11, *range(1, 11), 0, 12]
    )
    people = [Record("Q", ("a", "b"), annotator=n) for n in ("u", None, "t")]
    self.assertEqual(pair_scores.annotators(people).tolist(), [1, -1, 0])

  def test_the_mean_over_people(self):
    right = (self.gaps > 0).astype(np.float32)
    low, high = pair_scores.mean_over_people(
      right, self.annotator, jax.random.key(0), num_people=30, num_samples=400
    )
    accuracy = self.scores(self.annotator)["all"]["accuracy"]
    self.assertAlmostEqual(float(low), accuracy["low"], delta=0.02)
    self.assertAlmostEqual(float(high), accuracy["high"], delta=0.02)


if __name__ == "__main__":
  absltest.main()
