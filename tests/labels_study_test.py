"""The study of crowd labels: votes, targets, heads, distances and ranking."""

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
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_labels.py"))
TABLES = SCRIPT["label_tables"]


class VotesTest(absltest.TestCase):
  def test_votes_are_those_given_in_another_order(self):
    counts = np.array([[3, 0, 2], [1, 4, 9]])
    votes = SCRIPT["ordered_votes"](counts, 0)
    np.testing.assert_array_equal(SCRIPT["shares_of"](votes), counts)
    self.assertFalse(np.all(np.diff(votes[1]) >= 0))

  def test_targets_by_hand(self):
    counts = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 4]])
    plain, prior, smooth, both = SCRIPT["targets"](counts, np.array([0, 1]))
    np.testing.assert_allclose(plain[1], [0, 0.5, 0.5])
    np.testing.assert_allclose(prior[0], [2 / 3, 1 / 6, 1 / 6], atol=1e-6)
    np.testing.assert_allclose(smooth[0], [0.9, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(both[0], prior[0], atol=1e-6)

  def test_the_better_of_a_pair_comes_first(self):
    counts = np.array([[5, 0, 0], [0, 5, 0], [0, 0, 5], [0, 2, 0]])
    pairs = SCRIPT["better"](counts, np.arange(4), 0)
    worth = np.array([1.0, 0.0, -1.0, 0.0])
    there = pairs[:, 0] >= 0
    self.assertTrue(np.all(worth[pairs[there, 0]] > worth[pairs[there, 1]]))
    self.assertBetween(there.sum(), 1, len(pairs) - 1)


class HeadsTest(parameterized.TestCase):
  @parameterized.parameters(*TABLES.LOSSES, "bradley_terry")
  def test_a_head_learns_what_the_features_say(self, loss):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3)).astype(np.float32)
    logits = features @ np.diag([2.0, 1.0, -2.0])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.arange(40), np.arange(40, 60)
    counts = rng.multinomial(50, shares / shares.sum(1, keepdims=True))
    if loss == "bradley_terry":
      given = [
        (jnp.zeros(0, jnp.int32), jnp.asarray(SCRIPT["better"](counts, r, 0))[
          None])
        for r in rows
      ]  # fmt: skip
    else:
      taught = jnp.asarray(counts / 50, jnp.float32)
      given = [(jnp.asarray(r), taught[r][None]) for r in rows]
    head = SCRIPT["fitted"](loss, jnp.asarray(features), *given)[0]
    worth = shares @ np.array(TABLES.UTILITIES)
    found = features @ np.asarray(head)
    if loss == "bradley_terry":
      found = found[:, 0]
    else:
      probs = np.exp(found) / np.exp(found).sum(1, keepdims=True)
      self.assertLess(np.abs(probs - shares).mean(), 0.06)
      found = probs @ np.array(TABLES.UTILITIES)
    self.assertGreater(stats.spearmanr(found, worth)[0], 0.9)


class ScoresTest(absltest.TestCase):
  def run_of(self, seed, number=30):
    rng = np.random.default_rng(seed)
    shape = (len(TABLES.LOSSES), len(TABLES.VOTES), len(TABLES.TREATED))
    judged = rng.multinomial(20, [0.5, 0.2, 0.3], number)
    probs = rng.dirichlet(np.ones(3), (*shape, number))
    probs[0] = judged / 20  # transport knows
    return {
      "probs": probs, "judged": judged, "item": rng.permutation(80)[:number],
      "scores": rng.normal(size=(len(TABLES.VOTES), number)),
      "mean": np.full((len(TABLES.VOTES), 3), 1 / 3),
      "length": rng.integers(1, 90, number),
    }  # fmt: skip

  def test_distances_are_those_of_the_losses(self):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 5).astype(np.float32)
    judged = rng.multinomial(10, [0.3, 0.3, 0.4], 5)
    found = TABLES.distances(probs, judged)
    target = jnp.asarray(judged / 10, jnp.float32)
    utilities = jnp.asarray(TABLES.UTILITIES)
    logits = jnp.log(probs)
    np.testing.assert_allclose(
      found[:, 0],
      losses.wasserstein_1d_loss(logits, target, utilities),
      atol=1e-5,
    )
    np.testing.assert_allclose(
      found[:, 2], losses.label_cross_entropy(logits, target), atol=1e-5
    )
    np.testing.assert_allclose(
      found[:, 1],
      np.abs(
        losses.expected_utility(jnp.asarray(probs), utilities)
        - losses.expected_utility(target, utilities)
      ),
      atol=1e-5,
    )

  def test_ranking_is_kendalls(self):
    rng = np.random.default_rng(0)
    score, worth = rng.normal(size=(2, 20))
    right = np.nanmean(TABLES.ranked(score, worth))
    tau = stats.kendalltau(score, worth)[0]
    self.assertAlmostEqual(right, (tau + 1) / 2)

  def test_who_knows_is_nearer_and_ranks_right(self):
    found = TABLES.Scores([self.run_of(seed) for seed in range(2)])
    np.testing.assert_allclose(found.far[0, ..., :2], 0, atol=1e-12)
    np.testing.assert_allclose(found.rank[0], 1.0)
    self.assertBetween(found.rank[len(TABLES.LOSSES), 0, 0], 0.3, 0.7)
    run = self.run_of(0)
    alone = TABLES.Scores([run])
    each = TABLES.distances(run["probs"], run["judged"]).mean(axis=3)
    np.testing.assert_allclose(alone.far[..., 0, :], each)
    self.assertIn("| 1 | transport | 0.000 |", TABLES.lines(found)[2])
    self.assertIn(
      "+0.000 [+0.000, +0.000], least 0.000", TABLES.treated(found)[2]
    )


if __name__ == "__main__":
  absltest.main()
