"""Policies compared at equal KL, on curves whose answer is known."""

import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.experiments.policy import fairness
from jaxalign.experiments.reports import pipeline


def write_curve(workdir, name, kl, **groups):
  folder = epath.Path(workdir) / name
  folder.mkdir(parents=True)
  rows = [
    {"step": step, "eval/kl": distance}
    | {f"eval/judge/{g}": values[step] for g, values in groups.items()}
    for step, distance in enumerate(kl)
  ]
  text = "".join(f"{json.dumps(row)}\n" for row in [{"step": 0}, *rows])
  (folder / "metrics.jsonl").write_text(text)


class FairnessTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())
    write_curve(
      self.workdir, "single", (0, 2, 4), warm=(0, 2.0, 4.0), brief=(0, -1, -2.0)
    )
    write_curve(
      self.workdir, "maxmin", (0, 1, 3), warm=(0, 0.5, 1.5), brief=(0, 0.3, 0.9)
    )
    write_curve(self.workdir, "oracle", (0, 3.0), warm=(0, 1.8), brief=(0, 1.2))
    self.config = fairness.FairnessConfig(
      ("single", "maxmin", "oracle"), "oracle"
    )

  def test_all_are_read_where_all_have_been(self):
    found = fairness.compare(self.workdir, self.config)
    self.assertEqual(found["groups"], ["brief", "warm"])
    self.assertEqual(found["kl"], 3.0)
    single = found["policies"]["single"]
    self.assertAlmostEqual(single["at_equal_kl"]["warm"], 3.0)
    self.assertAlmostEqual(single["at_equal_kl"]["worst"], -1.5)
    self.assertAlmostEqual(single["at_end"]["worst"], -2.0)
    self.assertAlmostEqual(single["share"], -1.5 / 1.2)
    self.assertAlmostEqual(found["policies"]["maxmin"]["share"], 0.9 / 1.2)
    self.assertEqual(found["policies"]["oracle"]["share"], 1.0)

  def budgeted(self, *budgets):
    return fairness.compare(
      self.workdir, dataclasses.replace(self.config, budgets=budgets)
    )

  def test_at_the_largest_budget_that_all_have_spent(self):
    found = self.budgeted(1.0, 2.0, 3.5)
    self.assertEqual(found["kl"], 2.0)
    self.assertEqual([each["kl"] for each in found["budgets"]], [1.0, 2.0])
    one, two = (each["policies"] for each in found["budgets"])
    self.assertAlmostEqual(one["maxmin"]["gain"], 0.3)
    self.assertAlmostEqual(two["maxmin"]["gain"], 0.6)
    self.assertAlmostEqual(two["single"]["worst"], -1.0)
    # All curves are straight here, so the mean gain is half of the last.
    self.assertAlmostEqual(two["single"]["mean_gain"], -0.5)
    self.assertAlmostEqual(two["oracle"]["mean_gain"], 0.4)
    self.assertAlmostEqual(found["attainable"], 0.8)
    self.assertAlmostEqual(found["policies"]["maxmin"]["share"], 0.75)

  def test_the_mean_gain_is_the_area_under_a_bent_curve(self):
    write_curve(self.workdir, "bent", (0, 1, 0.5, 2), a=(0, 1, 9, 1))
    config = fairness.FairnessConfig(("bent",), "bent", (2.0,))
    (found,) = fairness.compare(self.workdir, config)["budgets"]
    # Up to 1, a rise; then from where it first was further, 9 to 1 over 1.5.
    levels = np.linspace(1, 2, 100_001)
    late = np.trapezoid(9 - 8 * (levels - 0.5) / 1.5, levels)
    got = found["policies"]["bent"]["mean_gain"]
    self.assertAlmostEqual(got, (0.5 + late) / 2, places=1)

  def test_without_a_budget_spent_where_the_least_moved_ended(self):
    found = self.budgeted(7.0)
    self.assertEqual(found["kl"], 3.0)
    self.assertEqual(found["budgets"], [])
    self.assertEmpty(pipeline.budget_section(found))

  def test_held_policies_are_worth_the_mean_of_their_last_evaluations(self):
    write_curve(
      self.workdir, "held", (0, 3, 1, 2), a=(0, 9, 1, 2), b=(1, 9, 4, 0)
    )
    config = fairness.FairnessConfig(("held",), "held", (2.0,), settled=2)
    found = fairness.compare(self.workdir, config)
    held = found["policies"]["held"]
    self.assertEqual(held["end_kl"], 1.5)
    self.assertEqual(held["at_end"], {"a": 1.5, "b": 2.0, "worst": 1.5})
    self.assertEqual(held["at_equal_kl"], held["at_end"])
    (budget,) = found["budgets"]
    self.assertEqual(budget["policies"]["held"]["worst"], 1.5)
    self.assertEqual(budget["policies"]["held"]["gain"], 1.5)
    # On the way up to 2 nats, where both went from 0 or 1 to 9 by 3 nats.
    self.assertAlmostEqual(budget["policies"]["held"]["mean_gain"], 3.0)
    with self.assertRaisesRegex(ValueError, "settled goes with one budget"):
      dataclasses.replace(config, budgets=(1.0, 2.0))

  def test_no_share_where_nothing_could_be_gained(self):
    write_curve(self.workdir, "idle", (0, 3.0), warm=(0, -0.1), brief=(0, -0.2))
    config = fairness.FairnessConfig(("single", "idle"), "idle")
    found = fairness.compare(self.workdir, config)
    self.assertIsNone(found["policies"]["single"]["share"])

  def test_refuses(self):
    for budgets in ((2.0, 1.0), (1.0, 1.0), (0.0,)):
      with self.assertRaisesRegex(ValueError, "budgets must be > 0 and rise"):
        fairness.FairnessConfig(("a",), "a", budgets)
    with self.assertRaisesRegex(
      ValueError, "best must be one of a, b, got 'c'"
    ):
      fairness.FairnessConfig(("a", "b"), "c")
    write_curve(self.workdir, "mute", (0, 1.0))
    config = fairness.FairnessConfig(("mute",), "mute")
    with self.assertRaisesRegex(ValueError, "no row with eval/kl and eval/jud"):
      fairness.compare(self.workdir, config)

  def test_the_page_compares_at_equal_kl(self):
    found = fairness.compare(self.workdir, self.config)
    end = {
      "standard_error": {"brief": 0.01, "warm": 0.5},
      "prompts": ["Q1", "Q2"],
      "answers": ["short", "sure"],
      "utilities": [{"warm": 1.0}, {"warm": 0.5}],
    }
    answers = {name: {"start": end, "end": end} for name in found["policies"]}
    bars, table, texts, curves = pipeline.policy_sections(found, answers)
    self.assertEqual(
      [m.label for m in bars.pictures.marks], ["start", *answers]
    )
    self.assertEqual(bars.pictures.marks[0].error, [1.96 * 0.01, 1.96 * 0.5])
    self.assertLen(table.rows, 1 + len(answers))
    (prompt, first), _ = texts.samples
    self.assertEqual(prompt, "Q1")
    self.assertEqual([*first][0], "start (warm 1.00)")
    self.assertLen(first, 1 + len(answers))
    self.assertLen({panel.ylim for panel in curves.pictures}, 1)
    self.assertLen(pipeline.policy_sections(found, {}), 3)
    _, _, budgets, _ = pipeline.policy_sections(self.budgeted(1.0, 3.0), {})
    self.assertEqual(
      budgets.columns, ["policy", "1.0 nats", "3.0 nats", "mean up to 3.0 nats"]
    )
    self.assertLen(budgets.rows, 3)


if __name__ == "__main__":
  absltest.main()
