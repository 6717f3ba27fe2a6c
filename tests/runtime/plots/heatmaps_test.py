"""A matrix as a picture: it is one, and says what does not fit."""

from unittest import mock

import numpy as np
from absl.testing import absltest

from jaxalign.runtime.plots import heatmaps, style

PNG = b"\x89PNG"


class HeatMapTest(absltest.TestCase):
  def draw(self, values, **options):
    rows, columns = np.shape(values)
    return heatmaps.heat_map(
      values,
      [f"${i}" for i in range(rows)],
      [f"c{i}" for i in range(columns)],
      label="share",
      **options,
    )

  def test_numbers_names_and_gaps(self):
    values = np.array([[0.0, 0.5, np.nan], [1.0, 0.2, 0.7]])
    drawn = self.draw(values)
    self.assertStartsWith(drawn, PNG)
    self.assertNotEqual(drawn, self.draw(values, numbers=False))
    self.assertEqual(drawn, self.draw(values))
    self.assertNotEqual(drawn, self.draw(values, high=2.0))

  def test_many_rows_and_none(self):
    self.assertStartsWith(self.draw(np.ones((300, 2))), PNG)
    self.assertStartsWith(self.draw(np.ones((0, 2))), PNG)

  def test_a_long_label_stays_on_a_flat_map(self):
    with mock.patch.object(style, "to_png") as drawn:
      heatmaps.heat_map(
        np.eye(2),
        ["a", "b"],
        ["a", "b"],
        label="mean difference of win probabilities",
      )
    figure = drawn.call_args.args[0]
    figure.canvas.draw()
    bar = figure.axes[1]
    box = bar.yaxis.label.get_window_extent()
    self.assertGreaterEqual(box.y0, 0)
    self.assertLessEqual(box.y1, figure.bbox.y1)
    self.assertLessEqual(box.x1, figure.bbox.x1)

  def test_names_that_do_not_fit(self):
    with self.assertRaisesRegex(ValueError, r"\[1, 2\].*got \(2, 2\)"):
      heatmaps.heat_map(np.ones((2, 2)), ["a"], ["b", "c"], label="x")


if __name__ == "__main__":
  absltest.main()
