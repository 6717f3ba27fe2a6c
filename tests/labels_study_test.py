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
TABLES, CROWDS = SCRIPT["label_tables"], SCRIPT["crowd_labels"]
UTILITIES = (1.0, 0.0, -1.0)
VOTES = (1, 3, 10, 50)


class VotesTest(parameterized.TestCase):
  def test_votes_are_those_given_in_another_order(self):
    counts = np.array([[3, 0, 2], [1, 4, 9]])
    votes = CROWDS.ordered_votes(counts, 0)
    np.testing.assert_array_equal(CROWDS.counted(votes, 3), counts)
    self.assertFalse(np.all(np.diff(votes[1]) >= 0))

  def test_half_of_the_votes_on_a_text_judge(self):
    texts = [("", f"t{n}") for n in range(3)]
    counts = np.array([[3, 0, 2], [1, 4, 9], [2, 2, 2]])
    crowd = CROWDS.of_counts(
      dict(zip(texts, counts, strict=True)), UTILITIES, VOTES
    )
    order = np.array([1, 2, 0])
    judged, learned = crowd.votes(0, order)
    np.testing.assert_array_equal(
      judged + CROWDS.counted(learned, 3), counts[order]
    )
    np.testing.assert_array_equal(judged.sum(axis=1), [7, 3, 2])

  @parameterized.parameters(2, 3)
  def test_a_duel_is_a_win_and_a_loss_and_parts_no_person(self, labels):
    rng = np.random.default_rng(0)
    sides = np.stack([rng.permutation(6)[:2] for _ in range(300)])
    even = rng.random(300) < (0.2 if labels == 3 else 0.0)
    who = rng.integers(0, 40, 300)
    duels = np.column_stack([sides, even])
    crowd = CROWDS.of_duels([("", f"t{n}") for n in range(6)], duels, who,
                            labels)  # fmt: skip
    judged, learned = crowd.votes(3, np.arange(6))
    judge = np.random.default_rng(3).random(40)[who] < 0.5
    for rows, counts in (
      (judge, judged), (~judge, CROWDS.counted(learned, labels)),
    ):  # fmt: skip
      wins = np.bincount(sides[rows & ~even, 0], minlength=6)
      losses_ = np.bincount(sides[rows & ~even, 1], minlength=6)
      np.testing.assert_array_equal(counts[:, 0], wins)
      np.testing.assert_array_equal(counts[:, -1], losses_)
      ties = np.bincount(sides[rows & even].ravel(), minlength=6)
      self.assertEqual(counts.sum(), 2 * rows.sum())
      if labels == 3:
        np.testing.assert_array_equal(counts[:, 1], ties)
    self.assertGreater(len(np.unique(learned[0][:10])), 1)

  def test_a_text_keeps_enough_votes_among_those_kept(self):
    # Text 3 has one vote; without it text 2 has one too few.
    duels = np.array([[0, 1, 0]] * 3 + [[1, 2, 0]] * 2 + [[2, 3, 0]])
    np.testing.assert_array_equal(
      CROWDS.enough_votes(duels, np.ones(4, bool), least=3),
      [True, True, False, False],
    )

  def test_a_hash_says_which_jokes_and_which_debates_take_part(self):
    with unittest.mock.patch.multiple(CROWDS, JOKES=4, DEBATES=2):
      jokes = [("", f"joke {n}") for n in range(9)]
      self.assertEqual(CROWDS.taken(jokes).sum(), 4)
      np.testing.assert_array_equal(
        CROWDS.taken(jokes[::-1]), CROWDS.taken(jokes)[::-1]
      )
      prompts = [
        f"Debate: {n // 4} Give one argument for {n % 4 // 2}"
        for n in range(12)
      ]
      there = CROWDS.taken([(one, f"{n}") for n, one in enumerate(prompts)])
      self.assertEqual(there.sum(), 8)
      self.assertTrue(all(len({*part}) == 1 for part in there.reshape(3, 4)))

  def test_targets_by_hand(self):
    counts = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 4]])
    plain, prior, smooth, both = SCRIPT["targets"](
      counts, np.array([0, 1]), UTILITIES
    )
    np.testing.assert_allclose(plain[1], [0, 0.5, 0.5])
    np.testing.assert_allclose(prior[0], [2 / 3, 1 / 6, 1 / 6], atol=1e-6)
    np.testing.assert_allclose(smooth[0], [0.9, 0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(both[0], prior[0], atol=1e-6)

  def test_the_better_of_a_pair_comes_first(self):
    worth = np.array([1.0, 0.0, -1.0, 0.0])
    pairs = SCRIPT["better"](worth, np.arange(4), 0)
    there = pairs[:, 0] >= 0
    self.assertTrue(np.all(worth[pairs[there, 0]] > worth[pairs[there, 1]]))
    self.assertBetween(there.sum(), 1, len(pairs) - 1)


class HeadsTest(parameterized.TestCase):
  @parameterized.parameters(*TABLES.LOSSES, "bradley_terry")
  def test_a_head_learns_what_the_features_say(self, loss):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)).astype(np.float32)
    features[:, 3] = 0.3
    logits = features @ np.vstack([np.diag([2.0, 1.0, -2.0]), np.zeros(3)])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.arange(40), np.arange(40, 60)
    counts = rng.multinomial(50, shares / shares.sum(1, keepdims=True))
    worth = counts @ np.array(UTILITIES)
    if loss == "bradley_terry":
      given = [
        (jnp.zeros(0, jnp.int32), jnp.asarray(SCRIPT["better"](worth, r, 0))[
          None])
        for r in rows
      ]  # fmt: skip
    else:
      taught = jnp.asarray(counts / 50, jnp.float32)
      given = [(jnp.asarray(r), taught[r][None]) for r in rows]
    head = SCRIPT["fitted"](loss, UTILITIES, jnp.asarray(features), *given)[0]
    worth = shares @ np.array(UTILITIES)
    found = features @ np.asarray(head)
    if loss == "bradley_terry":
      found = found[:, 0]
    else:
      probs = np.exp(found) / np.exp(found).sum(1, keepdims=True)
      self.assertLess(np.abs(probs - shares).mean(), 0.06)
      found = probs @ np.array(UTILITIES)
    self.assertGreater(stats.spearmanr(found, worth)[0], 0.9)

  @parameterized.parameters(*TABLES.LOSSES)
  def test_a_head_begins_at_the_mean_shares_and_may_stay_there(self, loss):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)).astype(np.float32)
    features[:, 3] = 0.3
    taught = rng.dirichlet([5, 2, 1], 30).astype(np.float32)
    heads = SCRIPT["heads_of"](
      loss, UTILITIES, jnp.asarray(features[:20]), jnp.asarray(taught[:20])
    )
    logits = np.asarray(heads[0])[3] * 0.3
    np.testing.assert_allclose(
      np.exp(logits) / np.exp(logits).sum(), taught[:20].mean(axis=0), atol=1e-5
    )
    np.testing.assert_array_equal(heads[0][:3], 0.0)
    self.assertLen(heads, 1 + len(SCRIPT["STEPS"]))


