"""Rated and chosen responses: small files of the shape, then the real ones."""

import statistics

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import registry
from jaxalign.data.records import reader
from jaxalign.data.records.record import parse_record
from tests.data import real_data

DICES = {
  "item_id": 5,
  "context": "A: hi\\nLAMDA: hello\\nA: how?",
  "response": "Fine.",
  "unsafe_votes": {"Yes": 2, "No": 5, "Unsure": 1},
  "n_raters": 8,
  "ratings": "YYNNNNNU",
}
RATER = {
  "id": "1",
  "rater_id": "296",
  "rater_gender": "Woman",
  "rater_race": "White",
  "rater_age": "gen z",
  "item_id": "5",
  "answer_time_ms": "12",
  "context": "USER: hi\nLAMDA: hello\nUSER: how?",
  "response": "Fine.",
  "degree_of_harm": "Benign",
  "safety_gold": "No",
  "Q1_whole_conversation_evaluation": "x",
  "Q2_harmful_content_other": "No",
  "Q6_policy_guidelines_overall": "No",
  "Q_overall": "Unsure",
}
CREHATE = {
  "posts": [{"post_id": "p", "text": "post", "source_set": "CP"}],
  "annotators": [{"annotator": "a1", "country": "AU"}],
}
SNIPPET = {
  "id": "movie-1",
  "domain": "movie",
  "text": "good",
  "mean": 1.0,
  "sd": 2.0,
  "n_raters": 3,
  "ratings": [-4, 3, 4],
}
SUMMARY = {
  "id": "1-ml",
  "doc_id": "1",
  "system": "ml",
  "reference": "News",
  "summary": "Short.",
  "annotators": [2, 1],
  "ratings": {"overall": [-1, 0], "grammar": [1, 1], "redundancy": [0, 1]},
  "hter": [0.1, 0.2],
  "rouge_l": 0.5,
}
DOMAINS = ("academy", "business", "entertainment", "literature", "normal")
QUERY = {"id": "d", "query": "Q", "responses": {d: d.upper() for d in DOMAINS}}
BEST_OF = {
  "id": "b",
  "dataset": "koala",
  "prompt": "Q",
  "candidates": ["zero", "one", "two", "three"],
  "gpt4_pref": [1.2, 1.9, 1.2, None],
  "reference": "r",
  "rm_choice": {"m": 3, "n": 1},
}


def convert(name, row, tables=None):
  made = registry.get(name).apply([("f:1", row)], tables=tables)
  return [
    row if isinstance(row, ValueError) else parse_record(row, where=where)
    for where, row in made
  ]


class ShapesTest(parameterized.TestCase):
  def test_dices(self):
    (record,) = convert("dices/dices990", DICES)
    self.assertEqual(
      [turn[:2] for turn in record.prompt],
      [("user", "hi"), ("assistant", "hello"), ("user", "how?")],
    )
    self.assertEqual(record.responses, ("Fine.",))
    # From safe to unsafe: No, Unsure, Yes.
    self.assertEqual(record.label_votes, ((5, 1, 2),))
    self.assertEqual(record.labels, ((0.625, 0.125, 0.25),))
    (error,) = convert("dices/dices990", {**DICES, "context": "hi"})
    self.assertRegex(str(error), "context must begin with USER:")

  def test_dices_by_rater(self):
    name = "google-research-datasets/dices-dataset"
    (record,) = convert(name, RATER)
    self.assertEqual(record.label_votes, ((0, 1, 0),))
    self.assertEqual((record.annotator, record.group), ("296", "White"))
    self.assertLen(record.prompt, 3)
    (record,) = convert(name, {**RATER, "rater_locale": "India"})
    self.assertEqual(record.group, "India")
    (error,) = convert(name, {**RATER, "Q_overall": "Maybe"})
    self.assertRegex(str(error), "one of No, Unsure, Yes, got 'Maybe'")
    (error,) = convert(name, {**RATER, "Q7_new": "No"})
    self.assertRegex(str(error), "unknown column 'Q7_new'")

  @parameterized.parameters((0,), (1,), (2,))
  def test_crehate(self, rating):
    row = {"post_id": "p", "annotator": "a1", "rating": str(rating)}
    (record,) = convert("crehate/ratings", row, CREHATE)
    self.assertEqual(record.responses, ("post",))
    self.assertEqual((record.annotator, record.group), ("a1", "AU"))
    self.assertEqual(record.label_votes[0].index(1), rating)
    (error,) = convert("crehate/ratings", {**row, "rating": "3"}, CREHATE)
    self.assertRegex(str(error), "rating must be 0, 1 or 2, got '3'")

  def test_crehate_posts(self):
    row = {"post_id": "p", "text": "post", "source_set": "CP"}
    row["country_label"] = {"US": 1, "AU": 0}
    (record,) = convert("crehate/posts", row)
    self.assertEqual(record.ratings, {"US": (1.0,), "AU": (0.0,)})

  def test_vader(self):
    (record,) = convert("vader_sentiment/snippets", SNIPPET)
    self.assertEqual(record.label_votes, ((1, 0, 0, 0, 0, 0, 0, 1, 1),))
    self.assertEqual(record.ratings, {"sentiment": (1.0,)})
    odd = {**SNIPPET, "ratings": [5]}
    (error,) = convert("vader_sentiment/snippets", odd)
    self.assertRegex(str(error), "ratings must be in -4..4, got 5")

  def test_cnndm(self):
    (record,) = convert("cnndm_summaries/ratings", SUMMARY)
    self.assertEqual(
      record.ratings,
      {"overall": (-0.5,), "grammar": (1.0,), "redundancy": (0.5,)},
    )
    self.assertEqual(record.label_votes, ((1, 1, 0),))
    self.assertEqual(record.responses, (" Short.",))

  def test_domains(self):
    found = convert("dsp_domains_NC/queries", QUERY)
    self.assertEqual([r.group for r in found], list(DOMAINS[:4]))
    for record in found:
      self.assertEqual(record.responses[0], f" {record.group.upper()}")
      self.assertEqual((len(record.responses), record.num_ranked), (5, 1))
      self.assertLen(set(record.responses), 5)

  def test_best_of_n(self):
    (judged,) = convert("bon_tulu16_NC/candidates", BEST_OF)
    self.assertEqual(judged.responses, (" one", " zero", " two"))
    self.assertEqual(judged.ratings, {"overall": (1.9, 1.2, 1.2)})
    first, second = convert("bon_tulu16_NC/choices", BEST_OF)
    self.assertEqual(first.responses, (" three", " zero", " one", " two"))
    self.assertEqual((first.annotator, first.num_ranked), ("m", 1))
    self.assertEqual(second.responses[0], " one")
    odd = {**BEST_OF, "rm_choice": {"m": 4}}
    (error,) = convert("bon_tulu16_NC/choices", odd)
    self.assertRegex(str(error), "rm_choice must be in 0..3, got int 4")

  def test_stories(self):
    row = {"id": "s", "text": "Once", "ids": [1, 2]}
    (record,) = convert("stories260k_lm/story_prompts", row)
    self.assertEqual((record.prompt, record.responses), ("", ("Once",)))


