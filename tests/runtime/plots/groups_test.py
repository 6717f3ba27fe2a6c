"""What is on the pictures of groups: heights, points and marks."""

from unittest import mock

import numpy as np
from absl.testing import absltest

from jaxalign.runtime.plots import groups, style


class GroupFiguresTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.to_png = style.to_png

  def drawn(self, draw, *args, **options):
    """The figure before it becomes a file, having become one."""
    with mock.patch.object(style, "to_png", side_effect=lambda f: f):
      figure = draw(*args, **options)
    self.assertStartsWith(self.to_png(figure), b"\x89PNG")
    return figure

  def test_bars_are_means_and_points_are_runs(self):
    values = {"mean": [[0.1, 0.5], [0.3, 0.7]], "maxmin": [[0.4, 0.4]] * 2}
    (panel,) = self.drawn(
      groups.group_bars, values, ("few", "$many$"), label="utility"
    ).axes
    heights = [patch.get_height() for patch in panel.patches]
    np.testing.assert_allclose(heights, [0.2, 0.6, 0.4, 0.4])
    points = panel.collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 1], [0.1, 0.5, 0.3, 0.7])
    self.assertLen({*points[:, 0].tolist()}, 4)
    self.assertEqual(
      [tick.get_text() for tick in panel.get_xticklabels()], ["few", "$many$"]
    )
    self.assertEqual(panel.get_ylabel(), "utility")

  def test_the_top_of_each_curve_is_marked(self):
    kl = [0.0, 0.3, 0.7]
    curves = {
      "few": {"proxy": [0.0, 1.0, 2.0], "oracle": [0.0, 0.5, 0.2]},
      "many": {"proxy": [0.0, 1.0, 1.5], "oracle": [0.0, 0.8, 0.9]},
    }
    few, many = self.drawn(
      groups.rewards_against_kl, kl, curves, label="deviations"
    ).axes
    stars = lambda panel: [
      line.get_xydata()[0].tolist()
      for line in panel.lines
      if line.get_marker() == "*"
    ]
    self.assertEqual(stars(few), [[0.7, 2.0], [0.3, 0.5]])
    self.assertEqual(stars(many), [[0.7, 1.5], [0.7, 0.9]])
    self.assertEqual((few.get_title(), many.get_title()), ("few", "many"))

  def test_the_root_of_the_kl_has_panels_of_its_own(self):
    kl = [-0.01, 0.25, 1.0]  # an estimate may be below 0
    axes = self.drawn(
      groups.rewards_against_kl,
      kl,
      {"few": {"proxy": [0.0, 1.0, 2.0], "oracle": [0.0, 1.0, 2.0]}},
      label="utility",
      root=True,
    ).axes
    self.assertLen(axes, 2)
    for panel, at in zip(axes, (kl, [0.0, 0.5, 1.0]), strict=True):
      np.testing.assert_allclose(panel.lines[0].get_xdata(), at)
      self.assertEqual(panel.lines[2].get_linestyle(), "--")
    self.assertEqual(axes[1].get_xlabel(), "root of the KL, √nats")

  def test_what_does_not_fit(self):
    with self.assertRaisesRegex(ValueError, r"'a' must be \[R, 2\], got \(1,"):
      groups.group_bars({"a": [[1.0]]}, ("x", "y"), label="u")
    with self.assertRaisesRegex(ValueError, "'p' of 'g' must be as long as kl"):
      groups.rewards_against_kl([0.0], {"g": {"p": [1, 2]}}, label="r")
    with self.assertRaisesRegex(ValueError, "at least one group"):
      groups.rewards_against_kl([0.0], {}, label="r")


if __name__ == "__main__":
  absltest.main()
