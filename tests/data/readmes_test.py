"""What we count in the real data, beside what its READMEs say.

The folders hold about 85 % of what their READMEs describe, so shares are
compared within the sampling error that this leaves; rows, which the READMEs
give per file, must agree exactly.
"""

import collections
import gzip
import itertools
import re

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import metrics
from jaxalign.data.records import files, reader
from jaxalign.data.stats import baselines, duplicates, summary
from tests.data import real_data

TRAINED = (
  "hh_helpful", "hh_harmless", "mt_bench", "pandalm", "qa_feedback",
  "cnndm_summaries", "convarg", "humour",
)  # fmt: skip
HELD_OUT = ("hhh_alignment", "llmbar")
FOLDERS = (
  *TRAINED, *HELD_OUT, "bon_tulu16_NC", "crehate", "dices", "dsp_domains_NC",
  "stories260k_lm", "vader_sentiment", "webis_argquality",
)  # fmt: skip
# Pairs that no model can learn from: an empty response, or twice the same.
DROPPED = {("pandalm", "train"): 40, ("pandalm", "test"): 3}
DROPPED |= {("mt_bench", "train"): 0, ("mt_bench", "test"): 0}


def raw(folder: str, *names: str) -> list[dict]:
  """Rows of some files as they are."""
  found = []
  for name in names:
    path = real_data.folder(folder) / name
    for _, row in files.read_file(str(path)):
      if isinstance(row, ValueError):
        raise row
      found.append(row)
  return found


def both(folder: str, stem: str, extension: str = "jsonl.gz") -> list[dict]:
  return raw(folder, *(f"{stem}_{s}.{extension}" for s in ("train", "test")))


def read(folder: str, *splits: str):
  return reader.read_records(
    [str(real_data.folder(folder) / f"pairs_{s}.jsonl.gz") for s in splits]
  )


def agreement(counts) -> float:
  """Share of two people on the same item who agree, all couples pooled."""
  total, count = metrics.rater_agreement(np.array(counts, np.float32))
  return float(total / count)


def published() -> dict[str, list[float | None]]:
  """The table of reference numbers in the README of the data."""
  text = (real_data.folder("README.md")).read_text()
  table = text[text.index("| source | always longer |") :]
  found = {}
  for name, *cells in re.findall(
    r"^\| (\w+) \| (\S+) \| (\S+) \|", table, re.M
  ):
    found[name] = [None if cell == "-" else float(cell) for cell in cells]
  return found


class RowsTest(parameterized.TestCase):
  @parameterized.parameters(*FOLDERS)
  def test_every_file_has_the_rows_its_readme_says(self, name):
    folder = real_data.folder(name)
    table = re.findall(
      r"^\| `([\w.]+)` \| (\d+) \| \d+ \|",
      (folder / "README.md").read_text(),
      re.M,
    )
    self.assertNotEmpty(table)
    for file, number in table:
      if file.endswith(".txt.gz"):
        with gzip.open(folder / file) as lines:
          self.assertEqual(sum(1 for _ in lines), int(number), file)
      else:
        self.assertLen(raw(name, file), int(number), file)

  @parameterized.parameters(*TRAINED, *HELD_OUT)
  def test_the_reader_keeps_all_but_what_is_known_to_be_unusable(self, name):
    for split in ("train", "test"):
      if name in HELD_OUT and split == "train":
        continue
      records, report = read(name, split)
      dropped = sum(report.sources[0].dropped.values())
      self.assertEqual(dropped, DROPPED.get((name, split), 0), split)
      self.assertLen(
        records, len(raw(name, f"pairs_{split}.jsonl.gz")) - dropped
      )


