"""Habits of annotators do what they say, and nothing where nobody has one.

Votes are compared with the probabilities that a habit promises: the sum of
their deviations over the root of their variance is a standard normal where the
promise holds (4 is 1 in 16,000), and far off by the promise of another.
"""

import dataclasses
import hashlib
import json

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.synthetic import crowd, habits, texts
from jaxalign.data.synthetic.config import HABITS, taste_weights

# Digests of both splits at seed 3, from before there were habits.
BEFORE = {
  "drift": ("4c643f548c26058d", "596b1733b6732de6"),
  "labels": ("a9b93ce324f7ff97", "0419cc3fa9f21fe6"),
  "noise_group": ("5c98c0a00eb22e74", "c0680f698e7d1483"),
  "one_taste": ("5c2ecd6d2c0e82c9", "86bdd2aa24889fcb"),
  "three_groups": ("0e97e5a9ad851ef4", "5a32c1d8382a9452"),
  "two_groups": ("05ab6750ee36a4de", "f1ea6c801e9674d9"),
  "votes": ("4da630c5d5500306", "e5d95306ae670a34"),
}


def digest(records) -> str:
  rows = [json.dumps(record.to_row(), sort_keys=True) for record in records]
  return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def shown(record):
  """The two responses in the order in which they were shown."""
  order = slice(None) if record.position == 0 else slice(None, None, -1)
  return record.responses[order]


def people_of(config):
  """Habits of everybody in training, by the names of records."""
  records = crowd.draw_records(config, split="train")
  group = dict(sorted({r.annotator: r.group for r in records}.items()))
  numbers = np.array([config.groups.index(name) for name in group.values()])
  found = habits.draw_people(config, numbers, split=0)
  return records, {
    name: (int(habit), int(other))
    for name, habit, other in zip(group, *found, strict=True)
  }


def z_of(wins, probs) -> float:
  """Deviation of wins from their probabilities, in standard errors."""
  probs = np.clip(probs, 1e-9, 1 - 1e-9)
  return float(
    np.sum((wins - probs) * np.sign(probs - 0.5))
    / np.sqrt(np.sum(probs * (1 - probs)))
  )


