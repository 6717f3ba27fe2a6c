"""Ceilings of the synthetic crowd, against votes drawn from it."""

import dataclasses

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.chat import Turn
from jaxalign.data.synthetic import crowd, oracle


def accuracy(prefers_first):
  return np.mean(prefers_first)


class OracleTest(absltest.TestCase):
  def test_expected_accuracy_is_met_by_the_oracle_and_by_chance(self):
    config = dataclasses.replace(
      crowd.CrowdConfig(num_test_annotators=200), temperature=1.0
    )
    records = crowd.draw_records(config, split="test")
    ceiling = oracle.bayes_accuracy(config, records)
    utilities = oracle.oracle_utilities(config, records)
    self.assertEqual(utilities.shape, (len(records), 2, 2))
    group = np.array([config.groups.index(r.group) for r in records])
    gaps = utilities[:, 0] - utilities[:, 1]
    own = gaps[np.arange(len(group)), group]
    hits = (np.sign(own) + 1) / 2
    for k in range(2):
      hit = hits[group == k]
      error = 3 * hit.std() / np.sqrt(len(hit))
      self.assertAlmostEqual(hit.mean(), ceiling.own_per_group[k], delta=error)
    crowd_prob = oracle.oracle_probs(config, records) @ config.shares
    hits = (np.sign(crowd_prob - 0.5) + 1) / 2
    for k in range(2):
      hit = hits[group == k]
      error = 3 * hit.std() / np.sqrt(len(hit))
      self.assertAlmostEqual(
        hit.mean(), ceiling.shared_per_group[k], delta=error
      )

  def test_texts_alone_have_the_utilities_of_their_records(self):
    config = crowd.preset("three_groups")
    records = crowd.draw_records(config, split="test")[:20]
    prompts = [r.prompt for r in records]
    prompts[0] = (Turn("user", prompts[0]),)
    rewards = oracle.oracle_rewards(config, calibrate=False)
    np.testing.assert_array_equal(
      rewards(prompts, [r.responses[1] for r in records]),
      oracle.oracle_utilities(config, records)[:, 1],
    )
    self.assertEqual(rewards([], []).shape, (0, 3))

  def test_calibrated_rewards_have_unit_variance_on_the_training_split(self):
    config = crowd.preset("noise_group")
    records = crowd.draw_records(config, split="train")
    rewards = oracle.oracle_rewards(config, calibrate=True)
    found = rewards(
      [r.prompt for r in records for _ in r.responses],
      [text for r in records for text in r.responses],
    )
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(axis=0), [1, 1, 0], atol=1e-9)

  def test_labels_do_not_enter(self):
    config = crowd.preset("two_groups")
    records = crowd.draw_records(config, split="test")[:50]
    swapped = [
      dataclasses.replace(r, responses=r.responses[::-1]) for r in records
    ]
    for first, second in zip(
      oracle.bayes_accuracy(config, records),
      oracle.bayes_accuracy(config, swapped),
      strict=True,
    ):
      np.testing.assert_allclose(first, second, rtol=1e-12)

  def test_a_shared_model_fails_the_minority_and_only_with_two_tastes(self):
    found = {
      name: oracle.bayes_accuracy(
        crowd.preset(name),
        crowd.draw_records(crowd.preset(name), split="test"),
      )
      for name in ("two_groups", "one_taste", "noise_group")
    }
    two, one, noise = found.values()
    self.assertLess(two.shared_per_group[1], 0.5)
    self.assertGreater(two.own_per_group.min(), 0.85)
    self.assertGreater(two.own - two.shared, 0.05)
    self.assertAlmostEqual(one.own, one.shared, places=12)
    self.assertEqual(noise.own_per_group[2], 0.5)
    self.assertEqual(noise.shared_per_group[2], 0.5)

  def test_baselines_stay_below_the_ceilings(self):
    config = dataclasses.replace(
      crowd.preset("two_groups"), num_annotators=100, num_test_annotators=100
    )
    found = oracle.reference_accuracies(config)
    self.assertEqual(set(found), {"all", "warm", "brief"})
    for name in ("all", "warm"):
      self.assertBetween(found[name]["bag_of_words"], 0.65, 1.0)
      self.assertLess(found[name]["bag_of_words"], found[name]["shared"] + 0.02)
      self.assertLess(found[name]["always_longer"], found[name]["bag_of_words"])
    self.assertLess(found["brief"]["bag_of_words"], 0.5)
    self.assertLessEqual(found["all"]["shared"], found["all"]["own"])

  def test_a_crowd_of_counted_votes_names_no_groups(self):
    found = oracle.reference_accuracies(crowd.preset("votes"))
    self.assertEqual(set(found), {"all"})


if __name__ == "__main__":
  absltest.main()
