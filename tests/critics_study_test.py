"""The script that compares critics: late means, last scores, differences."""

import json
import pathlib
import runpy
import sys
import tempfile
import unittest.mock

from absl.testing import absltest

from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_critics.py"))


class CriticsStudyTest(absltest.TestCase):
  def test_means_of_the_last_third_and_the_last_evaluation(self):
    rows = [
      {"train/kl": 0.1, "train/explained_variance": i / 10} for i in range(9)
    ]
    score = {"eval/label_worth": 1.0, "eval/judge_label_worth": 0.5}
    rows.insert(3, score | {"eval/kl": 1.0})
    rows.append({k: 2 * v for k, v in score.items()} | {"eval/kl": 3.0})
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      text = "".join(f"{json.dumps(row)}\n" for row in rows)
      (folder / "metrics.jsonl").write_text(text)
      found = SCRIPT["scores"](folder)
    self.assertAlmostEqual(found.pop("explained variance"), 0.7)
    self.assertEqual(
      found,
      {
        "returns out of range": 0.0,
        "worth by the model": 2.0,
        "worth by the crowd": 1.0,
        "KL, nats": 3.0,
      },
    )

  def test_each_critic_is_compared_with_its_control(self):
    columns = [*SCRIPT["LATE"], *SCRIPT["LAST"]]
    of = lambda value: dict.fromkeys(columns, value)
    runs = [
      {"scalar": of(0.0), "atoms": of(0.5 + seed), "labels": of(0.75 + seed)}
      for seed in (0.0, 1.0)
    ]
    lines = SCRIPT["report"](runs)
    self.assertStartsWith(lines[4], "| labels | 1.250 ± 0.707 |")
    self.assertStartsWith(lines[8], "| atoms less scalar | +1.000 [-5.353,")
    self.assertStartsWith(lines[9], "| labels less atoms | +0.250 [+0.250, +0")


if __name__ == "__main__":
  absltest.main()
