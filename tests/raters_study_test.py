"""The study of raters: who is read from which file, and pairs of a person."""

import csv
import gzip
import json
import pathlib
import runpy
import sys
import tempfile
import unittest.mock

import numpy as np
from absl.testing import absltest

from jaxalign.experiments.reward_model import latent_groups
from tests import checkout

DOCS = checkout.ROOT / "docs"
with unittest.mock.patch.object(sys, "path", [str(DOCS), *sys.path]):
  SCRIPT = runpy.run_path(str(DOCS / "tabulate_raters.py"))
TABLES = SCRIPT["people_tables"]


def text(name):
  return "", f" {name}"


class PairsTest(absltest.TestCase):
  def test_no_text_of_a_person_stands_twice_and_few_pairs_are_kept(self):
    rng = np.random.default_rng(0)
    pairs = {
      who: [tuple(map(text, rng.choice(400, 2, False))) for _ in range(number)]
      for who, number in (("b", 300), ("a", 40), ("c", 0))
    }
    judged = SCRIPT["judged_of"](pairs, {"a": "north"})
    self.assertEqual(judged.people, ["a", "b", "c"])
    self.assertEqual(judged.group, ["north", None, None])
    self.assertEqual(judged.counts[1], SCRIPT["MOST"])
    self.assertEqual(judged.counts[2], 0)
    for who in (0, 1):
      mine = judged.sides[judged.user == who]
      self.assertLen(np.unique(mine), mine.size)
      said = {(judged.texts[a], judged.texts[b]) for a, b in mine}
      self.assertContainsSubset(said, pairs["ab"[who]])
    again = SCRIPT["judged_of"](dict(reversed(pairs.items())), {"a": "north"})
    self.assertEqual(again.texts, judged.texts)
    np.testing.assert_array_equal(again.sides, judged.sides)
    free = latent_groups.apart(judged, 5)
    np.testing.assert_array_equal(
      np.bincount(judged.user[free], minlength=3), judged.counts - [5, 5, 0]
    )

  def test_each_vote_is_in_one_pair(self):
    good, bad = [[text(f"{kind}{n}") for n in range(number)]
                 for kind, number in (("g", 5), ("b", 9))]  # fmt: skip
    pairs = SCRIPT["matched"]("who", good, bad)
    self.assertLen(pairs, 5)
    better, worse = map(set, zip(*pairs, strict=True))
    self.assertEqual(better, {*good})
    self.assertLen(worse & {*bad}, 5)
    self.assertNotEqual(pairs, SCRIPT["matched"]("another", good, bad))
    self.assertEmpty(SCRIPT["matched"]("who", good, []))


class ReadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def write(self, name, rows):
    file = self.folder / name
    file.parent.mkdir(exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as out:
      if ".csv" in name:
        csv.writer(out).writerows(rows)
      else:
        out.writelines(f"{json.dumps(row)}\n" for row in rows)

  def said(self, name):
    judged = SCRIPT["read"](str(self.folder), name)
    who = [judged.people[user] for user in judged.user]
    names = [one.strip() for _, one in judged.texts]
    sides = [(names[a], names[b]) for a, b in judged.sides]
    return judged, [*zip(who, sides, strict=True)]

  def test_a_post_that_is_no_hate_is_preferred_and_countries_are_groups(self):
    self.write(
      "crehate/posts_train.jsonl.gz",
      [
        {"post_id": name, "text": f"post {name}", "source_set": "CP",
         "country_label": {"US": 0}}
        for name in "abc"
      ],
    )  # fmt: skip
    people = [["annotator", "country"], ["p", "AU"], ["q", "SG"]]
    self.write("crehate/annotators.csv.gz", people)
    ratings = ["a,p,1", "b,p,0", "c,p,2", "a,q,0", "b,q,1", "c,q,0"]
    self.write(
      "crehate/ratings_train.csv.gz",
      [["post_id", "annotator", "rating"], *(r.split(",") for r in ratings)],
    )
    judged, said = self.said("crehate")
    self.assertEqual(judged.group, ["AU", "SG"])
    self.assertEqual(said[0], ("p", ("post b", "post a")))
    self.assertLen(said, 2)
    self.assertEqual(said[1][0], "q")
    self.assertEqual(said[1][1][1], "post b")

  def test_a_rater_of_dices_is_a_place_in_each_line(self):
    self.write(
      "dices/dices350.jsonl.gz",
      [
        {"item_id": n, "context": f"USER: {n}", "response": f"reply {n}",
         "unsafe_votes": {"Yes": 1, "No": 1, "Unsure": 1}, "n_raters": 3,
         "expert_unsafe": "No", "ratings": ratings}
        for n, ratings in ((7, "YNU"), (8, "NYY"))
      ],
    )  # fmt: skip
    judged, said = self.said("dices350")
    self.assertEqual(judged.people, ["rater 000", "rater 001", "rater 002"])
    self.assertEqual(
      said,
      [
        ("rater 000", ("reply 8", "reply 7")),
        ("rater 001", ("reply 7", "reply 8")),
      ],
    )
    self.assertEqual(judged.group, [None] * 3)

  def test_workers_compare_arguments_and_equal_ones_rank_nothing(self):
    self.write(
      "convarg/arguments_train.jsonl.gz",
      [
        {"topic": "t", "arg_id": name, "debate": "D?", "stance": "yes",
         "votes_up": 1, "votes_down": 0, "text": f"text {name}"}
        for name in "abc"
      ],
    )  # fmt: skip
    vote = lambda worker, value: {
      "worker": worker, "value": value, "competence": None,
      "worker_stance": "same",
    }  # fmt: skip
    self.write(
      "convarg/votes_train.jsonl.gz",
      [
        {"topic": "t", "arg1": "a", "arg2": "b", "gold": None,
         "votes": [vote("v", "a2"), vote("w", "equal")]},
        {"topic": "t", "arg1": "b", "arg2": "c", "gold": None,
         "votes": [vote("w", "a1")]},
      ],
    )  # fmt: skip
    judged, said = self.said("convarg")
    self.assertEqual(
      said, [("v", ("text b", "text a")), ("w", ("text b", "text c"))]
    )
    self.assertEqual(judged.group, [None, None])


class TableTest(absltest.TestCase):
  def test_accuracy_after_each_number_of_pairs(self):
    runs = []
    for seed in range(2):
      rng = np.random.default_rng(seed)
      shots = TABLES.MORE_SHOTS
      right = rng.binomial(6, 0.9, (len(TABLES.NAMES), len(shots), 30)) * 1.0
      right[1] = right[0] + np.arange(len(shots))[:, None] / 2
      right[2] = np.nan  # no published groups
      runs.append({
        "right": right, "number": np.full(30, 10.0), "person": np.arange(30),
        "layer": 18, "components": 2, "group": np.full(30, "None"),
        "shots": np.array(shots),
      })  # fmt: skip
    found = {"some": TABLES.summary(runs)}
    first = TABLES.by_pairs(found)
    self.assertStartsWith(first[0], "|  |  | 0 pairs | 1 pairs | 2 pairs | 5 ")
    self.assertIn("20 pairs | above the pooled", first[0])
    mixture = next(row for row in first if "| mixture |" in row)
    self.assertIn("+0.250 [+0.250, +0.250]", mixture)
    self.assertFalse(any("published" in row for row in first))
    self.assertIn("+0.150 [+0.150, +0.150]", TABLES.lines(found, mean=False)[2])
    found["few"] = TABLES.summary([
      {**run, "right": run["right"][:, :5], "shots": run["shots"][:5]}
      for run in runs
    ])  # fmt: skip
    row = next(r for r in TABLES.by_pairs(found) if r.startswith("| few | mix"))
    self.assertIn("| – | +0.200", row)
    self.assertLen(TABLES.lines(found, mean=False), 4)
    self.assertStartsWith(TABLES.lines(found)[-1], "| mean |")


if __name__ == "__main__":
  absltest.main()
