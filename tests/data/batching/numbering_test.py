"""Labels as numbers: sorted in the end, or fixed from the start."""

import numpy as np
from absl.testing import absltest

from jaxalign.data.batching import numbering


class NumberingTest(absltest.TestCase):
  def test_names_are_sorted_in_the_end(self):
    labels = numbering.Numbering("group")
    for label in ("z", None, "a", "m", "z", None):
      labels.add(label)
    numbers, names = labels.finish()
    self.assertEqual(names, ("a", "m", "z"))
    np.testing.assert_array_equal(numbers, [2, -1, 0, 1, 2, -1])
    self.assertEqual(numbers.dtype, np.int32)

  def test_fixed_names_keep_their_order_and_allow_no_other(self):
    labels = numbering.Numbering("source", ("z", "a"))
    for label in ("a", "z", None):
      labels.add(label)
    with self.assertRaisesRegex(ValueError, "source must be one of z, a, got"):
      labels.add("b")
    numbers, names = labels.finish()
    self.assertEqual(names, ("z", "a"))
    np.testing.assert_array_equal(numbers, [1, 0, -1])

  def test_without_names(self):
    labels = numbering.Numbering("group")
    labels.add(None)
    numbers, names = labels.finish()
    self.assertEqual(names, ())
    np.testing.assert_array_equal(numbers, [-1])


if __name__ == "__main__":
  absltest.main()
