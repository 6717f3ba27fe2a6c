"""The judge of the synthetic crowd knows what its groups want."""

import dataclasses

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.record import parse_record
from jaxalign.data.synthetic import crowd

SMALL = dataclasses.replace(
  crowd.preset("two_groups"),
  num_annotators=20,
  num_test_annotators=10,
  label_noise=0.5,
  judge=True,
)


class JudgeTest(absltest.TestCase):
  def test_changes_no_vote_and_no_noise_changes_it(self):
    plain = dataclasses.replace(SMALL, judge=False)
    judged = crowd.draw_records(SMALL, split="train")
    self.assertEqual(
      [dataclasses.replace(record, judge_prob=None) for record in judged],
      crowd.draw_records(plain, split="train"),
    )
    for record in judged[:50]:
      gap = np.subtract(
        *(crowd.utilities(SMALL, record.prompt, t) for t in record.responses)
      )[SMALL.groups.index(record.group)]
      expected = 1 / (1 + np.exp(-gap / SMALL.temperature))
      self.assertAlmostEqual(record.judge_prob, expected, places=12)
      self.assertEqual(parse_record(record.to_row(), where="f:1"), record)

  def test_noise_of_one_half_turns_a_quarter_of_clear_labels(self):
    clear = dataclasses.replace(SMALL, temperature=0.02, num_annotators=400)
    records = crowd.draw_records(clear, split="train")
    probs = np.array([record.judge_prob for record in records])
    wrong = (probs[np.abs(probs - 0.5) > 0.4] < 0.5).mean()  # no ties
    self.assertAlmostEqual(wrong, 0.25, delta=0.02)  # 4 standard errors

  def test_pooled_votes_are_judged_by_the_whole_crowd(self):
    pooled = dataclasses.replace(SMALL, votes_per_pair=10, aggregate=True)
    clear = dataclasses.replace(pooled, label_noise=0.0)
    for record in crowd.draw_records(pooled, split="test"):
      probs = crowd.vote_probs(clear, record.prompt, *record.responses)
      self.assertAlmostEqual(record.judge_prob, probs @ (0.8, 0.2), places=12)


if __name__ == "__main__":
  absltest.main()
