"""The study of heads: splits, training, choices inside, and the tables."""

import runpy
import sys
import unittest.mock

import jax
import numpy as np
import scipy.optimize
from absl.testing import absltest

from jaxalign.experiments.reward_model import latent_groups
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_heads.py"))
Head, Pairs = SCRIPT["Head"], SCRIPT["Pairs"]


def some_pairs(rewards, people=30, each=20, seed=0):
  """Pairs of texts, the better one chosen by a coin of the rewards."""
  rng = np.random.default_rng(seed)
  draw = lambda: rng.choice(len(rewards), 2, False)
  sides = np.array([draw() for _ in range(people * each)])
  gap = rewards[sides[:, 0]] - rewards[sides[:, 1]]
  swap = rng.random(len(gap)) > 1 / (1 + np.exp(-gap))
  sides[swap] = sides[swap, ::-1]
  user = np.repeat(np.arange(people), each).astype(np.int32)
  return Pairs(*sides.T.astype(np.int32), user)


def right(found, pairs):
  """Share of the pairs that rewards [1, I] order as they are stated."""
  return np.mean(found[0][pairs.chosen] > found[0][pairs.rejected])


class HeadsStudyTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    # optax's Adam multiplies its count without saying the type.
    self.enter_context(jax.numpy_dtype_promotion("standard"))

  def test_no_pair_of_training_is_scored(self):
    pairs = some_pairs(np.zeros(12))
    people, statements = np.arange(30) % 3 == 0, np.arange(12) % 4 == 0
    parts = SCRIPT["split"](pairs, people, statements)
    self.assertEqual(sum(part.astype(int) for part in parts.values()).max(), 1)
    train, new = pairs.of(parts["train"]), pairs.of(parts["new"])
    self.assertFalse(people[train.user].any())
    self.assertFalse(statements[[train.chosen, train.rejected]].any())
    self.assertTrue(people[new.user].all())
    self.assertTrue(statements[[new.chosen, new.rejected]].all())
    met = pairs.of(parts["met"])
    self.assertTrue(people[met.user].all())
    self.assertFalse(statements[[met.chosen, met.rejected]].any())

  def test_a_linear_head_is_the_minimum_of_its_loss(self):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(25, 3)).astype(np.float32)
    pairs = some_pairs(features @ [1.0, -1.0, 0.5])
    apart = features[pairs.chosen] - features[pairs.rejected]
    penalties = SCRIPT["PENALTIES"]
    found = SCRIPT["rewards_of"](
      Head((2,), None), {2: features}, pairs, 0, penalties
    )
    for rewards, penalty in zip(found, penalties, strict=True):
      cost = lambda w, p=penalty: (
        np.logaddexp(0, -apart @ w).mean() + 0.5 * p * w @ w
      )
      best = scipy.optimize.minimize(cost, np.zeros(3), tol=1e-10).x
      np.testing.assert_allclose(rewards, features @ best, atol=5e-3)

  def test_each_head_finds_what_it_alone_can_tell(self):
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 60, 4)).astype(np.float32)
    truth = {
      Head((1,), 8): 4 * np.abs(one[:, 0]),
      Head((1, 2), None): 4 * (one[:, 1] + other[:, 1]),
    }
    for head, rewards in truth.items():
      pairs = some_pairs(rewards, people=60)
      own = SCRIPT["rewards_of"](head, {1: one, 2: other}, pairs, 0, (1e-3,))
      plain = SCRIPT["rewards_of"](
        Head((1,), None), {1: one, 2: other}, pairs, 0, (1e-3,)
      )
      self.assertGreater(right(own, pairs), right(plain, pairs) + 0.1)

  def test_features_of_layers_have_one_scale(self):
    rng = np.random.default_rng(3)
    layers = {1: rng.normal(size=(9, 2)), 2: 5 + 3 * rng.normal(size=(9, 2))}
    where = np.arange(9) < 6
    found = SCRIPT["scaled"](layers, where)
    for layer in layers:
      np.testing.assert_allclose(found[layer][where].mean(0), 0, atol=1e-6)
      ratio = (layers[layer] - layers[layer][where].mean(0)) / found[layer]
      np.testing.assert_allclose(ratio, np.tile(ratio[:1], (9, 1)), rtol=1e-5)
    power = np.mean([np.square(v[where]).mean(0) for v in found.values()], 0)
    np.testing.assert_allclose(power, 1, rtol=1e-4)

  def test_a_seed_counts_the_pairs_of_held_out_people(self):
    rng = np.random.default_rng(4)
    layers = {layer: rng.normal(size=(40, 4)) for layer in SCRIPT["LAYERS"]}
    pairs = some_pairs(3 * layers[18][:, 0], people=60)
    judged = latent_groups.Judged(
      [("Q", f" {i}") for i in range(40)], *pairs,
      [f"who-{u}" for u in range(60)], [None] * 60, 0,
    )  # fmt: skip
    study = SCRIPT["Study"](judged, layers)
    few = {
      "PENALTIES": (1e-2, 1e-1), "STEPS": 60, "INNER": 1,
      "CANDIDATES": {
        "one layer": [Head((layer,), None) for layer in SCRIPT["LAYERS"]],
        "hidden units": [Head((18,), 4)],
        "mixture": [Head(SCRIPT["LAYERS"], None)],
        "mixture, hidden units": [Head(SCRIPT["LAYERS"], 4)],
      },
    }  # fmt: skip
    code = SCRIPT["Study"].seed.__globals__
    with unittest.mock.patch.dict(code, few):
      run = study.seed(0, control=False)
      drawn = study.seed(0, control=True)
    out = SCRIPT["held_out"](judged.people, 4, 0)
    self.assertTrue(np.all(run["number"][:, ~out] == 0))
    self.assertGreater(run["number"].min(1, where=out, initial=99).max(), 0)
    self.assertTrue(np.all(run["right"] <= run["number"]))
    np.testing.assert_array_equal(run["layer"][0], [18, 18])
    self.assertGreater(run["right"][0, 0].sum() / run["number"][0].sum(), 0.7)
    self.assertFalse(np.array_equal(run["right"], drawn["right"]))
    table = "\n".join(SCRIPT["lines"]({"toy": [run]}))
    self.assertIn("| toy | met | ", table)
    self.assertIn("| toy | new | 18 | 18 | 4 |", table)

  def test_gains_are_paired_over_people(self):
    right = np.zeros((4, 2, 50))
    right[:, 0] = np.arange(50) % 3
    right[1, 0] += 1
    runs = [{"right": right, "number": np.full((2, 50), 4.0)}] * 2
    found = SCRIPT["compared"](runs, 0)
    np.testing.assert_allclose(found.gains, [0, 0.25, 0, 0])
    np.testing.assert_allclose(found.ends[:, 1], 0.25)
    self.assertEqual(found.people, 50)


if __name__ == "__main__":
  absltest.main()