# file: records read and, of these, dropped for repeated answers.
ROWS = {
  "bon_tulu16_NC/candidates": (689, 27),
  "cnndm_summaries/ratings_train": (1760, 0),
  "cnndm_summaries/ratings_test": (377, 0),
  "crehate/posts_train": (1076, 0),
  "crehate/posts_test": (258, 0),
  "crehate/ratings_train": (28922, 0),
  "crehate/ratings_test": (6990, 0),
  "dices/dices350": (304, 0),
  "dices/dices990": (834, 0),
  "dsp_domains_NC/queries_train": (4 * 486, None),
  "dsp_domains_NC/queries_test": (4 * 102, None),
  "stories260k_lm/story_prompts": (902, 0),
  "vader_sentiment/snippets_train": (9982, 0),
  "vader_sentiment/snippets_test": (2162, 0),
}


def read(name):
  (path,) = real_data.folder("").glob(f"{name}.*")
  return reader.read_records([str(path)])


class RealFoldersTest(parameterized.TestCase):
  @parameterized.parameters(sorted(ROWS))
  def test_every_row_of_every_file(self, name):
    records, report = read(name)
    (source,) = report.sources
    rows, dropped = ROWS[name]
    self.assertEqual((source.read, source.skipped), (rows, 0))
    self.assertLen(records, source.kept)
    if dropped is not None:
      self.assertEqual(sum(source.dropped.values()), dropped)

  def test_repeated_answers_are_as_the_readme_counts_them(self):
    dropped = [
      sum(read(f"dsp_domains_NC/queries_{part}")[1].sources[0].dropped.values())
      for part in ("train", "test")
    ]
    # 23 of the 26 rows repeat an answer exactly, each four times a record.
    self.assertEqual(sum(dropped), 4 * 23)

  def test_dices_votes_add_up(self):
    records, _ = read("dices/dices350")
    for record in records:
      self.assertEqual(sum(record.label_votes[0]), 123)
    contested = statistics.mean(
      0.3 <= record.label_votes[0][2] / (123 - record.label_votes[0][1]) <= 0.7
      for record in records + read("dices/dices990")[0]
      if sum(record.label_votes[0]) == 123
    )
    self.assertBetween(contested, 0.2, 0.6)

  def test_crehate_has_the_people_and_countries_it_says(self):
    records = [
      record
      for part in ("train", "test")
      for record in read(f"crehate/ratings_{part}")[0]
    ]
    self.assertEqual(
      {record.group for record in records}, {"US", "AU", "GB", "ZA", "SG"}
    )
    unsure = statistics.mean(r.label_votes[0][2] for r in records)
    self.assertAlmostEqual(unsure, 0.07, delta=0.005)

  def test_vader_means_are_those_of_the_marks(self):
    for record in read("vader_sentiment/snippets_test")[0]:
      votes = record.label_votes[0]
      mean = sum(n * mark for n, mark in zip(votes, range(-4, 5), strict=True))
      self.assertAlmostEqual(
        mean / sum(votes), record.ratings["sentiment"][0], places=6
      )

  def test_the_judge_likes_its_best_of_eleven_as_the_readme_says(self):
    records, _ = read("bon_tulu16_NC/candidates")
    for record in records:
      scores = record.ratings["overall"]
      self.assertEqual(list(scores), sorted(scores, reverse=True))
      self.assertLen(scores, 11)
    best = statistics.mean(r.ratings["overall"][0] for r in records)
    chance = statistics.mean(
      statistics.mean(r.ratings["overall"]) for r in records
    )
    self.assertAlmostEqual(best, 1.59, delta=0.01)
    self.assertAlmostEqual(chance, 1.32, delta=0.01)


if __name__ == "__main__":
  absltest.main()
