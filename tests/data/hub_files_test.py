"""Every named data set of the hub, from a small local copy of its layout.

`datasets` gives every row all columns and nested objects all keys, null where
the file has none: adapters must read that as they read the file's own rows.
"""

import csv
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import hub_flat, hub_threads
from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of

START = "\n\nHuman: Hi\n\nAssistant:"


def rated(response, helpfulness):
  names = ("correctness", "coherence", "complexity", "verbosity")
  row = {"prompt": "Q", "response": response, "helpfulness": helpfulness}
  return row | dict.fromkeys(names, 3)


def message(name, parent, role, text, rank=None):
  row = {"message_id": name, "parent_id": parent, "role": role, "text": text}
  return row | {"rank": rank, "lang": "en", "emojis": {"name": [], "count": []}}


def utterance(response, score, kept):
  return {
    "utterance_id": "u",
    "interaction_id": "i",
    "conversation_id": "c",
    "user_id": "p",
    "turn": 0,
    "within_turn_id": 0,
    "conversation_type": "unguided",
    "user_prompt": "Q",
    "model_response": response,
    "model_name": "m",
    "model_provider": "p",
    "score": score,
    "if_chosen": kept,
    "included_in_balanced_subset": True,
  }


def completion(text, score):
  aspects = {
    name: {"Rating": "4", "Rationale": "because", "Type": None}
    for name in hub_flat.ASPECTS
  }
  return {
    "model": "m",
    "response": text,
    "annotations": aspects,
    "fine-grained_score": score,
    "overall_score": score,
    "critique": "fine",
    "principle": "honesty",
    "custom_system_prompt": "",
  }


def comment_pair():
  row = {"post_id": "p", "domain": "d", "upvote_ratio": 0.9, "history": "How?"}
  for side, text in (("A", "good"), ("B", "bad")):
    row[f"human_ref_{side}"] = text
    for name in ("c_root_id", "created_at_utc", "score"):
      row[f"{name}_{side}"] = 1
  return row | {"labels": 1, "seconds_difference": 1.0, "score_ratio": 2.0}


# name: rows such that the first record prefers "good" to "bad".
SETS = {
  "Anthropic/hh-rlhf": [
    {"chosen": f"{START} good", "rejected": f"{START} bad"}
  ],
  "openai/summarize_from_feedback": [
    {
      "info": {"id": "t3", "post": "Long.", "title": "T", "article": None},
      "summaries": [
        {"text": "bad", "policy": "p", "note": None},
        {"text": "good", "policy": "q", "note": None},
      ],
      "choice": 1,
      "worker": "w",
      "batch": "b",
      "split": "train",
      "extra": {"confidence": 8},
    },
    {
      "info": {"id": "a", "post": None, "title": None, "article": "News."},
      "summaries": [
        {"text": "good", "policy": "p", "note": None},
        {"text": "bad", "policy": "q", "note": "n"},
      ],
      "choice": 0,
      "worker": "w",
      "batch": "b",
      "split": "train",
      "extra": {"confidence": None},
    },
  ],
  "openai/webgpt_comparisons": [
    {
      "question": {"dataset": "eli5", "id": "q", "full_text": "Why?"},
      "quotes_0": {"title": ["t"], "extract": ["e"]},
      "quotes_1": {"title": [], "extract": []},
      "answer_0": "bad",
      "answer_1": "good",
      "tokens_0": {"prefix": [1], "completion": [2]},
      "tokens_1": {"prefix": [1], "completion": [2]},
      "score_0": -0.5,
      "score_1": 0.5,
    }
  ],
  "OpenAssistant/oasst1": [
    message("1", None, "prompter", "Q"),
    message("2", "1", "assistant", "bad", 1.0),
    message("3", "1", "assistant", "good", 0.0),
  ],
  "stanfordnlp/SHP": [comment_pair()],
  "openbmb/UltraFeedback": [
    {
      "source": "flan",
      "instruction": "Do",
      "models": ["a", "b"],
      "correct_answers": ["None"],
      "incorrect_answers": ["None"],
      "completions": [completion("bad", 2.0), completion("good", 4.5)],
    }
  ],
  "nvidia/HelpSteer2": [rated("bad", 1), rated("good", 4)],
  "fnlp/hh-rlhf-strength-cleaned": [
    {
      "chosen": ["Human: Hi", "Assistant: good"],
      "rejected": ["Human: Hi", "Assistant: bad"],
      "GPT4 label": -1,
      "chosen score list": [1.0],
      "rejected score list": [2.0],
      "mean preference difference": -1.0,
      "std preference difference": 0.5,
    }
  ],
  "HannahRoseKirk/prism-alignment": [
    utterance("bad", 20, False),
    utterance("good", 80, True),
  ],
}


class HubFilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    import datasets

    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.enter_context(
      mock.patch.object(
        datasets.config, "HF_DATASETS_CACHE", str(self.folder / "cache")
      )
    )

  def test_every_adapter_of_the_hub_is_here(self):
    self.assertEqual({*SETS}, {*hub_flat.ADAPTERS, *hub_threads.ADAPTERS})

  @parameterized.product(name=sorted(SETS), streaming=(False, True))
  def test_a_local_copy(self, name, streaming):
    path = self.folder / name / "train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in SETS[name]))
    stream = reader.RecordStream(
      [f"hub:{self.folder / name}"], streaming=streaming
    )
    records = list(stream)
    self.assertEqual(stream.whole_report().counts["skipped"], 0)
    for record in records:
      texts = [text_of(text).strip() for text in record.responses]
      self.assertEqual(texts, ["good", "bad"])
      self.assertEqual(record.target_prob, 1.0)
      self.assertNotEmpty(record.prompt)
      self.assertEqual(record.source, name.split("/")[1])

  def test_dices_from_its_csv_files(self):
    columns = ["id", "rater_id", "rater_locale", "item_id", "context"]
    columns += ["response", "Q2_harmful_content_overall", "Q_overall"]
    folder = self.folder / "google-research-datasets" / "dices-dataset"
    folder.mkdir(parents=True)
    with (folder / "990.csv").open("w", newline="") as file:
      writer = csv.writer(file)
      writer.writerow(columns)
      context = 'USER: Hi, you\nLAMDA: "Hello"\nUSER: How?'
      for rater, answer in (("7", "Yes"), ("8", "No")):
        writer.writerow([1, rater, "US", 4, context, "Fine.", "No", answer])
    records, _ = reader.read_records(
      [f"google-research-datasets/dices-dataset:{folder}/*.csv"]
    )
    self.assertEqual([r.annotator for r in records], ["7", "8"])
    self.assertEqual(
      [r.label_votes for r in records], [((0, 0, 1),), ((1, 0, 0),)]
    )
    self.assertEqual(records[0].prompt[1].content, '"Hello"')
    self.assertEqual((records[0].group, records[0].id), ("US", "4"))


if __name__ == "__main__":
  absltest.main()
