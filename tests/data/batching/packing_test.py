"""Packing: the published cases, every token once, and what it saves."""

import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.data.batching import packing


def flat(sequences):
  values = np.array([t for s in sequences for t in s], np.int32)
  offsets = np.cumsum([0, *map(len, sequences)])
  return values, offsets


def packed(sequences, capacity, layout, pad_id=0):
  rows = packing.pack([len(s) for s in sequences], capacity, layout=layout)
  return packing.lay_out(
    rows, *flat(sequences), capacity=capacity, pad_id=pad_id
  )


class CasesTest(parameterized.TestCase):
  # The expected rows are those of TRL's own tests.
  @parameterized.parameters(
    (
      "best_fit",
      4,
      [[1, 2, 3], [4, 5, 6, 7], [8]],
      [[4, 5, 6, 7], [1, 2, 3, 8]],
    ),
    (
      "best_fit_split",
      4,
      [[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 11], [12]],
      [[1, 2, 3, 4], [8, 9, 10, 11], [6, 7, 5, 12]],
    ),
    (
      "wrapped",
      3,
      [[1, 2, 3, 4], [5, 6], [7, 8]],
      [[1, 2, 3], [4, 5, 6], [7, 8, 0]],
    ),
  )
  def test_published(self, layout, capacity, sequences, expected):
    np.testing.assert_array_equal(
      packed(sequences, capacity, layout).tokens, expected
    )

  def test_segments_and_positions_of_a_row(self):
    found = packed([[5, 6], [7, 8, 9], [4]], 8, "best_fit", pad_id=99)
    np.testing.assert_array_equal(found.tokens, [[7, 8, 9, 5, 6, 4, 99, 99]])
    np.testing.assert_array_equal(found.segment_ids, [[1, 1, 1, 2, 2, 3, 0, 0]])
    np.testing.assert_array_equal(found.positions, [[0, 1, 2, 0, 1, 0, 0, 0]])
    for array in found:
      self.assertEqual(array.dtype, np.int32)

  def test_the_fullest_row_that_fits_is_taken(self):
    # Rows have 3 and 5 tokens left when the 3 comes.
    rows = packing.pack([7, 5, 3], 10)
    self.assertEqual([[p.sequence for p in r] for r in rows], [[0, 2], [1]])

  def test_what_does_not_fit_is_named(self):
    with self.assertRaisesRegex(ValueError, "sequence 1 has 5 tokens, allow"):
      packing.pack([4, 5], 4)
    with self.assertRaisesRegex(ValueError, "layout must be one of"):
      packing.pack([4], 4, layout="worst_fit")
    with self.assertRaisesRegex(ValueError, "capacity must be >= 1, got 0"):
      packing.pack([4], 0)

  def test_nothing_packs_into_nothing(self):
    for layout in packing.LAYOUTS:
      self.assertEqual(packing.pack([], 4, layout=layout), [])
      self.assertEqual(packing.pack([0, 0], 4, layout=layout), [])


class EveryTokenOnceTest(parameterized.TestCase):
  @parameterized.parameters(*packing.LAYOUTS)
  def test_random_lengths(self, layout):
    @given(st.lists(st.integers(0, 12), max_size=40), st.integers(12, 20))
    @settings(max_examples=150, deadline=None)
    def check(lengths, capacity):
      if layout != "best_fit":
        lengths = [3 * n for n in lengths]
      rows = packing.pack(lengths, capacity, layout=layout)
      seen = [np.zeros(n, int) for n in lengths]
      for row in rows:
        self.assertLessEqual(sum(p.stop - p.start for p in row), capacity)
        for piece in row:
          self.assertGreater(piece.stop, piece.start)
          seen[piece.sequence][piece.start : piece.stop] += 1
      for counts in seen:
        self.assertTrue((counts == 1).all())

    check()

  def test_at_most_a_fifth_more_rows_than_no_padding_at_all(self):
    lengths = np.random.default_rng(0).integers(1, 400, size=5000)
    for layout in packing.LAYOUTS:
      rows = packing.pack(lengths.tolist(), 512, layout=layout)
      self.assertLess(len(rows), 1.2 * lengths.sum() / 512)

  def test_arrays_hold_every_sequence(self):
    rng = np.random.default_rng(1)
    sequences = [rng.integers(1, 99, size=n).tolist() for n in (3, 7, 1, 5, 9)]
    found = packed(sequences, 10, "best_fit", pad_id=0)
    got = []
    for tokens, segments, positions in zip(*found, strict=True):
      for segment in range(1, segments.max() + 1):
        here = segments == segment
        np.testing.assert_array_equal(positions[here], np.arange(here.sum()))
        got.append(tokens[here].tolist())
      self.assertTrue((tokens[segments == 0] == 0).all())
    self.assertCountEqual(got, sequences)


if __name__ == "__main__":
  absltest.main()
