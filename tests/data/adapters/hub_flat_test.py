"""One row of each hub data set, in its own columns, becomes one record."""

import math

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import registry
from jaxalign.data.records.record import parse_record


def convert(name, row):
  ((where, found),) = registry.get(name).apply([("f:1", row)])
  if isinstance(found, ValueError):
    raise found
  return parse_record(found, where=where)


def completion(response, score, rating):
  names = ("instruction_following", "honesty", "truthfulness", "helpfulness")
  return {
    "response": response,
    "fine-grained_score": score,
    "overall_score": 10.0,
    "annotations": {
      name: {"Rating": rating if name != "honesty" else "N/A"} for name in names
    },
  }


class HubRowsTest(parameterized.TestCase):
  def test_hh_rlhf(self):
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How?\n\nAssistant:"
    record = convert(
      "Anthropic/hh-rlhf",
      {"chosen": start + " I like this", "rejected": start + " I like that"},
    )
    # The shared "I like" belongs to the responses.
    self.assertEqual(record.prompt, start)
    self.assertEqual(record.responses, (" I like this", " I like that"))
    with self.assertRaisesRegex(ValueError, "share a turn of the assistant"):
      convert("Anthropic/hh-rlhf", {"chosen": "a", "rejected": "b"})

  def test_summarize_from_feedback(self):
    row = {
      "info": {
        "id": "t3",
        "post": "Long story.",
        "title": "Help",
        "subreddit": "advice",
        "site": None,
        "article": None,
      },
      "summaries": [
        {"text": " First", "policy": "p", "note": None},
        {"text": "Second ", "policy": "q", "note": None},
      ],
      "choice": 1,
      "worker": "w1",
      "batch": "b",
      "split": "train",
      "extra": {"confidence": 8},
    }
    record = convert("openai/summarize_from_feedback", row)
    self.assertEqual(
      record.prompt,
      "Subreddit: r/advice\nTitle: Help\nPost: Long story.\n\nTL;DR:",
    )
    self.assertEqual(record.responses, (" Second", " First"))
    self.assertEqual((record.annotator, record.id), ("w1", "t3"))
    article = {**row, "info": {"article": "News.", "title": "T"}, "choice": 0}
    record = convert("openai/summarize_from_feedback", article)
    self.assertEqual(record.prompt, "Title: T\nArticle: News.\n\nTL;DR:")
    self.assertEqual(record.responses[0], " First")
    with self.assertRaisesRegex(ValueError, "choice must be in 0..1, got noth"):
      convert("openai/summarize_from_feedback", {**row, "choice": None})

  @parameterized.parameters(
    (0.5, "one", None, 0.5), (-0.25, "two", None, 0.25), (0.0, "one", True, 0)
  )
  def test_webgpt(self, score, best, tie, strength):
    record = convert(
      "openai/webgpt_comparisons",
      {
        "question": {"dataset": "eli5", "id": "q1", "full_text": "Why?"},
        "quotes_0": {},
        "quotes_1": {},
        "tokens_0": {},
        "tokens_1": {},
        "answer_0": "one",
        "answer_1": "two",
        "score_0": score,
        "score_1": -score,
      },
    )
    self.assertEqual(record.prompt, "Why?")
    self.assertEqual(record.responses[0], best)
    self.assertEqual((record.tie, record.strength), (tie, strength))
    self.assertEqual(record.group, "eli5")

  @parameterized.parameters((1, "one"), (0, "two"))
  def test_shp(self, label, best):
    row = {
      "post_id": "p",
      "domain": "askbaking_train",
      "upvote_ratio": 0.9,
      "history": "How?",
      "seconds_difference": 3.0,
      "score_ratio": 2.0,
      "labels": label,
    }
    for side, text in (("A", "one"), ("B", "two")):
      row[f"human_ref_{side}"] = text
      for name in ("c_root_id", "created_at_utc", "score"):
        row[f"{name}_{side}"] = 1
    record = convert("stanfordnlp/SHP", row)
    self.assertEqual(record.responses[0], best)
    self.assertEqual(record.strength, math.log(2))
    self.assertEqual(record.group, "askbaking_train")
    with self.assertRaisesRegex(ValueError, "labels must be in 0..1, got int"):
      convert("stanfordnlp/SHP", {**row, "labels": 2})
    for ratio, message in (("2.0", "a number, got text"), (-1, ">= 0, got -1")):
      with self.assertRaisesRegex(ValueError, f"score_ratio must be {message}"):
        convert("stanfordnlp/SHP", {**row, "score_ratio": ratio})

  def test_ultra_feedback(self):
    record = convert(
      "openbmb/UltraFeedback",
      {
        "source": "flan",
        "instruction": "Do it",
        "models": ["a", "b", "c"],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        "completions": [
          completion("low", 2.0, "2"),
          completion("high", 4.5, "5"),
          completion("mid", 3.0, "3"),
        ],
      },
    )
    self.assertEqual(record.responses, ("high", "mid", "low"))
    self.assertEqual(record.ratings["overall"], (4.5, 3.0, 2.0))
    self.assertEqual(record.ratings["helpfulness"], (5.0, 3.0, 2.0))
    self.assertNotIn("honesty", record.ratings)
    self.assertEqual(record.group, "flan")

  @parameterized.parameters(
    (["Human: Hi", "Assistant: Hello", "Human: How?"], "Assistant: "),
    (["Hi", "Hello", "How?"], ""),
  )
  def test_strength_cleaned(self, history, speaker):
    record = convert(
      "fnlp/hh-rlhf-strength-cleaned",
      {
        "chosen": [*history, f"{speaker}yes"],
        "rejected": [*history, f"{speaker}no"],
        "GPT4 label": -1,
        "chosen score list": [1.0],
        "rejected score list": [2.0],
        "mean preference difference": -1.0,
        "std preference difference": 0.5,
      },
    )
    self.assertEqual(
      [turn[:2] for turn in record.prompt],
      [("user", "Hi"), ("assistant", "Hello"), ("user", "How?")],
    )
    self.assertEqual(record.responses, ("yes", "no"))
    self.assertEqual((record.strength, record.strength_std), (-1.0, 0.5))

  @parameterized.parameters((1, 1.0), (0, 0.0), (-1, None), (None, None))
  def test_strength_cleaned_second_judge(self, label, expected):
    row = {"chosen": ["Hi", "yes"], "rejected": ["Hi", "no"]}
    if label is not None:
      row["GPT4 label"] = label
    record = convert("fnlp/hh-rlhf-strength-cleaned", row)
    self.assertEqual(record.judge_prob, expected)

  def test_strength_cleaned_refuses_another_label(self):
    row = {"chosen": ["Hi", "yes"], "rejected": ["Hi", "no"], "GPT4 label": 2}
    with self.assertRaisesRegex(ValueError, "GPT4 label must be 1, 0 or -1"):
      convert("fnlp/hh-rlhf-strength-cleaned", row)


if __name__ == "__main__":
  absltest.main()
