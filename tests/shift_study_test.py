"""The study of shifts: heads, views, a look ahead, splits and scores."""

import dataclasses
import functools
import runpy
import sys
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_shift.py"))
TABLES, VOTED = SCRIPT["shift_tables"], SCRIPT["voted_pairs"]
STEPS = (40, 80)


def toy(number=600, width=6, kinds=7, seed=0, texts=80):
  """Pairs whose features say which text is better, and these features."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(texts, width)).astype(np.float32)
  worth = features @ rng.normal(size=width)
  sides = np.stack([rng.permutation(texts)[:2] for _ in range(number)])
  turned = worth[sides[:, 0]] < worth[sides[:, 1]]
  sides[turned] = sides[turned, ::-1]
  named = [("", f"text {n} of {n % 5}") for n in range(texts)]
  return VOTED.Pairs(
    named, sides, np.tile([4, 0, 0], (number, 1)), sides,
    [text for _, text in named], rng.integers(0, kinds, number),
  ), features  # fmt: skip


@functools.cache
def trained(method, seed=0):
  pairs, features = toy()
  both = jnp.asarray(features[pairs.sides])
  return SCRIPT["train"](
    method, SCRIPT["start"](6, seed), both[:400], jnp.float32(400), both[400:],
    jnp.float32(200), jnp.int32(seed), steps=STEPS,
  )  # fmt: skip


class HeadTest(parameterized.TestCase):
  @parameterized.parameters(*TABLES.METHODS)
  def test_a_head_learns_under_every_method(self, method):
    pairs, features = toy()
    head = jax.tree.map(lambda x: x[-1], trained(method))
    scores = SCRIPT["rewards"](head, jnp.asarray(features[pairs.sides]))
    self.assertGreater(np.mean(scores[:, 0] > scores[:, 1]), 0.85)

  def test_no_step_ahead_is_plain_bit_for_bit(self):
    plain, none = trained("plain"), trained("MetaRM, none")
    jax.tree.map(np.testing.assert_array_equal, plain, none)
    ahead = trained("MetaRM, ten times")
    self.assertFalse(np.array_equal(plain["in"], ahead["in"]))

  def test_views_add_their_loss_to_that_of_two_views(self):
    _, features = toy()
    given = jnp.asarray(features[:16]), jnp.asarray(features[16:32])
    head, key = SCRIPT["start"](6, 0), jax.random.key(3)
    cost = lambda method: float(
      SCRIPT["cost_of"](method, head, *given, jax.random.clone(key))
    )
    alone = cost("two views")
    # Nearly equal views of 32 or of 32 are found at a small loss.
    for method in TABLES.VIEWED[1:]:
      self.assertBetween(cost(method) - alone, 1e-3, 3.0)
    with unittest.mock.patch.dict(
      SCRIPT["cost_of"].__globals__, {"DROPPED": 0.0}
    ):
      self.assertAlmostEqual(cost("two views"), cost("plain"), places=5)

  def test_a_look_ahead_parts_what_has_no_label(self):
    pairs, features = toy()
    fresh = jnp.asarray(features[pairs.sides[400:]])
    spread = {}
    for method in ("MetaRM, none", "MetaRM, ten times"):
      head = jax.tree.map(lambda x: x[-1], trained(method))
      scores = np.asarray(SCRIPT["rewards"](head, fresh))
      spread[method] = np.abs(scores[:, 0] - scores[:, 1]).mean()
    self.assertNotEqual(*spread.values())


class SplitTest(parameterized.TestCase):
  @parameterized.parameters("hh", "humour", "convarg")
  def test_what_is_judged_shares_no_unit_with_what_is_learned(self, name):
    pairs, _ = toy(kinds=2 if name == "hh" else 7)
    votes = np.where(np.arange(600)[:, None] % 3, pairs.votes, [2, 1, 0])
    pairs = dataclasses.replace(pairs, votes=votes)
    trained_on, near, ahead, far = SCRIPT["parted"](pairs, name, 0)
    units = [set(pairs.units[rows].ravel()) for rows in
             (trained_on, near, ahead, far)]  # fmt: skip
    self.assertEmpty(units[0] & units[1])
    self.assertEmpty(units[2] & units[3])
    if name == "humour":
      self.assertEmpty((units[0] | units[1]) & (units[2] | units[3]))
    else:
      kinds = [{*pairs.kind[rows]} for rows in (trained_on, near, ahead, far)]
      self.assertEmpty((kinds[0] | kinds[1]) & (kinds[2] | kinds[3]))
    for rows in (trained_on, near, far):
      self.assertNotEmpty(rows)
      self.assertTrue(pairs.clear[rows].all())
    self.assertFalse(pairs.clear[ahead].all())


class SeedTest(absltest.TestCase):
  def test_scores_of_a_seed(self):
    pairs, features = toy(4000, texts=200)
    study = SCRIPT["Study"]("humour", pairs, features, STEPS)
    run = study.seed(0, control=False)
    found = TABLES.Scores([run])
    self.assertEqual(found.pairs, [(~run["shifted"]).sum(),
                                   run["shifted"].sum()])  # fmt: skip
    self.assertGreater(found.accuracy[:, : len(TABLES.METHODS), 0].min(), 0.8)
    right = run["gaps"][0, run["shifted"]] > 0
    self.assertAlmostEqual(found.accuracy[1, 0, 0], right.mean())
    none = TABLES.METHODS.index("MetaRM, none")
    np.testing.assert_array_equal(run["gaps"][0], run["gaps"][none])
    lines = TABLES.lines(found)
    row = next(line for line in lines if line.startswith("| MetaRM, none |"))
    self.assertEqual(row.count("+0.000 [+0.000, +0.000], least 0.000"), 3)
    self.assertLen(TABLES.means({"humour": found}), 2 + len(TABLES.AGAINST))
    wide = TABLES.over_sources({"one": found, "two": found})
    row = next(line for line in wide if line.startswith("| MetaRM, none |"))
    self.assertEqual(row.count("; +0.000 [+0.000, +0.000]"), 6)
    self.assertIn(f"| {found.accuracy[1, none, 0]:.3f}; ", row)
    self.assertEqual(wide[2].count("| – "), 2)


if __name__ == "__main__":
  absltest.main()
