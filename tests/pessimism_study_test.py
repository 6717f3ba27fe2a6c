"""The script of the study of pessimistic rewards: picks, intervals, tables."""

import json
import pathlib
import runpy
import sys
import tempfile
import unittest.mock

import numpy as np
from absl.testing import absltest
from scipy import stats

from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_pessimism.py"))


def draws(seed=0):
  """Rewards of 3 models that err each in its own way, and the truth."""
  rng = np.random.default_rng(seed)
  truth = rng.normal(size=(40, 4))
  doubtful = rng.random((40, 4)) < 0.3
  error = rng.normal(size=(3, 40, 4)) * np.where(doubtful, 3.0, 0.1)
  return truth + error, truth


class PessimismStudyTest(absltest.TestCase):
  def write(self, folder, seed):
    """Samples and policies of a draw; returns what its samples are."""
    rewards, truth = draws()  # of the same answers, by other models
    rewards = rewards + seed * np.random.default_rng(9).normal(size=(3, 40, 4))
    (folder / f"best_{seed}").mkdir(parents=True)
    rows = [
      ["p", ["r"] * 4, rewards[:, p].T.tolist(), truth[p][:, None].tolist()]
      for p in range(40)
    ]
    lines = [json.dumps({"config": 1}), *map(json.dumps, rows)]
    file = folder / f"best_{seed}/samples.jsonl"
    file.write_text("\n".join(lines) + "\n")
    for number, name in enumerate(SCRIPT["POLICIES"]):
      (folder / f"{name}_{seed}").mkdir()
      (folder / f"{name}_{seed}/eval.json").write_text("{}")
      points = [
        {"step": 0, "train/kl": 0.0},
        {SCRIPT["JUDGE"]: 0.0, SCRIPT["PROXY"]: 0.0, "eval/kl": 0.0},
        {SCRIPT["JUDGE"]: 1.0, SCRIPT["PROXY"]: 2.0, "eval/kl": 4.0},
        {SCRIPT["JUDGE"]: 0.1 * number + seed, SCRIPT["PROXY"]: 3.0,
         "eval/kl": 5.0},
      ]  # fmt: skip
      text = "".join(f"{json.dumps(row)}\n" for row in points)
      (folder / f"{name}_{seed}/metrics.jsonl").write_text(text)
    return rewards, truth

  def test_samples_are_read_back(self):
    with tempfile.TemporaryDirectory() as name:
      rewards, truth = self.write(pathlib.Path(name), 0)
      found = SCRIPT["samples"](pathlib.Path(name) / "best_0")
    np.testing.assert_array_equal(found[0], rewards)
    np.testing.assert_array_equal(found[1], truth)

  def test_the_best_of_all_is_what_the_bound_picks(self):
    rewards, truth = draws()
    found = SCRIPT["picked"](rewards, truth)
    rows = np.arange(len(truth))
    bound = rewards.mean(axis=0) - 3 * rewards.std(axis=0, ddof=1)
    for name, by in (
      ("single", rewards[0]),
      ("k = 3", bound),
      ("truth", truth),
    ):
      best = truth[rows, by.argmax(axis=1)].mean()
      self.assertAlmostEqual(found[name][-1], best, places=5)
      self.assertAlmostEqual(found[name][0], truth.mean(), places=5)
    self.assertGreater(found["k = 3"][-1], found["k = 0"][-1])
    self.assertGreater(found["k = 0"][-1], found["single"][-1])

  def test_models_of_other_votes_are_one_of_each_draw(self):
    first, truth = draws()
    second = first + 10
    found = SCRIPT["of_votes"]([(first, truth), (second, truth)])
    self.assertLen(found, 3)
    np.testing.assert_array_equal(found[1][0], [first[1], second[1]])
    with self.assertRaisesRegex(ValueError, "the same answers"):
      SCRIPT["of_votes"]([(first, truth), (second, truth + 1)])

  def test_intervals_count_the_truths_that_they_hold(self):
    truth = np.zeros((1, 3))
    rewards = np.array([[[0.0, 5.0, -1.0]], [[1.0, 6.0, 1.0]]])
    found = SCRIPT["intervals"](rewards, truth)
    share, picks = found["truth within 2 deviations"]
    self.assertAlmostEqual(share, 2 / 3)  # 5.5 ± 1.4 does not hold 0
    self.assertEqual(picks, 0.0)
    np.testing.assert_allclose(found["mean less truth"], [2.0, 5.5])
    np.testing.assert_allclose(
      found["deviation"], [4 / 3 / np.sqrt(2), 1 / np.sqrt(2)]
    )

  def test_policies_are_compared_on_their_way_and_at_their_end(self):
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      for seed in (0, 1):
        self.write(folder, seed)
      one = SCRIPT["policy"](folder / "k1_1")
      lines = "\n".join(SCRIPT["report"](folder))
    self.assertEqual(one["start"], 0.0)
    self.assertEqual(one["at 2 nats"], 0.5)  # half of the way to 4
    self.assertEqual((one["best"], one["end"]), (1.2, 1.2))
    self.assertIn("| k1 | 0.00 ± 0.00 | 0.50 ± 0.00 |", lines)
    self.assertIn("| truth within 2 deviations |", lines)
    self.assertIn("| k = 0.5 |", lines)

  def test_one_draw_has_no_models_of_other_votes(self):
    with tempfile.TemporaryDirectory() as name:
      self.write(pathlib.Path(name), 0)
      lines = "\n".join(SCRIPT["report"](pathlib.Path(name)))
    self.assertIn("Models of the same votes", lines)
    self.assertNotIn("other votes", lines)

  def test_paired_differences_by_hand(self):
    low, high = stats.t.interval(0.95, 2, loc=0.1, scale=0.1 / 3**0.5)
    self.assertEqual(
      SCRIPT["against"]([0.5, 0.7, 0.6], [0.4, 0.5, 0.6]),
      f"+0.10 [{low:+.2f}, {high:+.2f}]",
    )
    self.assertEqual(SCRIPT["against"]([1.0, 2.0], [1.0, 2.0]), "+0.00")


if __name__ == "__main__":
  absltest.main()