class ReferenceTest(parameterized.TestCase):
  @parameterized.parameters(*TRAINED, *HELD_OUT)
  def test_always_longer_is_the_published_number(self, name):
    found = raw(name, "pairs_test.jsonl.gz")
    gaps = [len(row["chosen"]) - len(row["rejected"]) for row in found]
    accuracy = np.mean((np.sign(gaps) + 1) / 2)
    self.assertAlmostEqual(accuracy, published()[name][0], delta=6e-4)
    # What the audit reports differs by the pairs that the reader drops.
    share = summary.longer_wins(read(name, "test")[0]).mean()
    self.assertAlmostEqual(share, accuracy, delta=0.01)

  @parameterized.parameters(
    # Ours minus the published one. The published numbers are the best of two
    # penalties on `test`; ours has one penalty for all. In cnndm_summaries
    # punctuation marks stand apart, so they are words to us; without them
    # and with a stronger penalty the accuracy is 0.557.
    ("hh_helpful", 0.0),
    ("hh_harmless", 0.0),
    ("mt_bench", -0.016),
    ("pandalm", 0.0),
    ("qa_feedback", -0.012),
    ("cnndm_summaries", 0.063),
    ("convarg", -0.01),
    ("humour", 0.007),
  )
  def test_bag_of_words_differs_as_known(self, name, difference):
    bag = baselines.BagOfWords.fit(read(name, "train")[0])
    accuracy = bag.accuracy(read(name, "test")[0])
    self.assertAlmostEqual(
      accuracy - published()[name][1], difference, delta=0.01
    )

  def test_helpful_and_harmless_pull_apart(self):
    # One bag of words for both is near chance because the sources disagree:
    # each one's own is well below chance on the other.
    names = ("hh_helpful", "hh_harmless")
    bags = [baselines.BagOfWords.fit(read(n, "train")[0]) for n in names]
    for bag, own, other in zip(bags, names, names[::-1], strict=True):
      self.assertGreater(bag.accuracy(read(own, "test")[0]), 0.59)
      self.assertLess(bag.accuracy(read(other, "test")[0]), 0.42)


class SharesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("hh_helpful", 0.594),
    ("hh_harmless", 0.444),
    ("mt_bench", 0.67),
    ("pandalm", 0.67),
    ("qa_feedback", 0.51),
    ("humour", 0.64),
    ("convarg", 0.72),
  )
  def test_chosen_is_longer(self, name, expected):
    # Strictly longer, as the READMEs count it.
    longer = summary.longer_wins(read(name, "train", "test")[0]) == 1
    error = 2.5 * np.sqrt(0.25 / len(longer)) + 0.005
    self.assertAlmostEqual(longer.mean(), expected, delta=error)

  def test_convarg_votes(self):
    sides = ("a1", "a2", "equal")
    counts = np.array(
      [
        [sum(v["value"] == side for v in row["votes"]) for side in sides]
        for row in both("convarg", "votes")
      ]
    )
    unanimous = (counts.max(1) == counts.sum(1)).mean()
    self.assertAlmostEqual(unanimous, 0.197, delta=0.01)
    self.assertAlmostEqual(agreement(counts), 0.524, delta=0.01)
    self.assertAlmostEqual(agreement(counts[:, :2]), 0.731, delta=0.01)

  def test_humour_votes(self):
    votes = np.array(
      [
        [int(row["votes_a_funnier"]), int(row["votes_b_funnier"])]
        for row in both("humour", "votes", "csv.gz")
      ]
    )
    many = votes[votes.sum(1) >= 3]
    unanimous = (many.max(1) == many.sum(1)).mean()
    self.assertAlmostEqual(unanimous, 0.27, delta=0.01)
    majority = (votes.max(1) / votes.sum(1)).mean()
    self.assertAlmostEqual(majority, 0.76, delta=0.01)

  def test_pandalm_votes(self):
    counts = np.array(
      [
        np.bincount([int(row[f"annotator{i}"]) for i in (1, 2, 3)], minlength=3)
        for row in both("pandalm", "votes")
      ]
    )
    self.assertAlmostEqual((counts.max(1) == 3).mean(), 0.88, delta=0.015)

  def test_mt_bench_votes(self):
    cells = collections.defaultdict(lambda: [0, 0, 0])
    sides = {}
    for row in both("mt_bench", "votes"):
      models = (row["model_a"], row["model_b"])
      cell = (row["question_id"], row["turn"], *sorted(models))
      if row["winner"] == "tie":
        side = 2
      else:
        winner = models[0] if row["winner"] == "model_a" else models[1]
        side = sorted(models).index(winner)
      cells[cell][side] += 1
      sides[cell] = models
    counts = np.array([*cells.values()])
    self.assertAlmostEqual(agreement(counts), 0.654, delta=0.03)
    self.assertAlmostEqual(agreement(counts[:, :2]), 0.828, delta=0.03)
    several = counts[counts.sum(1) >= 2]
    unanimous = (several.max(1) == several.sum(1)).mean()
    self.assertAlmostEqual(unanimous, 0.64, delta=0.05)

  def test_summary_ratings(self):
    counts = [
      np.bincount(np.array(row["ratings"]["overall"], int) + 1, minlength=3)
      for row in both("cnndm_summaries", "ratings")
    ]
    self.assertAlmostEqual(agreement(counts), 0.527, delta=0.02)

  def test_question_ties(self):
    given = [
      p for row in both("qa_feedback", "records") for p in row["preference"]
    ]
    self.assertAlmostEqual(np.mean(np.array(given) == 0), 0.128, delta=0.02)

  @parameterized.parameters(("dices350", 0.567), ("dices990", 0.603))
  def test_safety_ratings(self, name, expected):
    counts = [
      [row["ratings"].count(letter) for letter in "YNU"]
      for row in raw("dices", f"{name}.jsonl.gz")
    ]
    self.assertAlmostEqual(agreement(counts), expected, delta=0.02)

  def test_hate_ratings(self):
    country = {
      row["annotator"]: row["country"]
      for row in raw("crehate", "annotators.csv.gz")
    }
    by_country = collections.defaultdict(lambda: [0, 0])
    per_item = collections.defaultdict(lambda: [0, 0])
    for row in both("crehate", "ratings", "csv.gz"):
      rating = int(row["rating"])
      if rating < 2:
        by_country[country[row["annotator"]]][rating] += 1
        per_item[row["post_id"], country[row["annotator"]]][rating] += 1
    expected = {"US": 0.40, "ZA": 0.44, "GB": 0.45, "AU": 0.47, "SG": 0.48}
    for name, share in expected.items():
      no, yes = by_country[name]
      self.assertAlmostEqual(yes / (no + yes), share, delta=0.02)
    self.assertAlmostEqual(agreement([*per_item.values()]), 0.703, delta=0.015)

  def test_sentiment_ratings(self):
    found = both("vader_sentiment", "snippets")
    spreads = [np.std(row["ratings"]) for row in found]
    self.assertAlmostEqual(np.mean(spreads), 0.84, delta=0.03)
    for row in found[:500]:
      self.assertAlmostEqual(np.mean(row["ratings"]), row["mean"], places=3)

  def test_argument_quality(self):
    texts = {
      row["arg"]: row["text"] for row in both("webis_argquality", "arguments")
    }
    comparisons = both("webis_argquality", "comparisons")
    dimensions = ("rhetorical", "logical", "dialectical")
    for name in dimensions:
      labels = [row[name] for row in comparisons]
      self.assertBetween(labels.count("Tie") / len(labels), 0.13, 0.19)
    for a, b in itertools.combinations(dimensions, 2):
      decided = [r for r in comparisons if "Tie" not in (r[a], r[b])]
      same = np.mean([row[a] == row[b] for row in decided])
      self.assertBetween(same, 0.56, 0.60)
    held_out = raw("webis_argquality", "comparisons_test.jsonl.gz")
    for name in dimensions:
      gaps = []
      for row in held_out:
        if row[name] != "Tie":
          gap = len(texts[row["arg_a"]]) - len(texts[row["arg_b"]])
          gaps.append(gap if row[name] == "A" else -gap)
      self.assertAlmostEqual(
        np.mean((np.sign(gaps) + 1) / 2),
        published()[f"webis_{name}"][0],
        delta=1e-3,
      )

  def test_candidates_improve_with_their_place(self):
    given = [
      row["gpt4_pref"] for row in raw("bon_tulu16_NC", "candidates.jsonl.gz")
    ]
    means = [
      np.mean([row[k] for row in given if row[k] is not None]) for k in (0, 10)
    ]
    np.testing.assert_allclose(means, [1.27, 1.36], atol=0.02)


class SplitsTest(parameterized.TestCase):
  @parameterized.parameters(
    "hh_helpful", "hh_harmless", "mt_bench", "pandalm", "qa_feedback",
    "cnndm_summaries",
  )  # fmt: skip
  def test_no_prompt_crosses_the_splits(self, name):
    found = duplicates.find_leakage(
      read(name, "train")[0], read(name, "test")[0], similarity=0.8
    )
    # The splits are by exact text; one prompt differs in punctuation alone.
    prompts = 1 if name == "hh_harmless" else 0
    self.assertEqual((found.prompts, found.pairs, found.ids), (prompts, 0, 0))

  def test_convarg_shares_no_argument_and_humour_shares_them_by_design(self):
    splits = [read("convarg", split)[0] for split in ("train", "test")]
    self.assertEqual(
      duplicates.find_leakage(*splits, similarity=0.8).responses, 0
    )
    splits = [read("humour", split)[0] for split in ("train", "test")]
    found = duplicates.find_leakage(*splits, similarity=0.8)
    self.assertEqual(found.pairs, 0)
    self.assertGreater(found.responses, 0.99 * len(splits[1]))


if __name__ == "__main__":
  absltest.main()
