"""Voters: whole people, everyone by their group's reward, and temperature."""

import collections

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.synthetic import voters


class VotersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.rewards = [rng.normal(size=(n, 2)) for n in (2, 3, 4, 2, 5)]

  def draw(self, **changes):
    given = dict(
      shares=(0.8, 0.2), num_people=50, pairs_per_person=4, temperature=0.0,
      seed=0,
    )  # fmt: skip
    return voters.draw(self.rewards, **given | changes)

  @parameterized.parameters(
    ((0.8, 0.2), 10, [8, 2]),
    ((0.8, 0.2), 7, [6, 1]),
    ((0.5, 0.3, 0.2), 10, [5, 3, 2]),
    ((1.0, 0.0), 3, [3, 0]),
  )
  def test_groups_are_whole_people(self, shares, number, expected):
    found = voters.groups_of(shares, number)
    self.assertEqual(
      np.bincount(found, minlength=len(shares)).tolist(), expected
    )

  def test_everyone_votes_by_the_reward_of_their_group(self):
    votes = self.draw()
    self.assertLen(votes, 200)
    groups = collections.Counter({v.person: v.group for v in votes}.values())
    self.assertEqual(groups, {0: 40, 1: 10})
    for vote in votes:
      rewards = self.rewards[vote.record][:, vote.group]
      self.assertGreater(rewards[vote.chosen], rewards[vote.rejected])
    shown = collections.Counter((v.person, v.record) for v in votes)
    self.assertEqual({*shown.values()}, {1})  # four of five prompts each
    self.assertEqual(votes, self.draw())
    self.assertNotEqual(votes, self.draw(seed=1))

  def test_more_votes_than_prompts_begin_again(self):
    votes = self.draw(pairs_per_person=12, num_people=2, shares=(1.0, 0.0))
    shown = collections.Counter((v.person, v.record) for v in votes)
    self.assertEqual({*shown.values()}, {2, 3})

  def test_temperature_is_that_of_bradley_terry(self):
    self.rewards = [np.array([[0.7, 0.0], [0.0, 0.0]])]
    votes = self.draw(
      temperature=0.5, num_people=40, pairs_per_person=100, shares=(1.0, 0.0)
    )
    expected = 1 / (1 + np.exp(-0.7 / 0.5))
    share = np.mean([vote.chosen == 0 for vote in votes])
    self.assertAlmostEqual(share, expected, delta=0.02)
    # Equal rewards are a coin, also without temperature.
    coins = self.draw(num_people=40, pairs_per_person=100, shares=(0.0, 1.0))
    share = np.mean([vote.chosen == 0 for vote in coins])
    self.assertAlmostEqual(share, 0.5, delta=0.03)


if __name__ == "__main__":
  absltest.main()