class SeedTest(absltest.TestCase):
  def test_held_out_texts_are_told_by_their_features_and_words(self):
    rng = np.random.default_rng(0)
    good = rng.random(120) < 0.5
    texts = [
      ("", f"{'fine' if one else 'poor'} word {n} {'x' * (n % 7)}")
      for n, one in enumerate(good)
    ]
    counts = np.where(good[:, None], [18, 2, 2], [2, 2, 18])
    crowd = CROWDS.of_counts(
      dict(zip(texts, counts, strict=True)), UTILITIES, (1, 10)
    )
    features = rng.normal(size=(120, 6)) + 3 * good[:, None]
    run = SCRIPT["Study"](crowd, features.astype(np.float32)).seed(
      0, control=False
    )
    self.assertEqual(run["probs"].shape[:3], (3, 2, 4))
    np.testing.assert_array_equal(run["given"], [1, 10])
    found = TABLES.Scores([run])
    # Half of the pairs are of texts that are alike: one half of these.
    longer, words, both = found.rank[-3:, 1, 0]
    self.assertBetween(longer, 0.35, 0.65)
    self.assertGreater(min(words, both), 0.7)
    self.assertGreater(found.rank[: len(TABLES.LOSSES), 1, 0].min(), 0.7)
    self.assertLess(found.far[:, 1, 0, 0, 0].max(), 0.2)


class ScoresTest(absltest.TestCase):
  def run_of(self, seed, number=30):
    rng = np.random.default_rng(seed)
    shape = (len(TABLES.LOSSES), len(VOTES), len(TABLES.TREATED))
    judged = rng.multinomial(20, [0.5, 0.2, 0.3], number)
    probs = rng.dirichlet(np.ones(3), (*shape, number))
    probs[0] = judged / 20  # transport knows
    return {
      "probs": probs, "judged": judged, "item": rng.permutation(80)[:number],
      "scores": rng.normal(size=(len(VOTES), number)),
      "mean": np.full((len(VOTES), 3), 1 / 3),
      "baselines": rng.dirichlet(
        np.ones(3), (len(TABLES.BASELINES), len(VOTES), number)
      ),
      "utilities": np.array(UTILITIES), "votes": np.array(VOTES),
      "given": np.array([1.0, 3.0, 10.0, 31.25]),
    }  # fmt: skip

  def test_distances_are_those_of_the_losses(self):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 5).astype(np.float32)
    judged = rng.multinomial(10, [0.3, 0.3, 0.4], 5)
    found = TABLES.distances(probs, judged, np.array(UTILITIES))
    target = jnp.asarray(judged / 10, jnp.float32)
    utilities = jnp.asarray(UTILITIES)
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
    apart = lambda probs: TABLES.distances(
      probs, run["judged"], np.array(UTILITIES)
    ).mean(axis=-2)
    np.testing.assert_allclose(alone.far[..., 0, :], apart(run["probs"]))
    np.testing.assert_allclose(alone.others[1:, :, 0], apart(run["baselines"]))
    constant = np.repeat(run["mean"][:, None], 30, axis=1)
    np.testing.assert_allclose(alone.others[0, :, 0], apart(constant))
    worth = run["judged"] @ np.array(UTILITIES)
    np.testing.assert_allclose(
      alone.rank[len(TABLES.LOSSES), 0, 0],
      np.nanmean(TABLES.ranked(run["scores"][0], worth)),
    )
    self.assertIn("| 50 (31.2) | mean shares |", "".join(TABLES.lines(found)))
    summary = TABLES.summary({"toy": found, "again": found})
    self.assertLen(summary, 2 + 2 * len(VOTES))
    self.assertStartsWith(summary[2], "| toy | 1 | 0.000 | ")
    self.assertEqual(summary[2].count("|"), summary[0].count("|"))
    self.assertIn("| 1 | transport | 0.000 |", TABLES.lines(found)[2])
    self.assertIn(
      "+0.000 [+0.000, +0.000], least 0.000", TABLES.treated(found)[2]
    )


if __name__ == "__main__":
  absltest.main()
