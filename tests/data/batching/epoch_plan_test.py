"""Who is in an epoch, with whom, and in which order."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import epoch_plan


def rng(seed=0):
  return np.random.default_rng(seed)


# 60 rows of source 0, 25 of 1, 15 of 2; three lengths.
SOURCE = rng(9).permutation(np.repeat([0, 1, 2], [60, 25, 15]))
BUCKET = rng(8).integers(0, 3, size=100)


class StratifiedTest(parameterized.TestCase):
  @parameterized.parameters(15, 25, 40, 60, 101)
  def test_every_batch_holds_the_same_number_of_each_source(self, number):
    epoch = epoch_plan.stratified(BUCKET, SOURCE, 9, number, rng())
    self.assertEqual(epoch.rows.shape, (number // 3, 9))
    for rows in epoch.rows:
      np.testing.assert_array_equal(SOURCE[rows], np.arange(9) % 3)

  @parameterized.parameters(15, 25, 40, 60, 102)
  def test_sources_are_resampled_to_the_same_size(self, number):
    epoch = epoch_plan.stratified(BUCKET, SOURCE, 3, number, rng())
    shown = np.bincount(epoch.rows.reshape(-1), minlength=100)
    for source, size in enumerate((60, 25, 15)):
      own = shown[source == SOURCE]
      self.assertEqual(own.sum(), number)
      # As evenly as it goes: no row twice more often than another.
      self.assertEqual(own.min(), number // size)
      self.assertEqual(own.max(), -(-number // size))

  def test_another_epoch_draws_other_rows_of_a_large_source(self):
    first, second = (
      set(epoch_plan.stratified(BUCKET, SOURCE, 3, 15, rng(s)).rows[:, 0])
      for s in (0, 1)
    )
    self.assertNotEqual(first, second)

  def test_a_batch_is_as_long_as_its_longest_row(self):
    epoch = epoch_plan.stratified(BUCKET, SOURCE, 9, 60, rng())
    np.testing.assert_array_equal(epoch.bucket, BUCKET[epoch.rows].max(axis=1))
    # Rows of one length meet: rows at random would almost always need the
    # largest of three buckets.
    self.assertLess(np.mean(epoch.bucket == 2), 0.6)
    self.assertNotEqual(sorted(epoch.bucket), epoch.bucket.tolist())


class SequentialTest(absltest.TestCase):
  def test_sources_come_one_after_another(self):
    epoch = epoch_plan.sequential(BUCKET, SOURCE, 4, rng())
    np.testing.assert_array_equal(
      SOURCE[epoch.rows], np.repeat([0, 1, 2], [15, 6, 3])[:, None] + [0] * 4
    )
    rows = epoch.rows.reshape(-1)
    self.assertLen(set(rows.tolist()), 96)
    self.assertTrue((BUCKET[epoch.rows] <= epoch.bucket[:, None]).all())
    other = epoch_plan.sequential(BUCKET, SOURCE, 4, rng(1))
    self.assertNotEqual(other.rows.tolist(), epoch.rows.tolist())


class ProportionalTest(absltest.TestCase):
  def test_sources_take_part_by_their_size(self):
    shown = np.zeros(3)
    for seed in range(50):
      epoch = epoch_plan.proportional(BUCKET, 10, rng(seed))
      shown += np.bincount(SOURCE[epoch.rows[:3].reshape(-1)], minlength=3)
    np.testing.assert_allclose(
      shown / shown.sum(), [0.6, 0.25, 0.15], atol=0.03
    )

  def test_rows_of_every_length_are_left_out_alike(self):
    left_out = np.zeros(3)
    for seed in range(100):
      rows = epoch_plan.proportional(BUCKET, 8, rng(seed)).rows.reshape(-1)
      missing = np.setdiff1d(np.arange(100), rows)
      left_out += np.bincount(BUCKET[missing], minlength=3)
    shares = np.bincount(BUCKET) / 100
    np.testing.assert_allclose(left_out / left_out.sum(), shares, atol=0.08)

  def test_every_row_once_but_for_the_remainder(self):
    epoch = epoch_plan.proportional(BUCKET, 8, rng())
    self.assertEqual(epoch.rows.shape, (12, 8))
    self.assertLen(set(epoch.rows.reshape(-1).tolist()), 96)
    self.assertTrue((BUCKET[epoch.rows] <= epoch.bucket[:, None]).all())


class InOrderTest(absltest.TestCase):
  def test_rows_that_fill_up_are_minus_one(self):
    epoch = epoch_plan.in_order(np.array([1, 0, 1, 1, 0]), 2)
    np.testing.assert_array_equal(epoch.rows, [[1, 4], [0, 2], [3, -1]])
    np.testing.assert_array_equal(epoch.bucket, [0, 1, 1])


if __name__ == "__main__":
  absltest.main()
