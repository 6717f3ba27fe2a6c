"""Steps of an epoch by counting, and the numbers that do not fit."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import epoch_plan

BUCKET_OF = np.array([0, 1, 1, 0, 1, 1, 1])


class Rows:
  """Seven rows of two sources."""

  source = np.array([0, 0, 0, 0, 0, 1, 1])
  source_names = ("a", "b")

  def __len__(self):
    return len(self.source)


def sizes(batch_size, mixing, rows_per_source=None):
  return epoch_plan.epoch_size(
    Rows(),
    BUCKET_OF,
    batch_size,
    mixing=mixing,
    rows_per_source=rows_per_source,
  )


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(
    (2, None, None, (4, 0)),  # two of the first bucket, five of the second
    (2, "proportional", None, (3, 0)),
    (2, "sequential", None, (3, 0)),  # 5 // 2 + 2 // 2
    (2, "stratified", None, (5, 5)),
    (4, "stratified", 9, (4, 9)),
  )
  def test_steps_and_rows(self, batch_size, mixing, given, expected):
    self.assertEqual(sizes(batch_size, mixing, given), expected)

  @parameterized.parameters(
    (8, "proportional", None, "number of pairs, got 8 and 7"),
    (4, "sequential", None, "got 4, and 2 of 'b'"),
    (3, "stratified", None, "number of sources .*, got 3 and 2"),
    (8, "stratified", 3, "must be >= 4, .*, got 3"),
  )
  def test_what_does_not_fit(self, batch_size, mixing, given, message):
    with self.assertRaisesRegex(ValueError, message):
      sizes(batch_size, mixing, given)


if __name__ == "__main__":
  absltest.main()
