"""Features on a plane: a panel per state, both sides, shares on the axes."""

from unittest import mock

import numpy as np
from absl.testing import absltest

from jaxalign.runtime.plots import rewards, style


class PlanesTest(absltest.TestCase):
  def test_picture_has_a_panel_per_state_and_leaves_out_nan(self):
    points = np.arange(12.0).reshape(3, 2, 2)
    points[0, 0, 0] = np.nan
    with mock.patch.object(style, "to_png", side_effect=lambda f: f):
      drawn = rewards.feature_planes(
        {"before": (points, (0.5, 0.25)), "after": (points[:0], (0, 0))}
      )
    before, after = drawn.axes
    self.assertIn("50% of the variance", before.get_xlabel())
    self.assertLen(before.collections[0].get_offsets(), 2)
    self.assertEqual(after.texts[0].get_text(), "nothing to show")


if __name__ == "__main__":
  absltest.main()
