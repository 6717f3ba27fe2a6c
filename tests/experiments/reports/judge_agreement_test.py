"""Agreement with a second judge by strength, against loops and by people."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records.record import Record
from jaxalign.data.stats import summary
from jaxalign.experiments.reports import judge_agreement


class ByStrengthTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.strength = rng.normal(size=203)
    sure = 1 / (1 + np.exp(-2 * self.strength))
    self.judge = np.where(rng.random(203) < sure, 0.9, 0.2)
    self.strength[7], self.judge[11], self.judge[12] = np.nan, np.nan, 0.5

  def test_tenths_of_those_that_have_both(self):
    found = judge_agreement.by_strength(self.strength, self.judge)
    known = [i for i in range(203) if i not in (7, 11, 12)]
    known.sort(key=lambda i: self.strength[i])
    self.assertLen(found, 10)
    for group, begin in zip(found, range(0, 200, 20), strict=True):
      mine = known[begin : begin + 20]
      self.assertEqual(group["pairs"], 20)
      self.assertAlmostEqual(group["strength"], self.strength[mine].mean())
      share = float(np.mean(self.judge[mine] > 0.5))
      self.assertAlmostEqual(group["agrees"], share)
      wilson = summary.share(20 * share, 20)
      self.assertAlmostEqual(group["low"], wilson.low)
      self.assertAlmostEqual(group["high"], wilson.high)

  def test_people_who_give_one_answer_each_time_widen_it(self):
    # Each of 20 people agrees with the judge always or never.
    people = np.arange(200, dtype=np.int32) // 10
    judge = np.where(people % 2, 0.9, 0.1)
    strength = people + 0.0  # so that each tenth has two of them, who differ
    by_pairs = judge_agreement.by_strength(strength, judge)
    by_people = judge_agreement.by_strength(strength, judge, people)
    for one, other in zip(by_pairs, by_people, strict=True):
      self.assertEqual(one["agrees"], other["agrees"])
      self.assertLess(one["high"] - one["low"], 0.6)
      self.assertGreater(other["high"] - other["low"], 0.95)

  @parameterized.parameters(0, 1)
  def test_too_few_say_nothing(self, number):
    known = np.full(5, np.nan)
    known[:number] = 1.0
    self.assertEqual(judge_agreement.by_strength(np.ones(5), known), [])
    self.assertEqual(judge_agreement.sections({"train": []}), [])

  def test_records_and_page(self):
    records = [
      Record("p", ("a", "b"), strength=float(i), judge_prob=0.9 * (i > 3))
      for i in range(20)
    ]
    records.append(Record("p", ("a", "b")))
    found = judge_agreement.of_records(records)
    self.assertEqual([g["agrees"] for g in found[:3]], [0.0, 0.0, 1.0])
    self.assertEqual(
      judge_agreement.sentence(found),
      "a second judge confirms 0.0 % [0.0, 65.8] of the labels of the weakest "
      "tenth, and 100.0 % [34.2, 100.0] of the strongest",
    )
    (figure,) = judge_agreement.sections({"train": found, "eval": []})
    self.assertEqual([panel.title for panel in figure.pictures], ["train"])


if __name__ == "__main__":
  absltest.main()
