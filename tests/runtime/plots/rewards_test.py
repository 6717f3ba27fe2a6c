"""What is on the pictures: bars, bands, counts, labels; not the pixels."""

from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import collections

from jaxalign.runtime.plots import rewards as reward_plots
from jaxalign.runtime.plots import style

CURVE = (
  [0.0, 0.25, 0.5, 0.75, 1.0],
  [0.1, 0.0, 0.6, 0.9],
  [0.2, 0.0, 0.5, 0.9],
  [10, 0, 40, 100],
)


def heights(panel):
  return [patch.get_height() for patch in panel.patches]


def legend(panel):
  return [text.get_text() for text in panel.get_legend().get_texts()]


class FiguresTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.to_png = style.to_png

  def drawn(self, draw, *args, **options):
    """The figure before it becomes a file, having become one."""
    with mock.patch.object(style, "to_png", side_effect=lambda f: f):
      figure = draw(*args, **options)
    self.assertStartsWith(self.to_png(figure), b"\x89PNG")
    return figure

  def test_reliability_shows_gaps_noise_and_counts(self):
    upper, lower = self.drawn(reward_plots.reliability_diagram, CURVE).axes
    p, won, n = (np.array(CURVE[i])[[0, 2, 3]] for i in (1, 2, 3))
    np.testing.assert_allclose(heights(upper), won - p, atol=1e-12)
    np.testing.assert_allclose(
      [patch.get_y() for patch in upper.patches], p, atol=1e-12
    )
    observed = upper.lines[-1]
    np.testing.assert_allclose(observed.get_xydata(), np.stack([p, won], 1))
    (band,) = [
      c for c in upper.collections if isinstance(c, collections.PolyCollection)
    ]
    spread = 1.96 * np.sqrt(p * (1 - p) / n)
    corners = band.get_paths()[0].vertices
    for x, low, high in zip(
      p, np.maximum(p - spread, 0), np.minimum(p + spread, 1), strict=True
    ):
      at_x = corners[np.isclose(corners[:, 0], x), 1]
      np.testing.assert_allclose([at_x.min(), at_x.max()], [low, high])
    np.testing.assert_allclose(heights(lower), CURVE[3])

  def test_reliability_without_predictions(self):
    empty = (CURVE[0], [0.0] * 4, [0.0] * 4, [0] * 4)
    upper, _ = self.drawn(reward_plots.reliability_diagram, empty).axes
    self.assertIn("nothing to show", [t.get_text() for t in upper.texts])

  def test_reliability_refuses_what_does_not_fit(self):
    with self.assertRaisesRegex(ValueError, r"got shapes \(4,\), \(4,\)"):
      reward_plots.reliability_diagram((CURVE[0][1:], *CURVE[1:]))

  def test_reward_histograms_share_bins_and_leave_out_nan(self):
    rewards = [0.0, 1.0, 1.0, np.nan, np.inf]
    (panel,) = self.drawn(
      reward_plots.reward_histograms, rewards, [[-1.0], [0.0]], bins=4
    ).axes
    self.assertEqual(
      legend(panel), ["chosen: mean 0.667, n 3", "rejected: mean -0.5, n 2"]
    )
    edges = [np.unique(p.get_xy()[:, 0]) for p in panel.patches]
    np.testing.assert_allclose(edges, [np.linspace(-1, 1, 5)] * 2)

  def test_gaps_are_split_at_zero(self):
    gaps = [-2.0, -0.1, 0.0, 0.1, 0.2, 1.0, np.nan, 4.0]
    (panel,) = self.drawn(reward_plots.gap_histogram, gaps, bins=4).axes
    self.assertEqual(
      legend(panel),
      [
        "right order: 57.1 % of 7",
        "wrong order: 28.6 % of 7",
        "ties: 14.3 %",
      ],
    )
    self.assertEqual(sum(heights(panel)), 6)  # all but the tie and the NaN
    self.assertEqual(
      {round(patch.get_x() % 1, 9) for patch in panel.patches}, {0.0}
    )

  @parameterized.parameters(
    (reward_plots.reward_histograms, [], [np.nan]),
    (reward_plots.gap_histogram, []),
    (reward_plots.gap_histogram, [0.0, 0.0]),
    (reward_plots.reward_histograms, [1.0], [1.0]),
    (reward_plots.group_intervals, [], [], [], []),
  )
  def test_little_or_nothing_is_still_a_picture(self, draw, *args):
    options = {"label": "x"} if draw is reward_plots.group_intervals else {}
    self.assertStartsWith(draw(*args, **options), b"\x89PNG")

  def test_worst_group_is_marked_and_names_are_text(self):
    (panel,) = self.drawn(
      reward_plots.group_intervals,
      ["$a_1$", "b $", "none"],
      [70.0, 60.0, np.nan],
      [69.0, 50.0, np.nan],
      [71.0, 70.0, np.nan],
      label="accuracy, %",
    ).axes
    labels = panel.get_yticklabels()
    self.assertEqual([t.get_text() for t in labels], ["$a_1$", "b $", "none"])
    self.assertFalse(any(text.get_parse_math() for text in labels))
    (intervals,) = [
      c for c in panel.collections if isinstance(c, collections.LineCollection)
    ]
    first, worst = intervals.get_segments()[:2]
    np.testing.assert_allclose(first, [[69, 0], [71, 0]])
    np.testing.assert_allclose(worst, [[50, 1], [70, 1]])
    self.assertEqual(list(panel.lines[0].get_xdata()), [60.0, 60.0])
    self.assertEqual(panel.get_xlabel(), "accuracy, %")

  def test_group_intervals_refuse_lengths_that_differ(self):
    with self.assertRaisesRegex(ValueError, r"got 1, \(2,\)"):
      reward_plots.group_intervals(["a"], [1, 2], [1, 2], [1, 2], label="x")


if __name__ == "__main__":
  absltest.main()
