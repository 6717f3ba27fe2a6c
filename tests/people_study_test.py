"""The study of people: personal parts, baselines, and the tables."""

import runpy
import sys
import unittest.mock

import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from jaxalign.experiments.reward_model import latent_groups
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_people.py"))
TABLES = SCRIPT["people_tables"]


class PersonalTest(absltest.TestCase):
  def test_equals_the_minimum_over_the_part_itself(self):
    rng = np.random.default_rng(0)
    apart, gaps = rng.normal(size=(9, 4)), rng.normal(size=9)

    def cost(part):
      seen = gaps[:5] + apart[:5] @ part
      return np.logaddexp(0, -seen).sum() + part @ part / (2 * 0.7)

    part = scipy.optimize.minimize(cost, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(
      SCRIPT["personal"](gaps, apart, 5, 0.7), gaps + apart @ part, atol=1e-5
    )
    self.assertIs(SCRIPT["personal"](gaps, apart, 0, 0.7), gaps)


class FamiliesTest(parameterized.TestCase):
  @parameterized.parameters(*SCRIPT["FAMILIES"])
  def test_own_pairs_tell_what_people_differ_in(self, kind):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)).astype(np.float32)
    user = np.repeat(np.arange(40), 16)
    sides = np.array([rng.choice(60, 2, False) for _ in user])
    taste = np.where(np.arange(40) % 2, 3.0, -3.0)[user]
    swap = taste * (features[sides[:, 0]] - features[sides[:, 1]])[:, 1] < 0
    sides[swap] = sides[swap][:, ::-1]
    judged = latent_groups.Judged(
      [("Q", f" {i}") for i in range(60)], *sides.T.astype(np.int32), user,
      [f"who-{u}" for u in range(40)], [None] * 40, 0,
    )  # fmt: skip
    train = np.arange(40) >= 12
    free = latent_groups.apart(judged, 5) & ~train[user]
    probs = SCRIPT["families"](
      judged, features, train, free, np.full(4, 0.01), 1e-3, kind, 0
    )
    right = (probs > 0.5).mean(axis=1, where=free)
    self.assertLess(right[0], 0.65)
    self.assertGreater(right[-1], 0.7)
    np.testing.assert_array_equal(probs[:, train[user]], 0.5)


class WordsTest(absltest.TestCase):
  def test_length_and_words_are_those_of_the_training_people(self):
    texts = [("Q", f" {w}") for w in ("a bad one", "good", "a good thing", "x")]
    chosen = np.array([1, 2, 1, 0, 3], np.int32)
    rejected = np.array([0, 0, 3, 3, 1], np.int32)
    judged = latent_groups.Judged(
      texts, chosen, rejected, np.array([0, 0, 1, 1, 2]), ["a", "b", "c"],
      [None] * 3, 0,
    )  # fmt: skip
    found = SCRIPT["words"](judged, np.array([True, True, False]))
    self.assertEqual([*found], [*TABLES.BASELINES])
    records = [
      Record("Q", (texts[c][1], texts[r][1]))
      for c, r in zip(chosen, rejected, strict=True)
    ]
    np.testing.assert_allclose(
      found["bag of words"], baselines.BagOfWords.fit(records[:4]).gaps(records)
    )
    np.testing.assert_array_equal(
      np.sign(found["always longer"]), [-1, 1, 1, 1, -1]
    )


