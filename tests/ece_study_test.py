"""The script that tabulates ECE by K: shared sources, paired by folder."""

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
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_ece.py"))


def write(folder, sources, ece):
  folder.mkdir(parents=True)
  config = {"data": {"only_sources": sources}}
  (folder / "config.json").write_text(json.dumps(config))
  of = lambda value: {
    "ece": {"value": value, "noise_floor": {"mean": 0.01, "high": 0.02}},
    "accuracy": {"value": 1 - value},
  }
  by_source = {name: of(ece * (i + 1)) for i, name in enumerate(sources)}
  by_source["all"] = of(9.0)
  result = {"models": {"reward": by_source}}
  (folder / "eval.json").write_text(json.dumps(result))


class EceStudyTest(absltest.TestCase):
  def test_sources_that_all_models_share(self):
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      write(folder / "more_10", ["a", "b", "c"], 0.1)
      write(folder / "more_2", ["a", "b"], 0.2)
      (folder / "more_x").mkdir()
      self.assertEqual(SCRIPT["numbers"](folder), [2, 10])
      found = SCRIPT["scores"](folder / "more_10")
    self.assertAlmostEqual(found["ece"], 0.15)
    self.assertAlmostEqual(found["accuracy"], 0.85)
    self.assertAlmostEqual(found["floor"], 0.01)

  def test_a_row_per_number_with_the_paired_difference(self):
    of = lambda ece: {"ece": ece, "floor": 0.014, "accuracy": 0.7}
    two = [
      {"more": of(0.10 + seed), "even": of(0.12 + seed)} for seed in (0, 0.1)
    ]
    three = [{"more": of(0.05), "even": of(0.05)}] * 2
    lines = SCRIPT["report"]({3: three, 2: two})
    self.assertStartsWith(
      lines[2], "| 2 | 0.150 ± 0.071 | 0.170 ± 0.071 | -0.020 [-0.020, -0.020]"
    )
    self.assertIn("| 0.014 | 0.700 ± 0.000 |", lines[2])
    self.assertStartsWith(lines[3], "| 3 | 0.050 ± 0.000 | 0.050 ± 0.000 |")


if __name__ == "__main__":
  absltest.main()
