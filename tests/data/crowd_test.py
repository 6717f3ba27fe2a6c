"""The synthetic crowd votes as its knobs say."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data import crowd
from jaxalign.data.record import parse_record

SMALL = crowd.CrowdConfig(num_annotators=20, num_test_annotators=10)
PROMPT = "Q: How do I clean boots?\nA:"
WARM, BRIEF = " Happy to help! Wipe the boots. Enjoy!", " Wipe the boots."


class UtilitiesTest(parameterized.TestCase):
  def test_groups_want_opposite_answers(self):
    warm, brief = (
      crowd.utilities(SMALL, PROMPT, WARM),
      crowd.utilities(SMALL, PROMPT, BRIEF),
    )
    # scale 4, overlap 0.2, topic +1: warmth 1 and -1, brevity 3/24 and 1.
    np.testing.assert_allclose(warm, [4 * (0.8 + 0.2), 4 * (0.1 + 0.2)])
    np.testing.assert_allclose(brief, [4 * (-0.8 + 0.2), 4 * (0.8 + 0.2)])

  def test_probability_is_bradley_terry_with_noise(self):
    config = dataclasses.replace(SMALL, temperature=2.0, label_noise=0.1)
    probs = crowd.vote_probs(config, PROMPT, WARM, BRIEF)
    clear = 1 / (1 + np.exp(-np.array([6.4, -2.8]) / 2))
    np.testing.assert_allclose(probs, 0.9 * clear + 0.05, rtol=1e-12)
    np.testing.assert_allclose(
      probs + crowd.vote_probs(config, PROMPT, BRIEF, WARM), 1.0, rtol=1e-12
    )

  def test_full_overlap_leaves_one_taste(self):
    config = dataclasses.replace(SMALL, overlap=1.0)
    probs = crowd.vote_probs(config, PROMPT, WARM, " It depends.")
    self.assertEqual(probs[0], probs[1])

  def test_a_group_without_taste_flips_a_coin(self):
    config = crowd.preset("noise_group")
    self.assertEqual(crowd.vote_probs(config, PROMPT, WARM, BRIEF)[2], 0.5)


class DrawTest(parameterized.TestCase):
  @parameterized.parameters(sorted(crowd.PRESETS))
  def test_records_are_preferences(self, name):
    records = crowd.draw_records(crowd.preset(name), split="test")
    for record in records:
      self.assertEqual(parse_record(record.to_row(), where="f:1"), record)
      self.assertNotEqual(*record.responses)
    self.assertLen({record.id for record in records}, len(records))

  def test_every_annotator_has_one_group_and_the_same_number_of_votes(self):
    config = dataclasses.replace(SMALL, votes_per_pair=5)
    records = crowd.draw_records(config, split="train")
    self.assertLen(records, 20 * 20)
    group_of, pairs = {}, {}
    for record in records:
      self.assertEqual(
        group_of.setdefault(record.annotator, record.group), record.group
      )
      pairs.setdefault(record.annotator, set()).add(record.prompt)
      self.assertEqual(record.source, record.group)
    self.assertLen(group_of, 20)
    self.assertEqual(sorted(group_of.values()), ["brief"] * 4 + ["warm"] * 16)
    people = {}
    for record in records:
      people.setdefault(record.id.rsplit("-", 1)[0], []).append(
        record.annotator
      )
    self.assertLen(people, 80)
    for shown in people.values():
      self.assertLen(set(shown), 5)

  def test_votes_follow_the_probabilities(self):
    config = dataclasses.replace(SMALL, num_annotators=200, temperature=2.0)
    records = crowd.draw_records(config, split="train")
    expected = [
      crowd.vote_probs(config, r.prompt, *r.responses)[
        config.groups.index(r.group)
      ]
      for r in records
    ]
    # The chosen side was drawn with probability p or 1 - p: E[1 / p] is 2.
    inverse = 1 / np.array(expected)
    error = inverse.std() / np.sqrt(len(inverse))
    self.assertAlmostEqual(inverse.mean(), 2.0, delta=4 * error)

  def test_aggregated_votes_are_counted(self):
    config = dataclasses.replace(SMALL, votes_per_pair=10, aggregate=True)
    records = crowd.draw_records(config, split="train")
    self.assertLen(records, 20 * 20 / 10)
    for record in records:
      self.assertEqual(record.votes_chosen + record.votes_rejected, 10)
      self.assertGreaterEqual(record.votes_chosen, record.votes_rejected)
      self.assertIsNone(record.annotator)
      self.assertEqual(record.source, "crowd")
    self.assertGreater(len({record.votes_chosen for record in records}), 2)

  def test_splits_are_other_people_and_other_pairs(self):
    train, test = (
      crowd.draw_records(SMALL, split=split) for split in ("train", "test")
    )
    for name in ("annotator", "prompt", "id"):
      values = [
        {record.__getattribute__(name) for record in records}
        for records in (train, test)
      ]
      self.assertEmpty(values[0] & values[1], name)

  def test_splits_are_drawn_independently(self):
    config = dataclasses.replace(SMALL, num_test_annotators=20)
    drawn = [
      [r.group for r in crowd.draw_records(config, split=split)]
      for split in ("train", "test")
    ]
    self.assertNotEqual(*drawn)

  def test_the_control_differs_in_taste_alone(self):
    two, one = crowd.preset("two_groups"), crowd.preset("one_taste")
    self.assertEqual(dataclasses.replace(one, tastes=two.tastes), two)

  @parameterized.parameters(
    ((0.8, 0.2), 10, [8, 2]),
    ((0.9, 0.1), 5, [4, 1]),
    ((0.97, 0.02, 0.01), 5, [3, 1, 1]),
    ((1 / 3, 1 / 3, 1 / 3), 10, [4, 3, 3]),
    ((1.0,), 3, [3]),
  )
  def test_shares_are_rounded_and_nobody_is_left_out(
    self, shares, num_people, expected
  ):
    counts = np.bincount(crowd._group_of(shares, num_people))
    self.assertEqual(counts.tolist(), expected)


class KnobsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({"shares": (1.0,)}, "one entry per group, got 2, 2 and 1"),
    ({"shares": (0.8, 0.3)}, "shares must be positive and sum to 1"),
    ({"shares": (1.0, 0.0)}, "shares must be positive"),
    ({"tastes": ("warmth", "music")}, "tastes must be one of brevity, none"),
    ({"temperature": 0.0}, "temperature and scale must be > 0, got 0.0"),
    ({"overlap": 1.5}, r"overlap must be in \[0, 1\], got 1.5"),
    ({"label_noise": 1.0}, r"label_noise must be in \[0, 1\), got 1.0"),
    ({"pairs_per_annotator": 0}, "pairs_per_annotator must be >= 1, got 0"),
    ({"votes_per_pair": 7}, "num_annotators must be divisible by votes_per"),
    ({"num_annotators": 1}, "num_annotators must be divisible"),
  )
  def test_a_knob_out_of_range_is_named(self, change, message):
    with self.assertRaisesRegex(ValueError, message):
      dataclasses.replace(SMALL, **change)


if __name__ == "__main__":
  absltest.main()
