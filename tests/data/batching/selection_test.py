"""Some rows of a dataset: the same rows, numbered anew."""

import numpy as np
from absl.testing import absltest

from jaxalign.data.batching import loader
from tests.data.batching import loader_test

ROWS = np.array([3, 5, 6, 10, 21, 22, 40, 44])


class SelectionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.all = loader_test.dataset()
    self.some = loader.Selection(self.all, ROWS)

  def test_rows_and_sources_are_those_of_the_dataset(self):
    self.assertLen(self.some, 8)
    np.testing.assert_array_equal(self.some.source, self.all.source[ROWS])
    np.testing.assert_array_equal(self.some.widths, self.all.widths[ROWS])
    self.assertEqual(self.some.source_names, self.all.source_names)
    got = self.some.collate(np.array([7, 0]), 32, 0)
    expected = self.all.collate(np.array([44, 3]), 32, 0)
    for name, value in expected.items():
      np.testing.assert_array_equal(got[name], value)

  def test_an_epoch_holds_every_selected_row_and_no_other(self):
    made = loader_test.make(self.some, batch_size=2)
    self.assertIsInstance(made, loader.Batches)
    margins = np.concatenate([batch["margin"] for batch in made])
    np.testing.assert_array_equal(np.sort(margins), ROWS)

  def test_nothing_left_is_an_error(self):
    with self.assertRaisesRegex(ValueError, "none of 50 rows is selected"):
      loader.Selection(self.all, ROWS[:0])


if __name__ == "__main__":
  absltest.main()
