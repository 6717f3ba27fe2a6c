"""Layouts hold the same sequences, and a gap of nonsense is no pass."""

import numpy as np
from absl.testing import absltest

from jaxalign.experiments.reports import parity
from tests.models.hf import families_test


class ComparisonTest(absltest.TestCase):
  def test_layouts_hold_the_same_sequences_without_the_padding_token(self):
    config = families_test.tiny("llama", max_positions=32, pad_id=3)
    made = parity.layouts(config, 5, 12, 0)
    self.assertEqual(set(made), {"right", "left", "both", "wide"})
    expected = [ids[where] for ids, where in zip(*made["right"], strict=True)]
    self.assertLen(expected[0], 12)
    for ids, mask in made.values():
      for row, want in enumerate(expected):
        np.testing.assert_array_equal(ids[row][mask[row]], want)
      self.assertNotIn(3, ids[mask])
      self.assertTrue(np.all(ids[~mask] == 3))
    short = families_test.tiny("llama", max_positions=12, pad_id=3)
    self.assertNotIn("wide", parity.layouts(short, 5, 12, 0))

  def test_gaps(self):
    gap = parity.largest_gap
    self.assertEqual(gap(np.array([1.0, 2.0]), np.array([[1.0], [2.5]])), 0.5)
    self.assertEqual(gap(np.zeros(2), np.zeros(3)), np.inf)
    for value, passed in ((0.5, True), (1.5, False), (np.nan, False)):
      check = parity.Check("x", gap(np.array([value]), np.zeros(1)), 1.0)
      self.assertEqual(check.passed, passed)

  def test_a_gap_relative_to_a_reference(self):
    gap = parity.relative_gap
    self.assertAlmostEqual(gap(np.array([9.0, 1.5]), np.array([10.0, 1])), 0.1)
    self.assertAlmostEqual(gap(np.array([-9.0]), np.array([-10.0])), 0.1)
    self.assertEqual(gap(np.zeros(2), np.zeros(2)), 0.0)
    self.assertEqual(gap(np.ones(2), np.zeros(2)), np.inf)
    self.assertEqual(gap(np.ones(2), np.ones(3)), np.inf)
    self.assertTrue(np.isnan(gap(np.array([np.nan]), np.ones(1))))
    self.assertTrue(np.isnan(gap(np.ones(1), np.array([np.nan]))))


if __name__ == "__main__":
  absltest.main()
