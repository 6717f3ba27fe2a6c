"""The client against a real server that does everything wrong."""

import dataclasses
import gzip
import logging
import os
import time
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.data.llm_labels import client
from jaxalign.data.llm_labels.prompts import EndpointConfig
from tests.data import rude_server

CONFIG = EndpointConfig(
  url="http://127.0.0.1:1/v1",
  model="m",
  key_variable=None,
  temperature=0.0,
  max_tokens=16,
  concurrency=8,
  requests_per_minute=None,
  timeout_s=60.0,  # a busy machine is not a server that hangs
  max_attempts=3,
  backoff_s=0.01,
  max_backoff_s=0.2,
)
SECRET = "sk-do-not-print-0123456789"
IMPATIENT = 1.0  # the timeout where one is meant to run out, in seconds


def ask(texts, behave, *, known=None, remember=None, **changes):
  """Answers and counts of one round, and the server."""
  with rude_server.serving(behave) as server:
    config = dataclasses.replace(CONFIG, url=server.url, **changes)
    kept = {}
    answers, counts = client.ask_all(
      config,
      [[{"role": "user", "content": text}] for text in texts],
      known={} if known is None else known,
      remember=kept.__setitem__ if remember is None else remember,
    )
  return answers, counts, server, kept


def echo(handler, asked, before):
  rude_server.reply(handler, asked["messages"][-1]["content"].upper())


def first_time(misbehave):
  """Misbehaves once per question, then answers."""

  def behave(handler, asked, before):
    if before == 0:
      misbehave(handler)
    else:
      echo(handler, asked, before)

  return behave


TEMPORARY = {
  "http_429": lambda h: rude_server.raw(h, b"slow down", status=429),
  "http_500": lambda h: rude_server.raw(h, b"oops", status=500),
  "http_503": lambda h: rude_server.raw(h, b"", status=503),
  "timeout": lambda h: time.sleep(3 * IMPATIENT),
  "garbage": lambda h: rude_server.raw(h, b"<html>hello</html>"),
  "connection": lambda h: rude_server.break_off(h, b'{"choices": ['),
}


def patience(kind):
  """The settings under which a kind of failure is seen soon."""
  return {"timeout_s": IMPATIENT} if kind == "timeout" else {}


GARBAGE = (
  b"",
  b"null",
  b"[]",
  b"\xff\xfe",
  b"{}",
  b'{"choices": []}',
  b'{"choices": [{}]}',
  b'{"choices": [{"message": null}]}',
  b'{"choices": [{"message": {"content": 3}}]}',
  b'{"choices": [{"message": {"content": ["a"]}}]}',
  b'{"choices": [{"message": {"content": "\\ud800"}}]}',
  b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": ""}}',  # noqa: E501
  b'{"choices": [{"message": {"content": "a"}',
  *(
    b'{"choices": [{"message": {"content": "a"}}], "usage": '
    b'{"prompt_tokens": %s}}' % number
    for number in (b"1e999", b"NaN", b"-1", b"9" * 400, b"9" * 9_000)
  ),
  b"[" * 100_000,
  b'{"choices": ' * 100_000,
)


