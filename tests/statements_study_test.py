"""The study of the best of n statements: votes, heads and tables."""

import csv
import gzip
import itertools
import json
import pathlib
import runpy
import sys
import tempfile
import unittest.mock

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.adapters import base
from jaxalign.data.records import reader
from jaxalign.experiments.reward_model import latent_groups
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_statements.py"))
VOTES, TABLES = SCRIPT["statement_votes"], SCRIPT["statement_tables"]
CHOOSERS = TABLES.CHOOSERS


def town(people=120, statements=60, seed=1):
  """Two groups of people, two in three and one, who want opposites."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(statements + 60, 6)).astype(np.float32)
  group = (np.arange(people) % 3 == 0).astype(int)
  # All like the first feature; of the second, each group its own sign.
  taste = np.array([[1.0, 2.0], [1.0, -2.0]])[group]
  worth = taste @ features[:statements, :2].T
  value = np.sign(worth + rng.normal(size=worth.shape)).astype(np.int8)
  value[rng.random(value.shape) < 0.2] = VOTES.MISSING
  texts = [("Q", f" statement {i}") for i in range(statements)]
  votes = VOTES.Votes(texts, [f"who-{u}" for u in range(people)], value, group)
  written = [("Q", f" answer {a}") for a in range(60)]
  return SCRIPT["Study"](votes, written, {1: features})


class VotesTest(absltest.TestCase):
  def test_pairs_are_those_of_the_adapter(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    folder = folder / "polis"
    folder.mkdir()
    rng = np.random.default_rng(0)
    (folder / "conversations.json").write_text(
      json.dumps({"town": {"topic": "A town", "description": ""}})
    )
    with gzip.open(folder / "statements.jsonl.gz", "wt") as file:
      for i in range(6):
        row = {"conversation": "town", "id": i, "text": f"say {i} "}
        file.write(json.dumps({**row, "split": "train"}) + "\n")
    with gzip.open(folder / "votes.csv.gz", "wt") as file:
      rows = csv.writer(file)
      rows.writerow(
        "conversation,participant,statement,vote,group,person_split".split(",")
      )
      for who, i in itertools.product(range(7), range(6)):
        if rng.random() < 0.8:
          group = "b" if who < 4 else "a" if who < 6 else ""
          rows.writerow(["town", who, i, rng.integers(-1, 2), group, "train"])
    votes = VOTES.read(str(folder), "town")
    self.assertEqual(votes.texts[2][1], " say 2")
    np.testing.assert_array_equal(votes.group, [0, 0, 0, 0, 1, 1, -1])
    new = np.array([False, True] * 3)
    found = VOTES.pairs(votes, new, 3, most=2)
    side = lambda text: int(text.strip()[-1]) % 2
    want = latent_groups.of_records(
      [
        *reader.RecordStream(
          [str(folder / "votes.csv.gz")], draw=base.Draw(2, 3, side)
        )
      ]
    )
    told = lambda one: [
      (one.people[u], one.texts[a], one.texts[b])
      for u, a, b in zip(one.user, one.chosen, one.rejected, strict=True)
      if u >= 0
    ]
    self.assertLen(found.user, VOTES.BLOCK)
    self.assertEqual(told(found), told(want))
    self.assertNotEmpty(told(found))
    np.testing.assert_array_equal(new[found.chosen], new[found.rejected])


class HeadsTest(parameterized.TestCase):
  def test_influence_is_that_of_a_fit_with_the_person_again(self):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    user = np.repeat(np.arange(60), 10)
    sides = np.array([rng.choice(40, 2, False) for _ in user], np.int32)
    judged = latent_groups.Judged(
      [("Q", f" {i}") for i in range(40)], *sides.T, user.astype(np.int32),
      [f"who-{u}" for u in range(60)], [None] * 60, 0,
    )  # fmt: skip

    def fitted(one, ridge):
      where = np.ones(len(one.user), bool)
      return where, latent_groups.fit(
        one, features, where, latent_groups.GroupsConfig(),
        components=1, ridge=ridge, seed=0,
      ).heads[0]  # fmt: skip

    where, head = fitted(judged, 0.1)
    moved = SCRIPT["influence"](judged, features, where, head, 0.1)
    again = judged._replace(
      chosen=np.append(judged.chosen, judged.chosen[user == 7]),
      rejected=np.append(judged.rejected, judged.rejected[user == 7]),
      user=np.append(judged.user, judged.user[user == 7]),
    )
    # The penalty is per pair, so that it grows; that of the step does not.
    _, other = fitted(again, 0.1 * 600 / 610)
    np.testing.assert_allclose(moved[7], other - head, rtol=0.1, atol=1e-4)

  def test_pairs_of_nobody_change_no_head(self):
    study = town(people=30, statements=20)
    found = []
    for block in (256, 1):
      with unittest.mock.patch.object(VOTES, "BLOCK", block):
        judged = VOTES.pairs(study.votes, np.arange(20) % 3 == 0, 0)
      where = (judged.user >= 0) & (judged.chosen % 3 > 0)
      found.append(
        latent_groups.fit(
          judged, study.layers[1][:20], where, latent_groups.GroupsConfig(),
          components=2, ridge=0.01, seed=0,
        )
      )  # fmt: skip
    # Groups have no order of their own.
    one, other = (np.argsort(groups.heads[:, 0]) for groups in found)
    for name in ("heads", "weights"):
      np.testing.assert_allclose(
        getattr(found[0], name)[one], getattr(found[1], name)[other], atol=1e-4
      )

  def test_an_answer_that_was_cut_keeps_its_whole_sentences(self):
    self.assertEqual(SCRIPT["whole"]("Yes.\nNo! And so"), "Yes. No!")
    self.assertEqual(SCRIPT["whole"]("and so"), "and so")

  def test_a_chance_is_the_mean_over_others(self):
    rewards = np.array([[0.0, 1.0], [2.0, 0.0]])
    got = SCRIPT["wins"](rewards, rewards[:, :1])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(got, [[0.5, sigmoid(1)], [0.5, sigmoid(-2)]])


class SeedTest(absltest.TestCase):
  def test_maxmin_serves_the_group_that_one_head_leaves_behind(self):
    study = town()
    runs = [study.seed(seed) for seed in range(2)]
    self.assertGreater(min(int(run["components"]) for run in runs), 1)
    judging, new = study.split(0)
    np.testing.assert_array_equal(runs[0]["person"], np.flatnonzero(judging))
    np.testing.assert_array_equal(runs[0]["new"], new)
    found = TABLES.Chosen(runs)
    column = CHOOSERS.index
    for name in TABLES.SETS:
      with self.subTest(name):
        worst = found.worst(name)[0]
        self.assertGreater(worst[column("MaxMin")], worst[0] + 0.05)
        self.assertGreater(worst[column("published, MaxMin")], worst[0] + 0.05)
        self.assertLess(worst[column("dealt, MaxMin")], worst[0] + 0.05)
        large = found.largest(name)[0]
        self.assertGreater(large[0], large[column("MaxMin")])
    self.assertGreater(
      found.worst("known")[0, column("votes, MaxMin")],
      found.worst("known")[0, 0],
    )
    self.assertTrue(np.isnan(found.worst("new")[0, column("votes, all")]))
    text = "\n".join(TABLES.lines({"town": found}))
    self.assertIn("| answers | two groups found, 1 | MaxMin |", text)
    row = TABLES.by_conversation({"town": found})[2]
    self.assertStartsWith(row, f"| town | {found.people} | ")
    path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    TABLES.draw({"town": found}, path / "n.png")
    self.assertGreater((path / "n.png").stat().st_size, 1000)


class TablesTest(absltest.TestCase):
  def run_of(self, votes, score, people=12):
    group = np.arange(people) % 2
    return {
      "score": score, "new": np.zeros(votes.shape[1], bool),
      "person": np.arange(people), "group": group, "votes": votes,
      "judge": np.full((2, score.shape[1]), np.nan), "components": 1,
    }  # fmt: skip

  def test_worth_is_the_mean_over_all_ways_to_take_eight(self):
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 2, (12, 10)).astype(np.int8)
    score = np.stack([rng.permutation(10) * 1.0 for _ in CHOOSERS])
    score[-1] = 0.0
    score[-2, 3] = np.nan
    found = TABLES.Chosen([self.run_of(votes, score)])
    mean = np.stack([votes[g::2].mean(axis=0) for g in range(2)])
    every = [*itertools.combinations(range(10), 8)]
    for c in range(2):
      best = [max(some, key=lambda i: score[c, i]) for some in every]
      np.testing.assert_allclose(
        found.worth["known", 8][0, c], mean[:, best].mean(axis=1), atol=1e-6
      )
    np.testing.assert_allclose(
      found.worth["known", 8][0, -1], mean.mean(axis=1), atol=1e-6
    )
    self.assertTrue(np.isnan(found.worth["known", 8][0, -2]).all())
    self.assertNotIn(("answers", 8), found.worth)
    self.assertNotIn(("new", 8), found.worth)

  def test_equal_choosers_differ_by_nothing(self):
    rng = np.random.default_rng(1)
    votes = rng.integers(-1, 2, (12, 10)).astype(np.int8)
    score = np.tile(rng.permutation(10) * 1.0, (len(CHOOSERS), 1))
    found = TABLES.Chosen([self.run_of(votes, score)])
    row = TABLES.by_conversation({"town": found})[2]
    self.assertIn("+0.000 [+0.000, +0.000], least 0.000", row)

  def test_groups_of_few_people_are_not_judged(self):
    votes = np.ones((8, 10), np.int8)
    score = np.tile(np.arange(10.0), (len(CHOOSERS), 1))
    found = TABLES.Chosen([self.run_of(votes, score, people=8)])
    self.assertEmpty(found.worth)
    votes = np.full((12, 10), VOTES.MISSING, np.int8)
    votes[:, :7] = 1  # seven statements are too few
    found = TABLES.Chosen([self.run_of(votes, score)])
    self.assertEmpty(found.worth)

  def test_a_draw_counts_people_as_often_as_they_are_there(self):
    value = np.array([[1, VOTES.MISSING], [-1, 0], [-1, -1]], np.int8)
    times = np.array([[1, 1, 1], [2, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(
      TABLES.mean_votes(value, times), [[-1 / 3, -0.5], [1 / 3, 0], [1, 0]]
    )


if __name__ == "__main__":
  absltest.main()
