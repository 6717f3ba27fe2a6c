"""Accuracy of groups, and its intervals, against the bootstrap of one group."""

import types

import jax
import numpy as np
from absl.testing import absltest

from jaxalign.experiments.reward_model import group_intervals, pair_scores


def dataset(group, annotator, names=("one", "two")):
  return types.SimpleNamespace(
    group=np.asarray(group), annotator=np.asarray(annotator), group_names=names
  )


def rewards(gaps):
  gaps = np.asarray(gaps, np.float32)
  return np.stack([gaps, np.zeros_like(gaps)], axis=1)[..., None]


def found(models, data, people=None, num_samples=200):
  return group_intervals.of_models(
    models, data, people, num_samples=num_samples, seed=3
  )


class GroupsTest(absltest.TestCase):
  def test_counts_and_values(self):
    data = dataset([0, 0, 0, 1, 1, -1], [0, 0, 1, 2, -1, -1])
    got = found({"m": rewards([1, -1, 0, 2, 3, -9])}, data)
    self.assertEqual([*got], ["one", "two"])
    one, two = got.values()
    self.assertEqual((one["num_people"], one["num_pairs"]), (2, 3))
    self.assertEqual((two["num_people"], two["num_pairs"]), (1, 2))
    self.assertAlmostEqual(one["accuracy"]["m"]["value"], 0.5)  # a tie is half
    self.assertEqual(two["accuracy"]["m"]["value"], 1.0)
    self.assertEqual(two["accuracy"]["m"]["low"], 1.0)
    self.assertLess(one["accuracy"]["m"]["low"], 0.5)
    self.assertGreater(one["accuracy"]["m"]["high"], 0.5)

  def test_a_group_of_all_has_the_interval_of_all_people(self):
    rng = np.random.default_rng(0)
    annotator = rng.integers(0, 20, 200)
    gaps = rng.normal(0.4, 1, 200).astype(np.float32)
    people = pair_scores.clusters_of(annotator)
    data = dataset(np.zeros(200, int), annotator, ("all",))
    other = {"m": rewards(gaps), "minus m": rewards(-gaps)}
    got = found(other, data, people)["all"]["accuracy"]
    want = pair_scores.mean_over_people(
      (np.sign(gaps) + 1) / 2, people, jax.random.key(3), 20, 200
    )
    np.testing.assert_allclose(
      [got["m"]["low"], got["m"]["high"]], [*want], rtol=1e-6
    )
    # What is right under one is wrong under the other.
    np.testing.assert_allclose(got["minus m"]["low"], 1 - want.high, rtol=1e-5)

  def test_people_that_vary_widen_the_interval(self):
    annotator = np.repeat(np.arange(20), 10)
    gaps = np.where(annotator % 2, 1.0, -1.0)
    data = dataset(np.zeros(200, int), annotator, ("all",))
    width = lambda people: (lambda s: s["high"] - s["low"])(
      found({"m": rewards(gaps)}, data, people)["all"]["accuracy"]["m"]
    )
    self.assertGreater(
      width(pair_scores.clusters_of(annotator)), 2 * width(None)
    )

  def test_without_groups_there_is_nothing(self):
    data = dataset([-1, -1], [0, 1], ())
    self.assertEqual(found({"m": rewards([1, 2])}, data), {})

  def test_one_pair_has_no_interval(self):
    got = found({"m": rewards([1])}, dataset([0], [0]))
    self.assertIsNone(got["one"]["accuracy"]["m"]["low"])


if __name__ == "__main__":
  absltest.main()
