"""Pictures of label shares are pictures, also of nothing."""

import numpy as np
from absl.testing import absltest

from jaxalign.runtime.plots import rewards

EDGES = np.linspace(0, 1, 3)


class LabelFiguresTest(absltest.TestCase):
  def draw(self, count, predicted=(0.2, 0.8)):
    return rewards.label_shares(
      (EDGES, [0.2, 0.8], [0.3, 0.7], count),
      ("cheap: 1 $", "dear: 2 $"),
      predicted,
      (0.3, 0.7),
    )

  def test_equal_pictures_are_equal_files(self):
    self.assertEqual(self.draw([5, 9]), self.draw([5, 9]))
    self.assertNotEqual(self.draw([5, 9]), self.draw([9, 5]))
    self.assertTrue(self.draw([0, 0]).startswith(b"\x89PNG"))

  def test_shares_and_labels_are_as_many(self):
    with self.assertRaisesRegex(ValueError, "predicted must be one share for"):
      self.draw([5, 9], predicted=(0.2, 0.3, 0.5))


if __name__ == "__main__":
  absltest.main()