class AskTest(parameterized.TestCase):
  def test_answers_in_order_and_equal_questions_once(self):
    texts = [f"q{i % 20}" for i in range(50)]
    answers, counts, server, kept = ask(texts, echo)
    self.assertEqual([a.text for a in answers], [t.upper() for t in texts])
    self.assertEqual(sum(server.seen.values()), 20)
    self.assertEqual(
      counts, {"known": 0, "asked": 20, "attempts": 20, "failed": 0}
    )
    self.assertEqual(answers[0].prompt_tokens, 7)
    self.assertEqual(answers[0].completion_tokens, 3)
    self.assertLen(kept, 20)
    self.assertEqual(server.paths, {"/v1/chat/completions"})
    self.assertEqual(server.keys, {None})

  def test_what_is_known_is_not_asked(self):
    _, _, _, kept = ask(["a", "b"], echo)
    answers, counts, server, new = ask(["a", "b", "c"], echo, known=kept)
    self.assertEqual([a.text for a in answers], ["A", "B", "C"])
    self.assertLen(server.seen, 1)
    self.assertLen(new, 1)
    self.assertEqual((counts["known"], counts["asked"]), (2, 1))

  @parameterized.parameters(*TEMPORARY)
  def test_what_passes_is_tried_again(self, kind):
    answers, counts, server, _ = ask(
      ["a", "b", "c"], first_time(TEMPORARY[kind]), **patience(kind)
    )
    self.assertEqual([a.text for a in answers], ["A", "B", "C"])
    self.assertEqual(counts[kind], 3)
    self.assertEqual(counts["attempts"], 6)
    self.assertEqual([*server.seen.values()], [2, 2, 2])

  @parameterized.parameters(*TEMPORARY)
  def test_what_does_not_pass_is_given_up_and_counted(self, kind):
    behave = lambda h, asked, before: (
      TEMPORARY[kind](h)
      if asked["messages"][0]["content"] == "bad"
      else echo(h, asked, before)
    )
    answers, counts, server, kept = ask(
      ["bad", "good"], behave, **patience(kind)
    )
    self.assertIsNone(answers[0])
    self.assertEqual(answers[1].text, "GOOD")
    self.assertEqual((counts["failed"], counts[kind]), (1, 3))
    self.assertLen(kept, 1)  # a failure is asked again by the next run

  @parameterized.parameters(*GARBAGE)
  def test_no_garbage_is_an_answer(self, body):
    answers, counts, _, _ = ask(
      ["a"], lambda h, asked, before: rude_server.raw(h, body), max_attempts=2
    )
    self.assertEqual(answers, [None])
    self.assertEqual(counts["garbage"], 2)

  @parameterized.parameters(
    (200, b"no gzip"),
    (500, b"no gzip either"),
  )
  def test_what_is_packed_badly_is_garbage(self, status, body):
    behave = lambda h, asked, before: rude_server.raw(
      h, body, status=status, headers=[("Content-Encoding", "gzip")]
    )
    answers, counts, _, _ = ask(["a"], behave, max_attempts=2)
    self.assertEqual((answers, counts["garbage"]), ([None], 2))

  def test_an_answer_ends_where_nobody_reads_on(self):
    bomb = gzip.compress(b'{"choices": "' + b" " * 40_000 + b'"}')
    plain = b" " * 40_000
    sent = []

    def long(handler, asked, before):
      text = asked["messages"][0]["content"]
      if text == "bomb":
        packed = [("Content-Encoding", "gzip")]
        rude_server.raw(handler, bomb, headers=packed)
      elif text == "plain":
        rude_server.raw(handler, plain)
      else:
        echo(handler, asked, before)
      sent.append(text)

    with mock.patch.object(client, "MAX_ANSWER_BYTES", 20_000):
      answers, counts, _, _ = ask(
        ["bomb", "plain", "good"], long, max_attempts=2
      )
    self.assertEqual(answers[:2], [None, None])
    self.assertEqual(answers[2].text, "GOOD")
    self.assertEqual(counts["too_long"], 4)

  def test_a_refusal_without_end_is_quoted_in_part(self):
    behave = lambda h, asked, before: rude_server.raw(
      h, b"no " * 30_000, status=403
    )
    with (
      mock.patch.object(client, "MAX_ANSWER_BYTES", 20_000),
      self.assertRaisesRegex(client.EndpointError, "status 403: no no"),
    ):
      ask(["a"], behave)

  def test_a_trickle_does_not_hold_the_run(self):
    def trickle(handler, asked, before):
      handler.send_response(200)
      handler.send_header("Content-Length", "1000")
      handler.end_headers()
      for _ in range(300):  # each byte restarts the timeout of a read
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)

    begun = time.monotonic()
    answers, counts, _, _ = ask(
      ["a"], trickle, max_attempts=1, timeout_s=IMPATIENT
    )
    self.assertEqual((answers, counts["timeout"]), ([None], 1))
    self.assertLess(time.monotonic() - begun, 20.0)

  def test_refusals_by_other_means(self):
    def behave(handler, asked, before):
      if asked["messages"][0]["content"] == "field":
        rude_server.reply(handler, None, message={"refusal": "No."})
      else:
        rude_server.reply(handler, "", finish_reason="content_filter")

    answers, _, _, _ = ask(["field", "filter"], behave)
    self.assertEqual([a.refused for a in answers], [True, True])
    self.assertEqual([a.text for a in answers], ["", ""])

  def test_nobody_there(self):
    answers, counts = client.ask_all(
      dataclasses.replace(CONFIG, max_attempts=2),
      [[{"role": "user", "content": "a"}]],
      known={},
      remember=lambda key, answer: None,
    )
    self.assertEqual((answers, counts["connection"]), ([None], 2))

  @parameterized.parameters(400, 401, 403, 404, 302)
  def test_what_will_not_pass_ends_the_run(self, status):
    behave = lambda h, asked, before: rude_server.raw(
      h, b"model not found", status=status
    )
    with self.assertRaisesRegex(
      client.EndpointError, rf"status {status}: model not found"
    ):
      ask(["a", "b"], behave)