class HabitsTest(parameterized.TestCase):
  @parameterized.parameters(*BEFORE)
  def test_crowds_without_habits_are_as_they_were(self, name):
    config = crowd.preset(name, seed=3)
    for split, before in zip(crowd.SPLITS, BEFORE[name], strict=True):
      self.assertEqual(digest(crowd.draw_records(config, split=split)), before)

  @parameterized.parameters(*HABITS)
  def test_votes_are_as_the_habit_says(self, name):
    config = dataclasses.replace(
      crowd.preset("two_groups", seed=1), **{name: 0.5}
    )
    records, people = people_of(config)
    plain = [habit for habit, _ in people.values()].count(habits.NONE)
    self.assertEqual(plain, 100)
    wins = np.array([record.position == 0 for record in records], float)
    has = np.array([people[r.annotator][0] >= 0 for r in records])
    said, own = [], []
    for record in records:
      habit, other = people[record.annotator]
      first, second = shown(record)
      group = config.groups.index(record.group)
      by_group = lambda a, b, r=record: crowd.vote_probs(config, r.prompt, a, b)
      own.append(by_group(first, second)[group])
      size = lambda text: np.clip(len(text.strip().encode()), 16, 64) / 24
      sigmoid = lambda gap: 1 / (1 + np.exp(-4.0 * gap / 0.5))
      said.append(
        {
          "careless": by_group(first[:16], second[:16])[group],
          "by_length": sigmoid(size(first) - size(second)),
          "by_position": sigmoid(1.0),
          "in_two_groups": by_group(first, second).mean(),
        }[name]
      )
    said, own = np.array(said), np.array(own)
    self.assertEqual(has.sum(), 100 * 20)
    self.assertLess(abs(z_of(wins[has], said[has])), 4)
    self.assertLess(abs(z_of(wins[~has], own[~has])), 4)
    self.assertLess(z_of(wins[has], own[has]), -8)

  def test_shares_are_of_different_people(self):
    shares = dict(zip(HABITS, (0.1, 0.2, 0.3, 0.25), strict=True))
    config = dataclasses.replace(crowd.preset("three_groups"), **shares)
    found = habits.draw_people(config, np.arange(200) % 3, split=0)
    counts = [int(np.sum(found.habit == k)) for k in range(len(HABITS))]
    self.assertEqual(counts, [20, 40, 60, 50])
    torn = found.habit == HABITS.index("in_two_groups")
    self.assertTrue(np.all(found.other[~torn] == habits.NONE))
    self.assertTrue(np.all(found.other[torn] >= 0))
    self.assertTrue(np.all(found.other[torn] != (np.arange(200) % 3)[torn]))
    for split in (1, 0):
      again = habits.draw_people(config, np.arange(200) % 3, split=split)
      same = np.array_equal(again.habit, found.habit)
      self.assertEqual(same, split == 0)

  def test_habits_change_votes_and_neither_texts_nor_groups(self):
    plain = crowd.preset("two_groups")
    changed = dataclasses.replace(plain, by_position=0.4)
    both = [crowd.draw_records(c, split="train") for c in (plain, changed)]
    key = lambda r: (r.prompt, frozenset(r.responses), r.annotator, r.group)
    self.assertEqual(*([key(r) for r in records] for records in both))
    moved = np.mean([a != b for a, b in zip(*both, strict=True)])
    # Two fifths of the votes, half of which were for the first already.
    self.assertAlmostEqual(moved, 0.2, delta=0.03)

  @parameterized.parameters(
    (dict(careless=1.2), r"careless must be in \[0, 1\], got 1.2"),
    (dict(careless=0.6, by_length=0.6), "must sum to 1 at most"),
    (
      dict(groups=("a",), tastes=("topic",), shares=(1.0,), in_two_groups=0.1),
      "in_two_groups needs two groups",
    ),
    (dict(prompt_shift=-0.1), r"prompt_shift must be in \[0, 1\]"),
    (dict(response_shift=2.0), r"response_shift must be in \[0, 1\]"),
  )
  def test_what_cannot_be(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      dataclasses.replace(crowd.CrowdConfig(), **changes)


class ShiftTest(parameterized.TestCase):
  def config(self, **changes):
    return dataclasses.replace(
      crowd.preset("two_groups", seed=5), num_test_annotators=100, **changes
    )

  @parameterized.parameters(0.0, 0.3, 1.0)
  def test_prompts(self, shift):
    config = self.config(prompt_shift=shift)
    train = crowd.draw_records(config, split="train")
    self.assertEqual(train, crowd.draw_records(self.config(), split="train"))
    asks = lambda r: any(f" {v} " in r.prompt for v in texts.SHIFTED_ANSWERS)
    self.assertFalse(any(map(asks, train)))
    test = crowd.draw_records(config, split="test")
    found = np.array([asks(record) for record in test])
    error = np.sqrt(shift * (1 - shift) / len(found))
    self.assertAlmostEqual(found.mean(), shift, delta=4 * error + 1e-9)
    for record in test:
      self.assertLessEqual(len(record.prompt.encode()), 42)
      for text in record.responses:
        self.assertLessEqual(len(text.encode()), 66)

  @parameterized.parameters(0.0, 0.5, 1.0)
  def test_responses(self, shift):
    config = self.config(response_shift=shift)
    train = crowd.draw_records(config, split="train")
    self.assertEqual(train, crowd.draw_records(self.config(), split="train"))
    test = crowd.draw_records(config, split="test")
    every = [(r.prompt, text) for r in test for text in r.responses]
    self.assertLen(every, 4000)
    start = lambda text, parts: any(text[1:].startswith(p) for p in parts)
    found = {
      "opener": [start(text, texts.WARM_OPENERS) for _, text in every],
      "closer": [text.endswith(texts.WARM_CLOSERS) for _, text in every],
      "topic": [texts.qualities(*each)[2] > 0 for each in every],
    }
    warm, topic = 0.4 + 0.5 * shift, 0.75 - 0.5 * shift
    for name, want in (("opener", warm), ("closer", warm), ("topic", topic)):
      # Pairs hold different responses, which moves shares by less than that.
      delta = 4 * np.sqrt(want * (1 - want) / len(every)) + 0.012
      self.assertAlmostEqual(np.mean(found[name]), want, delta=delta)


class TastesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("topic", (0, 0, 1)),
    ("-warmth", (-1, 0, 0)),
    ("warmth-brevity", (2**-0.5, -(2**-0.5), 0)),
    ("-topic+warmth+brevity", (3**-0.5, 3**-0.5, -(3**-0.5))),
  )
  def test_weights(self, taste, want):
    np.testing.assert_allclose(taste_weights(taste), want)

  @parameterized.parameters(
    "", "-", "charm", "warmth+warmth", "warmth--topic", "none+topic", "-none"
  )
  def test_what_is_no_taste(self, taste):
    with self.assertRaisesRegex(ValueError, "taste"):
      taste_weights(taste)

  def test_none_values_nothing(self):
    self.assertIsNone(taste_weights("none"))

  def test_eight_groups_want_eight_things(self):
    config = crowd.preset("eight_groups")
    records = crowd.draw_records(config, split="train")
    probs = np.array(
      [crowd.vote_probs(config, r.prompt, *r.responses) for r in records]
    )
    group = np.array([config.groups.index(r.group) for r in records])
    self.assertEqual(np.bincount(group).tolist(), [50 * 20] * 8)
    # Everybody is best predicted by their own group's taste, all 8 apart.
    likely = np.array(
      [np.log(probs[group == g]).mean(axis=0) for g in range(8)]
    )
    self.assertEqual(likely.argmax(axis=1).tolist(), [*range(8)])
    for own in range(8):
      others = np.delete(likely[own], own)
      self.assertGreater(likely[own, own] - others.max(), 0.05)

  def test_a_sum_is_worth_the_sum_of_its_parts(self):
    config = dataclasses.replace(
      crowd.CrowdConfig(),
      groups=("a", "b", "c"),
      tastes=("warmth", "brevity", "warmth-brevity"),
      shares=(0.4, 0.3, 0.3),
      overlap=0.0,
    )
    record = crowd.draw_records(config, split="train")[0]
    first, second, both = crowd.utilities(
      config, record.prompt, record.responses[0]
    )
    self.assertAlmostEqual(both, (first - second) / 2**0.5)


if __name__ == "__main__":
  absltest.main()
