"""What the synthetic crowd says of single responses."""

import dataclasses

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.record import parse_record
from jaxalign.data.synthetic import crowd

SMALL = dataclasses.replace(
  crowd.preset("labels"), num_annotators=20, num_test_annotators=10
)


class DrawTest(absltest.TestCase):
  def test_labels_change_no_vote(self):
    labelled = crowd.draw_records(SMALL, split="train")
    plain = crowd.draw_records(
      dataclasses.replace(SMALL, labels=False, label_votes=0), split="train"
    )
    without = [
      dataclasses.replace(r, labels=None, label_votes=None) for r in labelled
    ]
    self.assertEqual(without, plain)
    for record in labelled:
      self.assertEqual(np.sum(record.label_votes, axis=1).tolist(), [10, 10])
      self.assertEqual(parse_record(record.to_row(), where="f:1"), record)

  def test_the_whole_crowd_is_the_truth_and_votes_come_near_it(self):
    exact = dataclasses.replace(SMALL, label_votes=0)
    many = dataclasses.replace(SMALL, label_votes=10_000)
    true, near = (crowd.draw_records(c, split="test") for c in (exact, many))
    for record, voted in zip(true, near, strict=True):
      self.assertIsNone(record.label_votes)
      expected = [
        crowd.label_shares(SMALL, record.prompt, text)
        for text in record.responses
      ]
      np.testing.assert_allclose(record.labels, expected, atol=1e-12)
      np.testing.assert_allclose(voted.labels, expected, atol=0.03)

  def test_records_of_one_pair_share_their_labels(self):
    config = dataclasses.replace(SMALL, votes_per_pair=5)
    by_text = {}
    for record in crowd.draw_records(config, split="train"):
      for text, votes in zip(record.responses, record.label_votes, strict=True):
        known = by_text.setdefault((record.prompt, text), votes)
        self.assertEqual(known, votes)

  def test_who_was_preferred_changes_no_label(self):
    plain = dataclasses.replace(SMALL, labels=False, label_votes=0)
    records = crowd.draw_records(plain, split="test")
    swapped = [
      dataclasses.replace(r, responses=r.responses[::-1]) for r in records
    ]
    first, second = (
      crowd.with_labels(
        SMALL, given, np.ones(len(given)), np.random.default_rng(0)
      )
      for given in (records, swapped)
    )
    self.assertEqual(
      [r.label_votes for r in first], [r.label_votes[::-1] for r in second]
    )

  def test_refuses_votes_without_labels(self):
    with self.assertRaisesRegex(ValueError, "label_votes must be >= 0, and 0"):
      dataclasses.replace(SMALL, labels=False)


if __name__ == "__main__":
  absltest.main()
