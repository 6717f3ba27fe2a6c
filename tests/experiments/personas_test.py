"""The whole stage against a server of personas that do not always behave."""

import json
import os
import pathlib
import tempfile
import zlib
from unittest import mock

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.llm_labels import client
from jaxalign.data.records import reader
from jaxalign.experiments import personas
from jaxalign.experiments.common import config as configuration
from tests import checkout, shipped
from tests.data import rude_server

SECRET = "sk-never-on-a-disk-42"
SHARES = [0.4, 0.3, 0.1, 0.1, 0.05, 0.05]
NAMES = [
  one["name"]
  for one in json.loads((checkout.ROOT / "configs/personas.json").read_text())[
    "personas"
  ]
]
ROWS = [
  {"prompt": "Q1", "chosen": "good", "rejected": "bad", "id": "one"},
  {"prompt": "Q2", "responses": ["good", "worse", "bad"], "annotator": "x"},
]


def label_of(question: str) -> int:
  """The label, from 1, that a polite persona gives."""
  return 1 + zlib.crc32(question.encode()) % 6


def polite(handler, asked, before):
  if len(asked["messages"]) == 1:
    rude_server.reply(handler, json.dumps({"shares": SHARES}))
  else:
    label = label_of(json.dumps(asked["messages"]))
    rude_server.reply(handler, json.dumps({"label": label}))


def write(rows) -> str:
  path = epath.Path(tempfile.mkdtemp()) / "mine.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return str(path)


class StageTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())
    self.files = (write(ROWS),)

  def run_stage(self, url, workdir=None, *, yes=True, **changes):
    cfg = shipped.config("personas", "smoke")
    cfg.data.train_files = self.files
    cfg.personas.file = str(checkout.ROOT / "configs/personas.json")
    cfg.endpoint.update(url=url, backoff_s=0.01)
    for key, value in changes.items():
      section, _, leaf = key.rpartition("__")
      cfg[section][leaf] = value
    workdir = self.workdir if workdir is None else workdir
    config = configuration.to_dataclass(personas.Config, cfg)
    personas.run(config, workdir, yes=yes)
    return json.loads((workdir / "eval.json").read_text())

  def rows(self, name):
    text = (self.workdir / name).read_text()
    return [json.loads(line) for line in text.splitlines()]

  def test_labels_are_the_posterior_of_prior_and_votes(self):
    with rude_server.serving(polite) as server:
      result = self.run_stage(server.url)
    # Four responses in their places, "good" and "bad" twice, by 20 + 1 each.
    self.assertEqual(sum(server.seen.values()), 5 * 21)
    self.assertEqual(result["endpoint"]["asked"], 5 * 21)
    self.assertEqual(result["votes"]["valid"], 100)
    self.assertEqual(result["labelled"], 5)
    records, _ = reader.read_records([str(self.workdir / "train.jsonl")])
    self.assertEqual([r.id for r in records], ["one", None])
    self.assertEqual([len(r.labels) for r in records], [2, 3])
    by_text = {
      (v["prompt"], v["response"]): v for v in self.rows("votes.jsonl")
    }
    for record in records:
      for text, labels, votes, prior in zip(
        record.responses,
        record.labels,
        record.label_votes,
        record.label_prior,
        strict=True,
      ):
        found = by_text[record.prompt, text]
        self.assertEqual([*found["votes"]], NAMES)
        counts = np.bincount([*found["votes"].values()], minlength=6)
        expected = (5 * np.array(SHARES) + counts) / 25
        np.testing.assert_allclose(labels, expected, atol=1e-12)
        np.testing.assert_allclose(found["alpha"], 25 * expected, atol=1e-12)
        np.testing.assert_array_equal(votes, counts)
        np.testing.assert_allclose(prior, SHARES, atol=1e-12)
    self.assertIn(
      "Who answered what", (self.workdir / "report.html").read_text()
    )

  def test_rudeness_is_counted_and_costs_no_record(self):
    def rude(handler, asked, before):
      messages = asked["messages"]
      name = messages[0]["content"]
      if before == 0 and "nurse" in name:
        rude_server.raw(handler, b"", status=429)
      elif before == 0 and "farmer" in name:
        rude_server.break_off(handler, b'{"choices"')
      elif "lawyer" in name:
        rude_server.raw(handler, b"<html>", status=500)
      elif "journalist" in name:
        rude_server.reply(handler, "I'm sorry, I can't do that.")
      elif "minimalist" in name:
        rude_server.reply(handler, "3")
      elif "artist" in name:
        rude_server.reply(handler, '{"la', finish_reason="length")
      else:
        polite(handler, asked, before)

    with rude_server.serving(rude) as server:
      result = self.run_stage(server.url)
    self.assertEqual(
      result["votes"],
      {"valid": 80, "refused": 5, "truncated": 5, "malformed": 5, "failed": 5},
    )
    self.assertEqual(result["personas"]["lawyer"]["failed"], 5)
    self.assertEqual(result["personas"]["minimalist"]["malformed"], 5)
    self.assertEqual(result["endpoint"]["http_429"], 5)
    self.assertEqual(result["endpoint"]["http_500"], 10)
    self.assertEqual(result["endpoint"]["connection"], 5)
    self.assertLen(self.rows("train.jsonl"), 2)

  def test_too_few_votes_or_no_prior_give_no_labels(self):
    def silent(handler, asked, before):
      texts = asked["messages"][-1]["content"]
      prior = len(asked["messages"]) == 1
      if (prior and "worse" in texts) or ('"Q1"' in texts and not prior):
        rude_server.reply(handler, "no idea")
      else:
        polite(handler, asked, before)

    with rude_server.serving(silent) as server:
      result = self.run_stage(server.url)
    self.assertEqual(result["labelled"], 2)
    self.assertEqual(result["records_without_labels"], {"train": 2})
    self.assertEqual(result["priors"]["malformed"], 1)
    self.assertEmpty(self.rows("train.jsonl"))

  def test_a_second_run_asks_nothing_and_writes_the_same(self):
    with rude_server.serving(polite) as server:
      self.run_stage(server.url)
      first = [
        (self.workdir / n).read_bytes() for n in ("train.jsonl", "votes.jsonl")
      ]
      result = self.run_stage(server.url)
    self.assertEqual(sum(server.seen.values()), 5 * 21)
    self.assertEqual(result["endpoint"]["known"], 5 * 21)
    second = [
      (self.workdir / n).read_bytes() for n in ("train.jsonl", "votes.jsonl")
    ]
    self.assertEqual(first, second)

  def test_resumes_after_any_answer_even_a_torn_one(self):
    with rude_server.serving(polite) as server:
      self.run_stage(server.url)
    whole = (self.workdir / "answers.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    expected = (self.workdir / "train.jsonl").read_bytes()
    for kept, torn in ((0, 0), (1, 30), (50, 1), (104, 40)):
      workdir = epath.Path(tempfile.mkdtemp())
      left = b"".join(lines[:kept]) + lines[kept][:torn]
      (workdir / "answers.jsonl").write_bytes(left)
      with rude_server.serving(polite) as server:
        self.run_stage(server.url, workdir)
        self.assertEqual(sum(server.seen.values()), 105 - kept)
        self.run_stage(server.url, workdir)  # nothing was lost to the tear
        self.assertEqual(sum(server.seen.values()), 105 - kept)
      self.assertEqual((workdir / "train.jsonl").read_bytes(), expected)

  def test_an_endpoint_that_turns_us_away_half_way_keeps_the_answers(self):
    def closing(handler, asked, before):
      if sum(handler.server.seen.values()) > 40:
        rude_server.raw(handler, b"quota used up", status=403)
      else:
        polite(handler, asked, before)

    with (
      rude_server.serving(closing) as server,
      self.assertRaisesRegex(client.EndpointError, "quota used up"),
    ):
      self.run_stage(server.url)
    kept = len(self.rows("answers.jsonl"))
    self.assertBetween(kept, 20, 40)
    with rude_server.serving(polite) as server:
      self.run_stage(server.url)
    self.assertEqual(sum(server.seen.values()), 105 - kept)

  def test_the_estimate_comes_first_and_the_budget_holds(self):
    with rude_server.serving(polite) as server:
      with self.assertRaisesRegex(
        ValueError, r"exceeds personas.budget \$0.00"
      ):
        self.run_stage(server.url, yes=True, personas__budget=1e-6)
      self.assertEmpty(server.seen)
      cost = json.loads((self.workdir / "estimate.json").read_text())
      self.assertEqual(cost["questions"], 105)
      self.assertEqual(cost["completion_tokens"], 105 * 64)
      self.assertAlmostEqual(
        cost["dollars"],
        (cost["prompt_tokens"] * 0.15 + 105 * 64 * 0.60) / 1e6,
      )
      result = self.run_stage(server.url, personas__budget=1.0)
    characters = sum(
      len(message["content"])
      for question in server.seen
      for message in json.loads(question)
    )
    self.assertEqual(cost["prompt_tokens"], characters // 4)
    self.assertEqual(result["endpoint"]["completion_tokens"], 105 * 3)

  def test_nothing_is_asked_without_a_word(self):
    with rude_server.serving(polite) as server:
      with (
        self.assertLogs("jaxalign") as logs,
        self.assertRaisesRegex(
          ValueError, r"^105 questions for up to \$0.01 .* --yes asks them"
        ),
      ):
        self.run_stage(server.url, yes=False)
      self.assertEmpty(server.seen)
      self.assertIn("105 questions to ask (0 answered before)", logs.output[-1])
      # What is within the budget needs no other word, nor what costs nothing.
      self.run_stage(server.url, yes=False, personas__budget=1.0)
      self.assertEqual(sum(server.seen.values()), 105)
      self.run_stage(server.url, yes=False)
      self.assertEqual(sum(server.seen.values()), 105)

  def test_the_key_is_nowhere_on_the_disk(self):
    def leak(handler, asked, before):
      if len(asked["messages"]) == 1:
        polite(handler, asked, before)
      else:
        rude_server.reply(handler, f"you sent {SECRET}")

    with (
      mock.patch.dict(os.environ, CROWD_KEY=SECRET),
      rude_server.serving(leak) as server,
    ):
      self.run_stage(server.url, endpoint__key_variable="CROWD_KEY")
    self.assertEqual(server.keys, {f"Bearer {SECRET}"})
    files = [p for p in pathlib.Path(self.workdir).rglob("*") if p.is_file()]
    self.assertGreaterEqual(len(files), 6)
    for path in files:
      self.assertNotIn(SECRET.encode(), path.read_bytes(), path.name)

  def test_nothing_to_label_is_an_error(self):
    self.files = ()
    with self.assertRaisesRegex(ValueError, "must name a source, got none"):
      self.run_stage("http://127.0.0.1:1/v1")


if __name__ == "__main__":
  absltest.main()
