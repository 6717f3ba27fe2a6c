"""Simulated votes from a file of texts: 80 % by sentiment, 20 % by brevity."""

import collections
import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.records import chat, reader
from jaxalign.data.synthetic import text_rewards
from jaxalign.experiments import vote
from jaxalign.experiments.common import config as configuration
from tests import config_reads, shipped
from tests.data import real_data


def cheer(prompts, responses):
  """Exclamation marks, and how short a text is."""
  return np.array([[text.count("!"), -len(text)] for text in responses], float)


def config_of(variant="smoke", **changes):
  cfg = shipped.config("vote_imdb", variant)
  cfg.mesh.data = 1
  with cfg.ignore_type():
    for key, value in changes.items():
      section, _, name = key.rpartition("__")
      (cfg[section] if section else cfg)[name] = value
  return configuration.to_dataclass(vote.Config, cfg)


def write(rows):
  path = epath.Path(tempfile.mkdtemp()) / "responses.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return (str(path),)


def run(config):
  workdir = epath.Path(tempfile.mkdtemp())
  vote.run(config, workdir)
  found = {
    side: reader.read_records([str(workdir / f"{side}.jsonl")])[0]
    for side in ("train", "eval")
  }
  return json.loads((workdir / "eval.json").read_text()), found


class VoteTest(absltest.TestCase):
  def test_people_prefer_by_their_own_reward(self):
    rows = [
      {"prompt": f"P{i}", "responses": [f"Yes{'!' * j}" for j in range(3)]}
      for i in range(40)
    ]
    rows.append({"prompt": "alone", "responses": ["one"]})
    config = config_of(
      files=write(rows),
      source=dict(function=f"{__name__}:cheer", names=("loud", "short")),
    )
    with config_reads.recorded(config) as unread:
      result, found = run(config)
    self.assertEmpty({k for k in unread if not k.startswith("source.")})
    for side, people in (("train", 10), ("eval", 5)):
      self.assertLen(found[side], 4 * people)
      groups = collections.Counter(
        {r.annotator: r.group for r in found[side]}.values()
      )
      self.assertEqual(groups, {"loud": people * 4 // 5, "short": people // 5})
      for record in found[side]:
        longer = len(record.responses[0]) > len(record.responses[1])
        self.assertEqual(longer, record.group == "loud")
      part = result[side]["groups"]
      self.assertEqual(part["loud"]["won"], {"loud": 1.0, "short": 0.0})
      self.assertEqual(part["short"]["pairs"], 4 * people // 5)
    # New people on new prompts.
    for column in ("annotator", "prompt"):
      of = lambda side, column=column: {r.column(column) for r in found[side]}
      self.assertEmpty(of("train") & of("eval"))
    self.assertEqual(
      vote.in_words(result["train"]),
      "40 votes of 8 of loud (by it in 100 %), 2 of short (by it in 100 %)",
    )

  def test_real_texts_by_their_words(self):
    folder = real_data.folder("vader_sentiment")
    texts = [
      chat.text_of(record.responses[0])
      for record in reader.RecordStream((f"{folder}/snippets_test.jsonl.gz",))
    ]
    rows = [
      {"prompt": f"review {i}", "responses": texts[3 * i : 3 * i + 3]}
      for i in range(100)
    ]
    config = config_of("words", files=write(rows))
    config = dataclasses.replace(config, num_people=20, num_test_people=5)
    result, found = run(config)
    self.assertEqual(result["train"]["groups"]["sentiment"]["people"], 16)
    self.assertEqual(result["train"]["groups"]["conciseness"]["people"], 4)
    for record in found["train"]:
      both = text_rewards.sentiment_and_conciseness(
        ["", ""], list(map(chat.text_of, record.responses))
      )
      column = ("sentiment", "conciseness").index(record.group)
      self.assertGreaterEqual(both[0, column], both[1, column] - 1e-6)
    won = result["train"]["groups"]["sentiment"]["won"]
    self.assertBetween(won["conciseness"], 0.3, 0.7)  # tastes are two

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "one for each of warm, brief"):
      run(config_of(shares=(0.5, 0.3, 0.2)))
    alone = write([{"prompt": "a", "responses": ["b"]}])
    with self.assertRaisesRegex(ValueError, "no record with two responses"):
      run(config_of(files=alone))
    for changes, message in (
      (dict(shares=(0.5, 0.4)), "add up to 1"),
      (dict(test_fraction=1.0), r"test_fraction must be in \(0, 1\)"),
      (dict(temperature=-1.0), "temperature must be >= 0"),
      (dict(num_people=0), "num_people must be >= 1"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        config_of(**changes)


if __name__ == "__main__":
  absltest.main()
