"""The study of wrong labels: pairs, strengths, labels that are told, scores."""

import dataclasses
import runpy
import sys
import unittest.mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from jaxalign import losses
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_strength.py"))
TABLES, VOTED = SCRIPT["strength_tables"], SCRIPT["voted_pairs"]


def toy(number=400, width=6, seed=0):
  """Pairs whose features say which text is better, and these features."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(60, width)).astype(np.float32)
  worth = features @ rng.normal(size=width)
  sides = np.stack([rng.permutation(60)[:2] for _ in range(number)])
  turned = worth[sides[:, 0]] < worth[sides[:, 1]]
  sides[turned] = sides[turned, ::-1]
  votes = np.tile([4, 1, 0], (number, 1))
  texts = [("", f"text {n} of {n % 5}") for n in range(60)]
  names = [text for _, text in texts]
  return VOTED.Pairs(
    texts, sides, votes, sides, names, np.zeros(number, int)
  ), features  # fmt: skip


class PairsTest(absltest.TestCase):
  def test_clear_labels_by_hand(self):
    votes = np.array([[4, 1, 0], [3, 1, 1], [2, 0, 0], [3, 0, 0]])
    pairs, _ = toy(4)
    clear = VOTED.Pairs(
      pairs.texts, pairs.sides, votes, pairs.units, pairs.names, pairs.kind
    ).clear
    np.testing.assert_array_equal(clear, [True, False, False, True])

  def test_one_scale_suits_gaps_best(self):
    gaps = np.random.default_rng(0).normal(0.5, 1.0, (3, 40))
    np.testing.assert_allclose(
      VOTED.scaled_loss(gaps), VOTED.scaled_loss(3 * gaps), atol=0.01
    )
    self.assertTrue(np.all(
      VOTED.scaled_loss(gaps) <= np.logaddexp(0, -gaps).mean(axis=1) + 0.01
    ))  # fmt: skip

  def test_a_pair_counts_as_its_two_units_are_drawn(self):
    draws = VOTED.Draws([{"units": np.array([[0, 1], [2, 2]])}])
    weights = draws.weights(np.array([[0, 1], [2, 2]]))
    np.testing.assert_array_equal(weights[0], [1, 1])
    np.testing.assert_array_equal(
      weights[:, 0], draws.times[:, 0] * draws.times[:, 1]
    )
    np.testing.assert_array_equal(weights[:, 1], draws.times[:, 2])
    np.testing.assert_array_equal(draws.times.sum(axis=1), 3)


class StrengthTest(parameterized.TestCase):
  def test_auc_is_mann_and_whitneys(self):
    rng = np.random.default_rng(0)
    strength = np.round(rng.normal(size=200), 1)
    wrong, known = rng.random((2, 200)) < [[0.3], [0.8]]
    self.assertAlmostEqual(
      SCRIPT["found_by"](strength, wrong, known),
      stats.mannwhitneyu(
        strength[known & ~wrong], strength[known & wrong]
      ).statistic
      / ((known & ~wrong).sum() * (known & wrong).sum()),
    )
    self.assertTrue(
      np.isnan(SCRIPT["found_by"](strength, ~wrong & wrong, known))
    )

  @parameterized.parameters("0 %", "20 %", "a vote")
  def test_labels_by_hand(self, level):
    votes = np.array([[5, 0, 0], [3, 2, 0], [2, 1, 0], [4, 1, 0]] * 25)
    turned, wrong, known = SCRIPT["labelled"](
      votes, level, np.random.default_rng(0)
    )
    if level != "a vote":
      self.assertEqual(turned.sum(), 20 if level == "20 %" else 0)
      np.testing.assert_array_equal(turned, wrong)
      self.assertTrue(known.all())
      return
    self.assertFalse(turned[::4].any())
    # The other four of 3 to 2: a vote for the winner leaves two against two.
    np.testing.assert_array_equal(known[1::4], turned[1::4])
    np.testing.assert_array_equal(wrong[1::4], turned[1::4])
    # And of 2 to 1: one against one.
    np.testing.assert_array_equal(known[2::4], turned[2::4])
    self.assertBetween(turned[1::4].mean(), 0.2, 0.6)

  def test_what_is_told_by_hand(self):
    strength = np.linspace(-0.5, 1.3, 10).astype(np.float32)
    unseen = strength[::-1].copy()
    wrong = np.arange(10) == 3
    told = dict(
      zip(
        TABLES.METHODS, SCRIPT["told"](strength, unseen, wrong, 0), strict=True
      )
    )
    ones, first = np.ones(10), np.arange(10) == 0
    np.testing.assert_array_equal(told["plain"].chosen_prob, ones)
    np.testing.assert_array_equal(told["flip 10 %"].chosen_prob, ~first)
    np.testing.assert_array_equal(
      told["flip 20 %"].chosen_prob, np.arange(10) >= 2
    )
    np.testing.assert_array_equal(
      told["flip 10 %, unseen"].chosen_prob, ~first[::-1]
    )
    self.assertEqual(told["flip 10 %, drawn"].chosen_prob.sum(), 9)
    np.testing.assert_allclose(
      told["smooth"].chosen_prob, np.where(strength < 0, 0.8, 1), rtol=1e-6
    )
    np.testing.assert_array_equal(told["margin"].margin, strength)
    for name in ("flip 10 % + margin", "smooth + margin"):
      np.testing.assert_array_equal(told[name].margin, strength)
    np.testing.assert_array_equal(
      told["wrong labels known"].chosen_prob, ~wrong
    )

  def test_heads_learn_what_they_are_told_and_only_of_their_pairs(self):
    pairs, features = toy()
    apart = features[pairs.sides[:, 0]] - features[pairs.sides[:, 1]]
    size = len(apart)
    rows = np.stack([np.arange(size), np.arange(size), np.arange(size)])
    rows[2] = np.roll(rows[2], -200)
    prob = np.stack([np.ones(size), np.zeros(size), np.arange(size) < 200])
    heads = SCRIPT["train"](
      jnp.zeros(3, jnp.int32), jnp.zeros((3, 6)),
      jnp.asarray(apart), jnp.asarray(prob, jnp.float32),
      jnp.zeros((3, size)), jnp.asarray(rows),
      jnp.array([size, size, 200.0]), steps=(100, 300),
    )  # fmt: skip
    self.assertEqual(heads.shape, (2, 3, 6))
    right = np.mean(apart @ np.asarray(heads[1]).T > 0, axis=0)
    self.assertGreater(right[0], 0.95)
    # The third sees the later half alone, and that is told the other way.
    self.assertLess(right[1:].max(), 0.05)
    np.testing.assert_allclose(heads[:, 0], -heads[:, 1], atol=1e-5)


class SeedTest(absltest.TestCase):
  def test_strength_finds_what_was_turned_round(self):
    pairs, features = toy(1500)
    study = SCRIPT["Study"](pairs, features, (100, 300))
    run = study.seed(0, control=False)
    levels = TABLES.LEVELS
    self.assertEqual(run["gaps"].shape[:2], (len(levels), len(TABLES.METHODS)))
    self.assertTrue(np.isnan(run["auc"][0]).all())
    self.assertGreater(run["auc"][1:4].min(), 0.9)
    np.testing.assert_allclose(run["noise"][:4], [0, 0.1, 0.2, 0.3], atol=0.03)
    self.assertGreater(run["wrong"][2, 0], 0.8)
    scores = TABLES.Scores([run])
    self.assertGreater(scores.accuracy[3, 0, 0], 0.85)
    self.assertLess(scores.tenths[2, 0, 0], 0.3)
    held = VOTED.share_of(pairs.names, 0) < 0.25
    self.assertTrue(held[run["units"]].all())
    for table in (
      TABLES.finding([run]), TABLES.methods(scores), TABLES.tenths(scores)
    ):  # fmt: skip
      self.assertGreater(len(table), len(levels))
    both = TABLES.over_sources({"toy": [run]}, {"toy": scores})
    first, second = (both[2 : 2 + len(levels)], both[-len(levels) :])
    for n, level in enumerate(levels):
      found, helped = (line.strip("| ").split(" | ")
                       for line in (first[n], second[n]))  # fmt: skip
      self.assertEqual([found[:2], helped[:2]], 2 * [["toy", level]])
      self.assertStartsWith(found[7], f"{scores.tenths[n, 0, 0]:.3f} [")
      self.assertEqual(helped[4], f"{scores.accuracy[n, 0, 0]:.3f}")
      gain = scores.accuracy[n, -4, 0] - scores.accuracy[n, 0, 0]
      self.assertStartsWith(helped[-2], f"{gain:+.3f} [")
    np.testing.assert_allclose(
      scores.nats[0, 0, 0],
      losses.bradley_terry_loss(
        jnp.asarray(run["gaps"][0, 0]), jnp.zeros(len(run["units"]))
      ).mean(),
      rtol=1e-4,
    )

  def test_kinds_that_want_opposites_are_learned_apart(self):
    pairs, features = toy(1500)
    kind = np.arange(1500) % 2
    sides = np.where(kind[:, None], pairs.sides[:, ::-1], pairs.sides)
    pairs = dataclasses.replace(pairs, sides=sides, units=sides, kind=kind)
    right = {}
    for apart in (False, True):
      study = SCRIPT["Study"](pairs, features, (100,), apart=apart)
      with unittest.mock.patch.dict(
        study.seed.__func__.__globals__, {"LEVELS": ("0 %",)}
      ):
        run = study.seed(0, control=False)
      right[apart] = np.mean(run["gaps"][0, 0] > 0)
    self.assertBetween(right[False], 0.2, 0.8)
    self.assertGreater(right[True], 0.85)


if __name__ == "__main__":
  absltest.main()
