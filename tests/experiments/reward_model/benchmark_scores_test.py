"""RewardBench's numbers, by hand and by the authors' own program."""

import importlib.util
import unittest
from unittest import mock

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.record import Record
from jaxalign.experiments.reward_model import benchmark_scores
from tests import trainers_test


def pair(subset):
  return Record("p", ("a", "b"), group=subset)


def several(subset, right, wrong, id=None):
  ratings = {"overall": (1.0,) * right + (0.0,) * wrong}
  return Record(
    "p", ("a",) * (right + wrong), group=subset, ratings=ratings, id=id
  )


def scores(records, rewards, version):
  return benchmark_scores.scores_of(
    records, [np.array(each, np.float32) for each in rewards], version
  )


def drawn(seed, *, round_to=1):
  """Prompts with ties in both forms, and rewards that often tie."""
  rng = np.random.default_rng(seed)
  records, rewards = [], []
  for number in rng.permutation(12):
    for form, right in (("ref", 1), ("tied", int(rng.integers(2, 5)))):
      wrong = int(rng.integers(2, 6))
      records.append(several("Ties", right, wrong, f"{form}:{number}"))
      means = np.r_[np.full(right, 1.5), np.zeros(wrong)]
      rewards.append(np.round(rng.normal(means), round_to))
  return records, rewards


class FirstTest(absltest.TestCase):
  def test_sections_weigh_subsets_by_their_official_sizes(self):
    subsets = ("math-prm", "math-prm", "hep-cpp", "hep-go", "mt-bench-easy")
    rewards = [(2, 1), (1, 2), (3, 1), (1, 1), (0, -1)]
    found = scores([*map(pair, subsets)], rewards, 1)
    self.assertEqual(
      {name: each["value"] for name, each in found.subsets.items()},
      {"math-prm": 0.5, "hep-cpp": 1.0, "hep-go": 0.0, "mt-bench-easy": 1.0},
    )
    reasoning = (984 * 0.5 + 164 * 1.0 + 164 * 0.0) / (984 + 2 * 164)
    self.assertAlmostEqual(found.sections["Reasoning"]["value"], reasoning)
    self.assertEqual([*found.sections], ["Chat", "Reasoning"])
    self.assertAlmostEqual(found.overall, (1 + reasoning) / 2)
    self.assertEqual(found.sections["Reasoning"]["number"], 4)
    # One subset of two prompts varies: 0.5 / sqrt(2), times its weight.
    self.assertAlmostEqual(
      found.sections["Reasoning"]["error"], 0.75 * 0.5 / np.sqrt(2)
    )

  def test_subsets_of_others_are_sections(self):
    found = scores([pair("mine"), pair("yours")], [(1, 0), (0, 1)], 1)
    self.assertEqual([*found.sections], ["mine", "yours"])
    self.assertEqual(found.overall, 0.5)


class SecondTest(absltest.TestCase):
  def test_best_of_four_shares_a_tie(self):
    records = [several("Math", 1, 3) for _ in range(4)]
    rewards = [(3, 1, 1, 0), (1, 1, 1, 1), (1, 2, 0, 0), (2, 2, 0, 0)]
    found = scores(records, rewards, 2)
    self.assertAlmostEqual(
      found.subsets["Math"]["value"], (1 + 0.25 + 0 + 0.5) / 4
    )

  def test_ties_by_hand(self):
    records = [
      several("Ties", 1, 2, "ref:0"),
      several("Ties", 2, 1, "tied:0"),
    ]
    found = scores(records, [(3.0, 1.0, 0.0), (4.0, 3.0, 1.0)], 2)
    # s_ref = 2, s_tied = 2, w = 1: every share is 1, the ratio is 2.
    self.assertAlmostEqual(found.overall, 1.0 + 0.01 * np.tanh(1.0), places=6)

  def test_errors(self):
    for records, message in (
      ([several("Ties", 1, 1, "3")], "must begin with ref: or tied:, got '3'"),
      ([several("Ties", 1, 1, "ref:3")], "one of 1 prompts, such as 3"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        scores(records, [(1.0, 0.0)], 2)
    with self.assertRaisesRegex(ValueError, "of one version .*, got both"):
      benchmark_scores.version_of([pair("a"), several("b", 1, 3)])
    with self.assertRaisesRegex(ValueError, "missing field 'subset'"):
      benchmark_scores.version_of([pair(None)])


@unittest.skipUnless(
  importlib.util.find_spec("rewardbench"), "needs rewardbench 0.1.4"
)
class AuthorsProgramTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.theirs = trainers_test.unmodified(
      "rewardbench",
      "utils.py",
      fastchat=mock.MagicMock(),
      fastchat__conversation=mock.MagicMock(),
      rewardbench=mock.MagicMock(),
      rewardbench__models=mock.MagicMock(),
    )
    self.constants = trainers_test.unmodified("rewardbench", "constants.py")

  def test_sections(self):
    counts, sections = (
      self.constants.EXAMPLE_COUNTS,
      self.constants.SUBSET_MAPPING,
    )
    ours = {
      name: [*weights.items()]
      for name, weights in benchmark_scores.SECTIONS.items()
    }
    self.assertEqual(
      ours,
      {name: [(s, counts[s]) for s in of] for name, of in sections.items()},
    )
    rng = np.random.default_rng(0)
    names = rng.choice([*counts], 300)
    rewards = rng.integers(0, 3, (300, 2))
    found = scores([*map(pair, names)], rewards, 1)
    grouped = {
      name: np.mean(
        [r[0] > r[1] for n, r in zip(names, rewards, strict=True) if n == name]
      )
      for name in {*names}
    }
    wanted = self.theirs.calculate_scores_per_section(counts, sections, grouped)
    self.assertEqual(
      {k: round(v["value"], 12) for k, v in found.sections.items()},
      {k: round(float(v), 12) for k, v in wanted.items()},
    )

  def test_best_of_four(self):
    from datasets import Dataset

    rewards = np.random.default_rng(1).integers(0, 4, (200, 4))
    rows = Dataset.from_dict(
      {"text": ["t"] * 800, "scores": rewards.reshape(-1).astype(float)}
    )
    wanted = self.theirs.reroll_and_score_dataset(rows, [4] * 200)["results"]
    found = scores([several("Math", 1, 3)] * 200, rewards, 2)
    self.assertAlmostEqual(found.overall, np.mean([*wanted]), places=12)

  def test_ties(self):
    for seed in range(20):
      records, rewards = drawn(seed, round_to=3)
      rows = [
        {
          "id": record.id,
          "scores": [float(np.float32(r)) for r in each],
          "num_correct": int(sum(record.ratings["overall"])),
        }
        for record, each in zip(records, rewards, strict=True)
      ]
      _, wanted = self.theirs.process_single_model(rows)
      found = scores(records, rewards, 2).overall
      self.assertAlmostEqual(found, wanted, places=5)


if __name__ == "__main__":
  absltest.main()