class TableTest(absltest.TestCase):
  def run_of(self, seed, gain, people=40):
    rng = np.random.default_rng(seed)
    number = np.full(people, 10.0)
    shape = (len(TABLES.NAMES), len(TABLES.SHOTS), people)
    right = rng.binomial(7, 0.9, shape).astype(float)
    right[1] = right[0] + 10 * gain
    person = rng.permutation(60)[:people]
    return {
      "right": right, "number": number, "person": person,
      "layer": 18, "ridge": 0.1, "components": 2, "variance": 1.0,
      "weights": np.array([0.6, 0.4]),
      "group": np.where(person % 3 == 0, "0", "1"),
    }  # fmt: skip

  def test_a_gain_of_everybody_is_certain(self):
    found = TABLES.summary([self.run_of(seed, 0.1) for seed in range(3)])
    for which in ("gain", "tenth", "group"):
      gap = found[which][:, 1] - found[which][:, 0]
      np.testing.assert_allclose(gap, 0.1)
      self.assertEqual(TABLES.apart(found[which], 1), "+0.100 [+0.100, +0.100]")
    self.assertAlmostEqual(TABLES.least(found["gain"], 1), 0.0, places=9)
    self.assertEqual(found["seeds"], 3)
    row = TABLES.lines({"town": found})[-1]
    self.assertIn("+0.100 [+0.100, +0.100]", row)
    own = found["mean"][1, -1] - found["mean"][TABLES.WORDS, -1]
    self.assertIn(f"| {own:+.3f} [", row)
    self.assertIn("+0.100 [+0.100, +0.100]", TABLES.others({"town": found})[-1])

  def test_no_gain_is_inside_its_interval(self):
    runs = [self.run_of(seed, 0.0) for seed in range(5)]
    rng = np.random.default_rng(9)
    for run in runs:
      run["right"][2] = np.nan  # no published groups
      run["right"][1] = rng.permuted(run["right"][0], axis=1)
      run["group"] = np.full(40, "None")
    found = TABLES.summary(runs)
    gap = found["gain"][1:, 1] - found["gain"][1:, 0]
    low, high = np.quantile(gap, (0.025, 0.975))
    self.assertBetween(0.0, low, high)
    self.assertGreater(TABLES.least(found["gain"], 1), 0.0)
    self.assertIn("| – |", TABLES.others({"town": found})[-1])

  def test_worst_tenth_is_that_of_the_people_who_are_there(self):
    rng = np.random.default_rng(0)
    each = rng.random((2, 34))
    drawn = rng.integers(0, 34, 34)
    times = np.stack([np.ones(34), np.bincount(drawn, minlength=34)])
    found = TABLES.worst_tenth(each, times)
    for m in range(2):
      self.assertAlmostEqual(found[0, m], latent_groups.worst_tenth(each[m]))
      self.assertAlmostEqual(
        found[1, m], latent_groups.worst_tenth(each[m, drawn])
      )

  def test_the_worst_group_is_the_one_a_pooled_head_serves_worst(self):
    run = self.run_of(0, 0.0)
    first = run["group"] == "0"
    run["right"][:] = np.where(first, 4.0, 8.0)
    run["right"][1] += np.where(first, 3.0, -1.0)
    found = TABLES.summary([run])
    np.testing.assert_allclose(found["group"][0, :2], (0.4, 0.7))

  def test_a_mean_counts_conversations_the_same(self):
    found = {
      "large": TABLES.summary([self.run_of(0, 0.2, 60)]),
      "small": TABLES.summary([self.run_of(1, 0.0, 20)]),
    }
    found["small"]["group"][:] = np.nan
    mean = TABLES.over_all([*found.values()])
    self.assertAlmostEqual(mean["gain"][0, 1] - mean["gain"][0, 0], 0.1)
    self.assertAlmostEqual(mean["group"][0, 1] - mean["group"][0, 0], 0.2)
    self.assertStartsWith(TABLES.lines(found)[-1], "| mean | 80 | – |")
    self.assertIn("+0.100 [+0.100", TABLES.lines(found)[-1])
    large, small = found["large"]["gain"], found["small"]["gain"]
    small[:, 2] = np.nan  # no published groups: the mean is that of the other
    gap = large[0, 2] - large[0, 1]
    self.assertIn(f"| {gap:+.3f} [", TABLES.others(found)[-1])
    found["few"] = TABLES.summary([self.run_of(2, 0.9, 19)])
    self.assertStartsWith(TABLES.lines(found)[-1], "| mean | 80 | – |")
    self.assertIn("+0.100 [+0.100", TABLES.lines(found)[-1])
    self.assertStartsWith(TABLES.lines(found)[-2], "| few | 19 |")


if __name__ == "__main__":
  absltest.main()
