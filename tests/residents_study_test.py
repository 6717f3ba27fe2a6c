"""The study of a policy for residents: its files, and its table."""

import json
import pathlib
import runpy
import sys
import tempfile
import unittest.mock

import numpy as np
from absl.testing import absltest

from jaxalign.data.records import reader
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "residents.py"))
VOTES = SCRIPT["statement_votes"]


class FilesTest(absltest.TestCase):
  def test_nobody_and_no_statement_is_on_both_sides(self):
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3 - 1
    votes = VOTES.Votes(
      [("Q", f" statement {i}") for i in range(40)],
      [f"who-{u}" for u in range(60)],
      rng.integers(-2, 2, (60, 40)).astype(np.int8),
      group,
    )
    found = SCRIPT["rows_of"](votes, "Why?")
    sets = lambda name: [
      {row[name] for row in found[side]} for side in ("learn", "judge")
    ]
    for name, all_of_them in (("person", 60), ("text", 40)):
      learned, judged = sets(name)
      self.assertEmpty(learned & judged)
      self.assertBetween(len(judged) / all_of_them, 0.15, 0.6)
    learned, judged = sets("person")
    self.assertLen(learned | judged, 60 - sum(g < 0 for g in group[
      [u for u in range(60) if f"who-{u}" not in learned]
    ]))  # fmt: skip
    for row in found["judge"]:
      self.assertEqual(row["group"], str(group[int(row["person"][4:])]))
    self.assertTrue(any("group" not in row for row in found["learn"]))
    one = found["learn"][7]
    place = int(one["person"][4:]), int(one["item"])
    self.assertEqual(one["vote"], votes.value[place])
    self.assertEqual(one["text"], f"statement {place[1]}")
    # What `train_reward` reads: pairs behind a prompt of one turn.
    file = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    file /= "learn.jsonl"
    file.write_text("".join(f"{json.dumps(r)}\n" for r in found["learn"]))
    records, report = reader.read_records([f"item_votes:{file}"])
    self.assertNotEmpty(records)
    self.assertEqual(report.counts["skipped"], 0)
    (turn,) = records[0].prompt
    self.assertEqual(turn.role, "user")
    self.assertEndsWith(turn.content, "this question: Why?")
    self.assertStartsWith(records[0].responses[0], "statement")

  def test_a_policy_is_judged_on_other_subjects(self):
    self.assertEmpty({*SCRIPT["ABOUT"]} & {*SCRIPT["HELD_OUT"]})


class TableTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(1)
    self.start = rng.normal(size=(24, 8, 2))

  def test_leads_are_of_the_worst_off_group_and_paired(self):
    rows = {
      "start": self.start,
      "again": self.start[:, ::-1],
      "maxmin": self.start + [0.5, 0.1],
      "by_mixture": self.start[:, :1],
    }
    lines = SCRIPT["table"](rows, 8)
    cells = {
      line.split(" | ")[0][2:]: line[2:-2].split(" | ") for line in lines
    }
    means = self.start.mean((0, 1))
    self.assertEqual(cells["the start"][1], f"{means.min():+.2f}")
    self.assertEqual(cells["the start"][2:5], ["–", "–", "–"])
    # Every prompt gains the same, so no draw of prompts gains anything else.
    maxmin = cells["policy of the mixture's minimum"]
    self.assertEqual(maxmin[3], "+0.50 [+0.50, +0.50], least 0.00")
    self.assertEqual(maxmin[4], "+0.10 [+0.10, +0.10], least 0.00")
    least = (means + [0.5, 0.1]).min() - means.min()
    self.assertStartsWith(maxmin[2], f"{least:+.2f} [")
    self.assertEqual(maxmin[5], "–")
    self.assertStartsWith(cells["the start"][5], f"{least:+.2f} [")
    self.assertIn("best of 8 by the mixture's minimum", cells)
    again = cells["control: the start, another seed"]
    self.assertEqual(
      again[2].replace("-", "+"), "+0.00 [+0.00, +0.00], least 0.00"
    )

  def test_intervals_are_as_wide_as_means_over_prompts_spread(self):
    gains = np.random.default_rng(2).normal(0.3, 1.0, size=(24, 1, 1))
    rows = {"start": self.start, "maxmin": self.start + gains}
    found = SCRIPT["drawn"](rows)
    leads = found["maxmin"][:, 0] - found["start"][:, 0]
    self.assertAlmostEqual(leads[0], gains.mean())
    error = gains.std() / np.sqrt(24)
    self.assertAlmostEqual(leads[1:].std(), error, delta=0.1 * error)
    low, high = map(float, SCRIPT["interval"](leads)[7:19].split(", "))
    self.assertAlmostEqual(high - low, 4 * error, delta=0.6 * error)

  def test_the_best_is_picked_by_the_least_reward(self):
    scored = np.zeros((24, 8, 2))
    scored[:, 2] = [5.0, -1.0]
    scored[:, 6] = [0.2, 0.1]
    found = SCRIPT["picked"](self.start, scored)
    np.testing.assert_array_equal(found, self.start[:, 6:7])


if __name__ == "__main__":
  absltest.main()
