"""The study of label shares, MORE and MaxMin inside a mixture."""

import runpy
import sys
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign import losses
from tests import checkout
from tests import statements_study_test as statements

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_together.py"))
CHOOSERS, UTILITIES = SCRIPT["CHOOSERS"], np.array(SCRIPT["UTILITIES"])


class LabelsTest(absltest.TestCase):
  def test_shares_are_those_of_each_groups_votes(self):
    votes = statements.VOTES.Votes(
      [("Q", " a"), ("Q", " b")], ["u", "v", "w"],
      np.array([[1, 0], [1, -1], [-1, -2]], np.int8), np.array([0, 0, 1]),
    )  # fmt: skip
    groups = [np.array([True, True, False]), np.array([False, False, True])]
    counts = SCRIPT["counted"](votes, groups)
    np.testing.assert_array_equal(
      counts, [[[2, 0, 0], [0, 1, 1]], [[0, 0, 1], [0, 0, 0]]]
    )
    found = SCRIPT["shares"](counts, np.array([0]))
    prior = np.array([1, 1, 2]) / 4
    np.testing.assert_allclose(found[1, 0], (2 * prior + [0, 0, 1]) / 3)
    np.testing.assert_allclose(found[1, 1], prior, rtol=1e-6)

  def test_a_head_learns_shares_and_more_weighs_the_shorter_gradient(self):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(80, 3)), jnp.float32)
    sure = jax.nn.softmax(features * jnp.array([[2.0, 1.0, -2.0]]))
    unsure = jax.nn.softmax(-0.3 * features)
    taught = jnp.stack([sure, unsure])
    given = (features[:60], taught[:, :60]), (features[60:], taught[:, 60:])
    own = SCRIPT["own_heads"](jnp.zeros((3, 3)), *given)
    for k in range(2):
      guess = jax.nn.softmax(features[60:] @ own[k])
      off = lambda one, k=k: np.abs(one - np.asarray(taught[k, 60:])).mean()
      constant = np.asarray(taught[k]).mean(axis=0)
      self.assertLess(off(guess), 0.3 * off(constant))
    _, even = SCRIPT["trained"](jnp.zeros((3, 3)), *given)
    np.testing.assert_allclose(even, 0.5, rtol=1e-5)
    more, weights = SCRIPT["trained"](jnp.zeros((3, 3)), *given, more=True)
    self.assertAlmostEqual(float(weights.sum()), 1.0, places=5)
    self.assertGreater(float(weights[1]), 0.505)
    self.assertTrue(np.isfinite(np.asarray(more)).all())

  def test_losses_of_groups_are_those_of_the_labels(self):
    rng = np.random.default_rng(1)
    head = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    features = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)
    taught = jnp.asarray(rng.dirichlet(np.ones(3), (2, 5)), jnp.float32)
    got = SCRIPT["group_losses"](head, features, taught)
    logits = features @ head
    for k in range(2):
      line = losses.wasserstein_1d_loss(
        logits, taught[k], jnp.asarray(UTILITIES, jnp.float32)
      )
      entropy = losses.label_cross_entropy(logits, taught[k])
      self.assertAlmostEqual(
        float(got[k]), float(jnp.mean(line + 0.1 * entropy)), places=5
      )


class ToldTest(absltest.TestCase):
  def test_other_statements_or_other_people_say_how_long(self):
    town = statements.town()
    layers = {1: town.layers[1][: len(town.votes.texts)]}
    study = SCRIPT["Study"](town.votes, [], layers)
    number = len(town.votes.people)
    groups = [np.arange(number) % 3 == 0, np.arange(number) % 3 == 1]
    known = np.arange(1, len(town.votes.texts))
    wide = jnp.arange(len(known) + 1.0)[:, None]
    fit, tune = study._told(wide, known, groups)
    both = np.concatenate([fit[0], tune[0]])[:, 0]
    np.testing.assert_array_equal(np.sort(both), known)
    self.assertGreater(len(fit[0]), len(tune[0]))
    study.by_people = True
    fit, tune = study._told(wide, known, groups)
    other = (
      SCRIPT["latent_groups"].fold_of(town.votes.people, 5, 7) == 0
    )  # fmt: skip
    self.assertBetween(other.mean(), 0.05, 0.5)
    for (features, taught), some in ((fit, ~other), (tune, other)):
      np.testing.assert_array_equal(features[:, 0], known)
      counts = SCRIPT["counted"](town.votes, [mine & some for mine in groups])
      np.testing.assert_array_equal(
        taught, SCRIPT["shares"](counts, known)[:, known]
      )


class SeedTest(absltest.TestCase):
  def test_heads_per_group_serve_the_worst_off(self):
    town = statements.town()
    layers = {1: town.layers[1][: len(town.votes.texts)]}
    run = SCRIPT["Study"](town.votes, [], layers).seed(0)
    found = statements.TABLES.Chosen([run])
    self.assertNotIn(("answers", 8), found.worth)
    worst = dict(zip(CHOOSERS, found.worst("known")[0], strict=True))
    for name in ("together", "labels by group, MaxMin", "votes, MaxMin"):
      self.assertGreater(worst[name], worst["labels"] + 0.1, name)
    self.assertLess(worst["dealt, together"], worst["together"] - 0.1)
    self.assertAlmostEqual(float(run["weights"].sum()), 1.0, places=4)
    new = dict(zip(CHOOSERS, found.worst("new")[0], strict=True))
    self.assertTrue(np.isnan(new["votes, MaxMin"]))
    self.assertFalse(np.isnan(new["together"]))


if __name__ == "__main__":
  absltest.main()
