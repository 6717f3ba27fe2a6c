"""Training curves: panels, splits, gaps in the data; not the pixels."""

from unittest import mock

import numpy as np
from absl.testing import absltest

from jaxalign.runtime.plots import curves, style


def legend(panel):
  return [text.get_text() for text in panel.get_legend().get_texts()]


class TrainingCurvesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.to_png = style.to_png

  def drawn(self, draw, *args, **options):
    """The figure before it becomes a file, having become one."""
    with mock.patch.object(style, "to_png", side_effect=lambda f: f):
      figure = draw(*args, **options)
    self.assertStartsWith(self.to_png(figure), b"\x89PNG")
    return figure

  ROWS = (
    {"step": 1, "train/loss": 0.7, "train/gradient_norm": 2.0},
    {"step": 2, "train/loss": float("inf"), "train/gradient_norm": 1.5},
    {"step": 2, "eval/loss": 0.65},
    {"step": 3, "train/loss": 0.5},
  )

  def test_splits_of_one_noun_share_a_panel_and_keep_their_colour(self):
    panels = self.drawn(curves.training_curves, self.ROWS).axes
    norm, loss = sorted(panels, key=lambda panel: panel.get_ylabel())
    self.assertEqual(
      [norm.get_ylabel(), loss.get_ylabel()], ["gradient norm", "loss"]
    )
    self.assertEqual(legend(loss), ["eval", "train"])
    self.assertEqual(loss.get_xlabel(), "step")
    np.testing.assert_array_equal(
      loss.lines[1].get_xydata(), [[1, 0.7], [2, np.nan], [3, 0.5]]
    )
    self.assertEqual(loss.lines[1].get_color(), norm.lines[0].get_color())
    self.assertNotEqual(loss.lines[0].get_color(), loss.lines[1].get_color())

  def test_keys_choose_and_unknown_ones_are_named(self):
    figure = self.drawn(curves.training_curves, self.ROWS, keys=["train/loss"])
    self.assertLen(figure.axes, 1)
    with self.assertRaisesRegex(ValueError, "no row has 'loss'; there are: ev"):
      curves.training_curves(self.ROWS, keys=["loss"])

  def test_a_target_is_dotted_and_marked_lines_are_dashed(self):
    line = lambda label, dashed: curves.line(
      self.ROWS, "train/loss", label, style.BLUE, dashed=dashed
    )
    lines = [line("train", False), line("held-out", True)]
    (panel,) = self.drawn(
      curves.over_steps, [curves.Panel("loss, nats", lines, 0.6)]
    ).axes
    self.assertEqual([drawn.get_linestyle() for drawn in panel.lines],
                     ["-", "--", ":"])  # fmt: skip
    self.assertEqual([*panel.lines[2].get_ydata()], [0.6, 0.6])
    self.assertEqual(legend(panel), ["train", "held-out", "target"])
    self.assertEqual(panel.get_ylabel(), "loss, nats")

  def test_a_long_line_is_smoothed_over_its_pale_values(self):
    values = np.where(np.arange(200) % 2, 1.0, -1.0)
    rows = [{"step": i, "loss": v} for i, v in enumerate(values)]
    (panel,) = self.drawn(curves.training_curves, rows).axes
    raw, smooth = panel.lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    self.assertLess(raw.get_alpha(), 0.5)
    self.assertLess(np.abs(smooth.get_ydata()[20:180]).max(), 0.2)
    self.assertEqual(legend(panel), ["loss"])

  def test_a_running_mean_is_of_what_is_there(self):
    found = curves.running_mean(np.array([1.0, np.nan, 3.0, 8.0]), 3)
    np.testing.assert_allclose(found, [1.0, np.nan, 5.5, 5.5])
    np.testing.assert_allclose(
      curves.running_mean(np.arange(5.0), 3), [0.5, 1, 2, 3, 3.5]
    )

  def test_no_rows_are_still_a_picture(self):
    self.assertStartsWith(curves.training_curves([]), b"\x89PNG")


if __name__ == "__main__":
  absltest.main()
