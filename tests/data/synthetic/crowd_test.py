"""The synthetic crowd votes as its knobs say."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records.record import parse_record
from jaxalign.data.synthetic import crowd

SMALL = crowd.CrowdConfig(num_annotators=20, num_test_annotators=10)


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

  def test_votes_drift_over_the_training_split_and_stay_there(self):
    config = dataclasses.replace(
      SMALL, num_annotators=100, num_test_annotators=100, drift=1.0
    )
    agreement = {}
    for split in crowd.SPLITS:
      records = crowd.draw_records(config, split=split)
      times = crowd.record_times(config, split=split)
      self.assertLen(times, len(records))
      # How probable the choices would be had nothing changed since the start.
      probs = np.array(
        [
          crowd.vote_probs(config, r.prompt, *r.responses, time=0.0)[
            config.groups.index(r.group)
          ]
          for r in records
        ]
      )
      agreement[split] = [probs[times < 0.3], probs[times > 0.7]]
    early, late = map(np.mean, agreement["train"])
    self.assertGreater(early, 0.75)
    self.assertLess(late, 0.6)
    self.assertEmpty(agreement["test"][0])
    self.assertLess(agreement["test"][1].mean(), 0.5)

  @parameterized.parameters(False, True)
  def test_times_belong_to_records(self, aggregate):
    config = dataclasses.replace(SMALL, votes_per_pair=5, aggregate=aggregate)
    records = crowd.draw_records(config, split="train")
    times = crowd.record_times(config, split="train")
    panels = config.num_annotators // 5
    number = np.array([int(r.id.split("-")[1]) for r in records])
    np.testing.assert_allclose(times, number // panels / 19)

  def test_the_chosen_response_was_shown_first_half_of_the_time(self):
    records = crowd.draw_records(
      dataclasses.replace(SMALL, num_annotators=200), split="train"
    )
    share = np.mean([record.position for record in records])
    self.assertAlmostEqual(share, 0.5, delta=4 * 0.5 / np.sqrt(4000))

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


class PresetsTest(absltest.TestCase):
  def test_three_groups_differ_pairwise(self):
    config = crowd.preset("three_groups")
    records = crowd.draw_records(config, split="train")
    probs = np.array(
      [crowd.vote_probs(config, r.prompt, *r.responses) for r in records]
    )
    for i, j in ((0, 1), (0, 2), (1, 2)):
      self.assertGreater(np.abs(probs[:, i] - probs[:, j]).mean(), 0.2)

  def test_knobs_are_read_from_the_source(self):
    spec = "two_groups,shares=0.6/0.4,num_test_annotators=10,label_noise=0.5"
    config = dataclasses.replace(
      crowd.preset("two_groups", seed=3),
      shares=(0.6, 0.4),
      num_test_annotators=10,
      label_noise=0.5,
    )
    self.assertEqual(
      crowd.records_of(f"{spec}:test", seed=3),
      crowd.draw_records(config, split="test"),
    )


class KnobsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({"shares": (1.0,)}, "one entry per group, got 2, 2 and 1"),
    ({"shares": (0.8, 0.3)}, "shares must be positive and sum to 1"),
    ({"shares": (1.0, 0.0)}, "shares must be positive"),
    ({"tastes": ("warmth", "music")}, "tastes must be one of brevity, none"),
    ({"drift": -0.1}, r"drift must be in \[0, 1\], got -0.1"),
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
