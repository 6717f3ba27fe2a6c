"""What figures compute: bins, shares, bands and labels."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.runtime.plots import figures, panels

CURVE = (
  [0.0, 0.25, 0.5, 0.75, 1.0],
  [0.1, 0.0, 0.6, 0.9],
  [0.2, 0.0, 0.5, 0.9],
  [10, 0, 40, 100],
)
ROWS = (
  {"step": 1, "train/loss": 0.7, "train/gradient_norm": 2.0},
  {"step": 2, "train/loss": float("inf"), "train/gradient_norm": 1.5},
  {"step": 2, "eval/loss": 0.65},
  {"step": 3, "train/loss": 0.5},
)


def labels(panel):
  return [mark.label for mark in panel.marks]


class FiguresTest(parameterized.TestCase):
  def test_splits_of_one_noun_share_a_panel_and_keep_their_colour(self):
    loss, norm = sorted(
      figures.training_curves(ROWS), key=lambda panel: panel.y, reverse=True
    )
    self.assertEqual((norm.y, loss.y), ("gradient norm", "loss"))
    self.assertEqual(labels(loss), ["eval", "train"])
    self.assertEqual(loss.marks[1].x, (1, 2, 3))
    self.assertEqual(loss.marks[1].colour, norm.marks[0].colour)
    self.assertNotEqual(loss.marks[0].colour, loss.marks[1].colour)

  def test_keys_choose_and_unknown_ones_are_named(self):
    self.assertLen(figures.training_curves(ROWS, ["train/loss"]), 1)
    self.assertEmpty(figures.training_curves([]))
    with self.assertRaisesRegex(ValueError, "no row has 'loss'; there are: ev"):
      figures.training_curves(ROWS, ["loss"])

  def test_reliability_shows_gaps_noise_and_counts(self):
    upper, lower = figures.reliability(CURVE)
    p, won, n = (np.array(CURVE[i])[[0, 2, 3]] for i in (1, 2, 3))
    _, band, gap, observed = upper.marks
    np.testing.assert_allclose(gap.heights, won - p)
    np.testing.assert_allclose(gap.bottom, p)
    np.testing.assert_allclose(observed.y, won)
    spread = 1.96 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(band.low, np.maximum(p - spread, 0))
    np.testing.assert_allclose(band.high, np.minimum(p + spread, 1))
    np.testing.assert_allclose(lower.marks[0].heights, CURVE[3])
    empty = (CURVE[0], [0.0] * 4, [0.0] * 4, [0] * 4)
    self.assertEmpty(figures.reliability(empty)[0].marks)
    with self.assertRaisesRegex(ValueError, r"got shapes \(4,\), \(4,\)"):
      figures.reliability((CURVE[0][1:], *CURVE[1:]))

  def test_reward_histograms_share_bins_and_leave_out_nan(self):
    rewards = [0.0, 1.0, 1.0, np.nan, np.inf]
    panel = figures.reward_histograms(rewards, [[-1.0], [0.0]], bins=4)
    self.assertEqual(
      labels(panel), ["chosen: mean 0.667", "rejected: mean -0.5"]
    )
    for mark in panel.marks:
      np.testing.assert_allclose(mark.edges, np.linspace(-1, 1, 5))
    self.assertLen(panel.marks[0].values, 3)

  def test_gaps_are_split_at_zero(self):
    gaps = [-2.0, -0.1, 0.0, 0.1, 0.2, 1.0, np.nan, 4.0]
    panel = figures.gap_histogram(gaps, bins=4)
    self.assertEqual(
      labels(panel),
      [
        "right order: 57.1 % of 7",
        "wrong order: 28.6 % of 7",
        "ties: 14.3 %",
      ],
    )
    self.assertEqual(sum(len(mark.values) for mark in panel.marks[:2]), 6)
    np.testing.assert_allclose(panel.marks[0].edges, np.arange(-2, 5))

  def test_the_longer_of_equal_many_pairs_by_bin(self):
    panel = figures.longer_wins([1, 2, 3, 4], [0, 1, 1, 0.5], num_bins=2)
    (line,) = panel.marks
    np.testing.assert_allclose(line.y, [0.5, 0.75])
    np.testing.assert_allclose(line.x, [2**0.5, 12**0.5])
    np.testing.assert_allclose(line.error[0], 1.96 * (0.25 / 2) ** 0.5)
    with self.assertRaisesRegex(ValueError, "ratio and wins must be as long"):
      figures.longer_wins([1.0], [1.0, 0.0])

  def test_counts_from_the_largest_down(self):
    (line,) = figures.ranked_counts([1, 7, 2], label="a", unit="b").marks
    self.assertEqual([*line.y], [7, 2, 1])
    self.assertEqual(line.label, "largest: 70.0 % of all")

  def test_label_shares_are_as_many_as_labels(self):
    curve = ([0, 0.5, 1], [0.2, 0.8], [0.3, 0.7], [5, 0])
    left, right = figures.label_shares(
      curve, ("a", "b"), (0.2, 0.8), (0.3, 0.7)
    )
    self.assertEqual([*left.marks[1].x], [0.2])
    self.assertEqual(labels(right), ["predicted", "crowd"])
    with self.assertRaisesRegex(ValueError, "predicted must be one share for"):
      figures.label_shares(curve, ("a", "b"), (0.2, 0.3, 0.5), (0.3, 0.7))

  def test_planes_have_a_panel_per_state_and_leave_out_nan(self):
    points = np.arange(12.0).reshape(3, 2, 2)
    points[0, 0, 0] = np.nan
    before, after = figures.feature_planes(
      {"before": (points, (0.5, 0.25)), "after": (points[:0], (0, 0))}
    )
    self.assertIn("50% of the variance", before.x)
    self.assertLen(before.marks[0].x, 2)
    self.assertEmpty(after.marks)

  def test_bars_of_a_group_are_means_of_runs(self):
    values = {"mean": [[0.1, 0.5], [0.3, 0.7]], "maxmin": [[0.4, 0.4]]}
    panel = figures.group_bars(values, ("few", "many"), label="utility")
    mean, maxmin = panel.marks
    np.testing.assert_allclose(mean.heights, [0.2, 0.6])
    np.testing.assert_allclose(mean.runs, [[0.1, 0.5], [0.3, 0.7]])
    self.assertIsNone(maxmin.runs)
    self.assertEqual(panel.columns, ("few", "many"))
    with self.assertRaisesRegex(ValueError, r"'a' must be \[R, 2\], got \(1,"):
      figures.group_bars({"a": [[1.0]]}, ("x", "y"), label="u")

  def test_lengths_fill_their_axis(self):
    short = np.geomspace(10, 200, 500)
    panel = figures.lengths({"a": [*short, 5000]}, label="characters")
    low, high = panel.figure().axes[0].get_xlim()
    self.assertBetween(low, 5, 10)
    self.assertBetween(high, 5000, 10_000)

  @parameterized.parameters(
    lambda v: figures.lengths({"a": v, "b": 2 * v}, label="characters"),
    lambda v: figures.longer_wins(1 + v, (v > 0.5).astype(float)),
    lambda v: figures.ranked_counts(np.ceil(9 * v), label="a", unit="b"),
    figures.vote_shares,
    figures.gap_histogram,
    lambda v: figures.reward_histograms(v, v / 2),
    lambda v: figures.against_strength(v, v, label="a", level=0.5),
  )
  def test_nothing_and_one_value_are_drawn_too(self, draw):
    for size in (0, 1, 50):
      panel = draw(np.linspace(0.1, 1, size))
      self.assertIsInstance(panel, panels.Panel)
      self.assertStartsWith(panel.png(), b"\x89PNG")


if __name__ == "__main__":
  absltest.main()
