"""Combined recipes against their parents: the table of docs/results.md."""

import json
import pathlib
import runpy
import tempfile

from absl.testing import absltest
from scipy import stats

from tests import checkout

SCRIPT = runpy.run_path(str(checkout.ROOT / "docs/tabulate_combined.py"))


class CombinedStudyTest(absltest.TestCase):
  def write(self, folder, variant, seed, result):
    path = pathlib.Path(folder) / f"{variant}_{seed}"
    path.mkdir()
    (path / "eval.json").write_text(json.dumps(result))

  def test_paired_differences_by_hand(self):
    own = {0: 0.5, 1: 0.7, 2: 0.6, 7: 9.0}
    parent = {0: 0.4, 1: 0.5, 2: 0.6}
    low, high = stats.t.interval(0.95, 2, loc=0.1, scale=0.1 / 3**0.5)
    self.assertEqual(
      SCRIPT["against"](own, parent), f"+0.100 [{low:+.3f}, {high:+.3f}]"
    )
    for degrees, value in SCRIPT["QUANTILES"].items():
      self.assertAlmostEqual(stats.t.ppf(0.975, degrees), value, places=3)

  def test_scores_are_those_of_new_people_where_heads_are_mixed(self):
    line = {"groups": {"a": 0.9, "b": 0.6}, "nll": 0.4}
    scores = {
      "all": {"accuracy": {"value": 0.8}, "nll": {"value": 0.5}},
      "a": {"accuracy": {"value": 0.7}},
      "labels:judge": {"accuracy": {"value": 0.1}, "nll": {"value": 0.2}},
    }
    plain = {"models": {"model": scores}, "mixtures": {}}
    mixed = {**plain, "mixtures": {"model": {"new_users": [line]}}}
    for name, result, value in (
      ("worst_group", mixed, 0.6),
      ("worst_group", plain, 0.7),
      ("placed_nll", mixed, 0.4),
      ("placed_nll", plain, 0.5),
      ("judge_nll", plain, 0.2),
    ):
      self.assertEqual(SCRIPT[name](result), value, name)
    with tempfile.TemporaryDirectory() as folder:
      for seed in (0, 1):
        for variant in ("same_mixture", "same_mixture_more"):
          self.write(folder, variant, seed, mixed)
      self.write(folder, "groups_mixture_more", 0, mixed)  # of one seed
      _, _, *rows = SCRIPT["table"](pathlib.Path(folder))
    self.assertLen(rows, 1)
    self.assertIn("| +0.000 [+0.000, +0.000] |", rows[0])

  def test_every_row_is_a_variant(self):
    config = checkout.ROOT / "configs/rm_combined_crowd.py"
    variants = {*runpy.run_path(str(config))["VARIANTS"]}
    for name, (parents, _) in {**SCRIPT["ROWS"], **SCRIPT["CONTROLS"]}.items():
      self.assertEqual({name, *parents} - variants, set())


if __name__ == "__main__":
  absltest.main()