class PaceTest(absltest.TestCase):
  def test_no_more_at_a_time_than_allowed(self):
    def slow(handler, asked, before):
      time.sleep(0.03)
      echo(handler, asked, before)

    _, _, server, _ = ask([f"q{i}" for i in range(24)], slow, concurrency=3)
    self.assertEqual(server.most_open, 3)

  def test_no_faster_than_allowed_and_retries_count(self):
    _, counts, server, _ = ask(
      [f"q{i}" for i in range(6)],
      first_time(TEMPORARY["http_500"]),
      requests_per_minute=1200.0,
    )
    self.assertEqual(counts["attempts"], 12)
    took = max(server.times) - min(server.times)
    self.assertGreater(took, 11 * 0.05 * 0.9)

  def test_the_endpoint_says_how_long_to_wait_within_bounds(self):
    for header, shortest, longest in (
      ("0.15", 0.12, 60.0),
      ("3600", 0.15, 60.0),  # not longer than max_backoff_s
      ("tomorrow", 0.0, 60.0),
      ("nan", 0.0, 60.0),
      ("-1", 0.0, 60.0),
    ):
      behave = first_time(
        lambda h, header=header: rude_server.raw(
          h, b"", status=429, headers=[("Retry-After", header)]
        )
      )
      _, _, server, _ = ask(["a"], behave)
      waited = server.times[1] - server.times[0]
      self.assertBetween(waited, shortest, longest, header)

  def test_waits_double(self):
    behave = lambda h, asked, before: rude_server.raw(h, b"", status=500)
    _, _, server, _ = ask(
      ["a"], behave, max_attempts=4, backoff_s=0.05, max_backoff_s=9.0
    )
    first, _, third = (
      b - a for a, b in zip(server.times, server.times[1:], strict=False)
    )
    self.assertGreaterEqual(first, 0.025)
    self.assertGreaterEqual(third, 0.1)  # 4 x 0.05, at least half of it


class KeyTest(absltest.TestCase):
  def test_the_key_is_sent_and_hidden_everywhere(self):
    def leak(handler, asked, before):
      key = handler.headers["Authorization"].removeprefix("Bearer ")
      if asked["messages"][0]["content"] == "fail":
        rude_server.raw(handler, f"bad key {key}".encode(), status=401)
      else:
        rude_server.reply(handler, f"your key is {key}")

    with (
      mock.patch.dict(os.environ, MY_KEY=f" {SECRET}\n"),
      self.assertLogs(level="DEBUG") as logs,
    ):
      logging.getLogger("jaxalign").info("begin")
      answers, _, server, kept = ask(["a"], leak, key_variable="MY_KEY")
      with self.assertRaises(client.EndpointError) as caught:
        ask(["fail"], leak, key_variable="MY_KEY")
    self.assertEqual(server.keys, {f"Bearer {SECRET}"})
    self.assertEqual(answers[0].text, "your key is [key]")
    for text in (str(kept), str(caught.exception), *logs.output):
      self.assertNotIn(SECRET, text)
    self.assertIsNone(caught.exception.__cause__)

  def test_a_missing_or_impossible_key_is_not_quoted(self):
    for value, message in (
      ("", "that key_variable names is not set"),
      ("sch\u00fcssel", "that key_variable names holds a character"),
    ):
      with (
        mock.patch.dict(os.environ, MY_KEY=value),
        self.assertRaisesRegex(ValueError, message) as caught,
      ):
        ask(["a"], echo, key_variable="MY_KEY")
      if value:
        self.assertNotIn(value, str(caught.exception))

  def test_a_key_in_place_of_its_variable_is_refused_and_not_quoted(self):
    for misplaced in (SECRET, "Bearer x", "deadbeef0123456789", "", "A B"):
      with self.assertRaises(ValueError) as caught:
        dataclasses.replace(CONFIG, key_variable=misplaced)
      said = str(caught.exception)
      self.assertIn("key_variable must be the name of an env", said)
      for part in misplaced.split() if len(misplaced) > 8 else []:
        self.assertNotIn(part, said)
    with mock.patch.dict(os.environ, my_key="k"):  # unusual, but a name
      dataclasses.replace(CONFIG, key_variable="my_key")


if __name__ == "__main__":
  absltest.main()
