"""Counts of what preferences hold, by hand."""

from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from jaxalign.data.records.record import Record
from jaxalign.data.stats import summary
from jaxalign.data.tokenization import encoding, tokenizer_files


def pair(chosen="a", rejected="b", prompt="Q", **columns):
  return Record(prompt=prompt, responses=(chosen, rejected), **columns)


class ShareTest(parameterized.TestCase):
  @parameterized.parameters((0, 10), (7, 10), (10, 10), (300, 500))
  def test_interval_is_wilsons(self, successes, count):
    found = summary.share(successes, count)
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    self.assertEqual(found.value, successes / count)
    self.assertAlmostEqual(found.low, expected.low, places=6)
    self.assertAlmostEqual(found.high, expected.high, places=6)

  def test_of_nothing(self):
    found = summary.share(0, 0)
    self.assertTrue(np.isnan(found.value))
    self.assertEqual((found.low, found.high, found.count), (0.0, 1.0, 0))


class LengthsTest(absltest.TestCase):
  def test_characters_and_tokens(self):
    records = [pair("äb", "c", "Qx"), pair("d" * 9, "e" * 5)]
    found = summary.characters(records)
    self.assertEqual(found["prompt"].tolist(), [2, 1])
    self.assertEqual(found["chosen"].tolist(), [2, 9])
    self.assertEqual(found["rejected"].tolist(), [1, 5])
    # One token per byte, no marker.
    found = summary.tokens(records, tokenizer_files.byte_tokenizer())
    self.assertEqual(found["chosen"].tolist(), [3, 9])
    self.assertEqual(found["prompt"].tolist(), [2, 1])
    with mock.patch.object(encoding, "AT_ONCE", 2):  # d d | d d | ...
      pieces = summary.tokens(records, tokenizer_files.byte_tokenizer())
    for part in summary.PARTS:
      self.assertEqual(pieces[part].tolist(), found[part].tolist())

  def test_quantiles(self):
    found = summary.quantiles(np.arange(11))
    self.assertEqual(
      found,
      {"min": 0, "p10": 1, "median": 5, "p90": 9, "max": 10, "mean": 5},
    )

  def test_longer_wins(self):
    records = [pair("aa", "b"), pair("a", "bb"), pair("a", "b")]
    self.assertEqual(summary.longer_wins(records).tolist(), [1, 0, 0.5])


class VotesTest(absltest.TestCase):
  def test_counted_votes(self):
    records = [
      pair(votes_chosen=3, votes_rejected=1),
      pair(votes_chosen=2, votes_rejected=0, votes_tie=1),
      pair(),
    ]
    np.testing.assert_array_equal(
      summary.vote_counts(records), [[3, 1, 0], [2, 0, 1]]
    )

  def test_votes_of_people_on_the_same_pair_are_put_together(self):
    records = [
      pair("a", "b", annotator="x"),
      pair("b", "a", annotator="y"),
      pair("a", "b", annotator="z", tie=True),
      pair("a", "c", annotator="x"),
      pair("b", "a", annotator="w"),
    ]
    np.testing.assert_array_equal(summary.vote_counts(records), [[2, 1, 1]])

  def test_none(self):
    self.assertEqual(summary.vote_counts([pair()]).shape, (0, 3))


class PeopleTest(absltest.TestCase):
  def test_pairs_per_annotator(self):
    records = [pair(annotator=name) for name in ("y", "x", "x")] + [pair()]
    found = summary.pairs_per_annotator(records)
    self.assertEqual(list(found.items()), [("x", 2), ("y", 1)])

  def test_position(self):
    records = [
      pair(position=0),
      pair(position=1),
      pair(position=1, tie=True),
      pair(),
    ]
    self.assertEqual(summary.first_wins(records).tolist(), [1, 0])


if __name__ == "__main__":
  absltest.main()
