"""What is drawn of each mark: heights, points, names and limits."""

import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import collections

from jaxalign.runtime.plots import panels, style

PNG = b"\x89PNG"


def axes_of(*marks, **options):
  """The axes of a panel that can become a file."""
  figure = panels.Panel("x", "y", marks, **options).figure()
  assert style.to_png(figure).startswith(PNG)
  return figure.axes[0]


def legend(axes):
  return [text.get_text() for text in axes.get_legend().get_texts()]


class PanelTest(parameterized.TestCase):
  def test_lines_break_where_values_are_not_finite(self):
    axes = axes_of(panels.Line("$loss$", (1, 2, 3), (0.7, np.inf, 0.5)))
    np.testing.assert_array_equal(
      axes.lines[0].get_xydata(), [[1, 0.7], [2, np.nan], [3, 0.5]]
    )
    self.assertEqual(legend(axes), ["$loss$"])
    self.assertFalse(axes.get_legend().get_texts()[0].get_parse_math())

  def test_dashes_levels_and_stars(self):
    axes = axes_of(
      panels.Line("a", (0, 1, 2), (1, 3, 2), dashed=True, star=True),
      levels={"target": 2.5, "_zero": 0.0},
    )
    dashed, star, level, _ = axes.lines
    self.assertEqual(dashed.get_linestyle(), "--")
    self.assertEqual(star.get_xydata().tolist(), [[1, 3]])
    self.assertEqual([*level.get_ydata()], [2.5, 2.5])
    self.assertEqual(legend(axes), ["target", "a"])

  def test_a_long_line_is_smoothed_over_its_pale_values(self):
    values = np.where(np.arange(200) % 2, 1.0, -1.0)
    raw, smooth = axes_of(panels.Line("a", np.arange(200), values)).lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    self.assertLess(raw.get_alpha(), 0.5)
    self.assertLess(np.abs(smooth.get_ydata()[20:180]).max(), 0.2)

  def test_a_running_mean_is_of_what_is_there(self):
    found = panels.running_mean(np.array([1.0, np.nan, 3.0, 8.0]), 3)
    np.testing.assert_allclose(found, [1.0, np.nan, 5.5, 5.5])
    np.testing.assert_allclose(
      panels.running_mean(np.arange(5.0), 3), [0.5, 1, 2, 3, 3.5]
    )

  def test_error_bars_have_their_length(self):
    axes = axes_of(panels.Line("", (1, 2), (5, 6), error=(0.5, 2.0)))
    (bars,) = axes.collections
    np.testing.assert_allclose(
      [segment[:, 1] for segment in bars.get_segments()], [[4.5, 5.5], [4, 8]]
    )
    axes = axes_of(panels.Bars("b", (0,), (3,), error=(1,)))
    (bars,) = axes.collections
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [2, 4])

  def test_runs_are_dots_beside_each_other(self):
    axes = axes_of(
      panels.Bars("mean", (0, 1), (0.2, 0.6), runs=((0.1, 0.5), (0.3, 0.7)))
    )
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 1], [0.1, 0.5, 0.3, 0.7])
    self.assertLen({*points[:, 0].tolist()}, 4)

  def test_intervals_have_rows_whose_names_are_text(self):
    axes = axes_of(
      panels.Intervals(
        "", (70, 60, np.nan), (69, 50, np.nan), (71, 70, np.nan)
      ),
      rows=["$a_1$", "b $", "none"],
    )
    labels = axes.get_yticklabels()
    self.assertEqual([t.get_text() for t in labels], ["$a_1$", "b $", "none"])
    self.assertFalse(any(text.get_parse_math() for text in labels))
    (intervals,) = [
      c for c in axes.collections if isinstance(c, collections.LineCollection)
    ]
    first, second = intervals.get_segments()[:2]
    np.testing.assert_allclose(first, [[69, 0], [71, 0]])
    np.testing.assert_allclose(second, [[50, 1], [70, 1]])

  @parameterized.parameters(
    (panels.Line("a", (), ()),),
    (panels.Bars("a", (), ()),),
    (panels.Histogram("a", (), (0, 1)),),
    (panels.Intervals("a", ()),),
    (panels.Band("a", (), (), ()),),
  )
  def test_nothing_is_said_to_be_nothing(self, mark):
    shown = [text.get_text() for text in axes_of(mark).texts]
    self.assertEqual(shown, ["nothing to show"])

  def test_lengths_must_match(self):
    with self.assertRaisesRegex(ValueError, "line 'a': x and y must be as lo"):
      axes_of(panels.Line("a", (1, 2), (1,)))

  def test_panels_alike_share_their_axes(self):
    short = panels.Panel("x", "y", [panels.Line("a", (0, 1), (0, 1))])
    long = panels.Panel("x", "y", [panels.Line("a", (0, 9), (-5, 0))])
    empty = panels.Panel("x", "y", [panels.Line("a", (), ())])
    one, two, three = panels.alike([short, long, empty], "xy")
    self.assertEqual((one.xlim, one.ylim), (two.xlim, two.ylim))
    self.assertEqual(three.ylim, one.ylim)
    self.assertLess(one.ylim[0], -4.9)
    self.assertGreater(one.xlim[1], 8.9)
    self.assertIsNone(panels.alike([short, long])[0].xlim)
    self.assertEqual(panels.alike([empty]), [empty])

  def test_equal_panels_are_equal_bytes(self):
    draw = lambda y: panels.Panel("x", "y", [panels.Line("a", (0, 1), y)]).png()
    self.assertEqual(draw((0, 1)), draw((0, 1)))
    self.assertNotEqual(draw((0, 1)), draw((0, 2)))


class HeatMapTest(absltest.TestCase):
  def map(self, values, **options):
    rows, columns = np.shape(values)
    return panels.HeatMap(
      values,
      [f"${i}" for i in range(rows)],
      [f"c{i}" for i in range(columns)],
      label="mean difference of win probabilities",
      **options,
    )

  def test_numbers_names_and_gaps(self):
    values = [[0.0, 0.5, np.nan], [1.0, 0.2, 0.7]]
    axes = self.map(values).figure().axes[0]
    shown = [text.get_text() for text in axes.texts]
    self.assertEqual(shown, ["0.00", "0.50", "1.00", "0.20", "0.70"])
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    self.assertEqual(names, ["$0", "$1"])
    self.assertEmpty(self.map(values, numbers=False).figure().axes[0].texts)

  def test_many_rows_and_none(self):
    for shape in ((300, 2), (0, 2)):
      self.assertStartsWith(self.map(np.ones(shape)).png(), PNG)

  def test_a_long_label_stays_on_a_flat_map(self):
    figure = self.map(np.eye(2)).figure()
    figure.canvas.draw()
    box = figure.axes[1].yaxis.label.get_window_extent()
    self.assertGreaterEqual(box.y0, 0)
    self.assertLessEqual(box.y1, figure.bbox.y1)
    self.assertLessEqual(box.x1, figure.bbox.x1)

  def test_names_that_do_not_fit(self):
    with self.assertRaisesRegex(ValueError, r"\[1, 2\].*got \(2, 2\)"):
      panels.HeatMap(np.ones((2, 2)), ["a"], ["b", "c"], label="x")


if __name__ == "__main__":
  absltest.main()
