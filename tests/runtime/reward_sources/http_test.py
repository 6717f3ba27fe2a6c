"""The client of a reward server, against servers that do everything wrong."""

import contextlib
import http.server
import json
import threading

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.llm_labels.prompts import ConnectionConfig
from jaxalign.data.records.chat import Turn
from jaxalign.runtime.reward_sources import http as http_rewards
from jaxalign.runtime.reward_sources.base import RewardError
from tests.data import rude_server

CONNECTION = ConnectionConfig(
  key_variable=None,
  concurrency=4,
  requests_per_minute=None,
  timeout_s=60.0,
  max_attempts=3,
  backoff_s=0.01,
  max_backoff_s=0.1,
)
PROMPTS = ["a", (Turn("user", "b"),), "c", "d", "e"]
RESPONSES = ["x", "yy", "zzz", "", "v"]
LENGTHS = [[1, -1], [2, -2], [3, -3], [0, 0], [1, -1]]


def answer(asked) -> dict:
  """What a good server says: lengths and their negatives."""
  sizes = [len(response) for response in asked["responses"]]
  return {
    "names": ["long", "short"],
    "rewards": [[size, -size] for size in sizes],
    "mixture_weights": [0.75, 0.25],
  }


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    asked = json.loads(body)
    with self.server.lock:
      self.server.seen.append((self.path, asked))
    self.server.behave(self, asked)

  def log_message(self, *args):
    """Keeps the test output quiet."""


@contextlib.contextmanager
def serving(behave=None):
  """A server in a thread; `seen` holds what it was asked."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
  server.daemon_threads = True
  server.lock, server.seen = threading.Lock(), []
  server.behave = good if behave is None else behave
  server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
  thread = threading.Thread(target=server.serve_forever, args=(0.02,))
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


def good(handler, asked):
  rude_server.raw(handler, json.dumps(answer(asked)).encode())


def open_source(server, *, batch_size=2, connection=CONNECTION):
  return http_rewards.EndpointSource(
    server.url, connection, batch_size=batch_size
  )


class EndpointSourceTest(parameterized.TestCase):
  def test_rewards_in_order_and_in_batches(self):
    with serving() as server:
      source = open_source(server)
      self.assertEqual(source.names, ("long", "short"))
      self.assertEqual(source.mixture_weights, (0.75, 0.25))
      rewards = source(PROMPTS, RESPONSES)
      self.assertEqual(source([], []).shape, (0, 2))
    self.assertEqual(rewards.dtype, np.float32)
    np.testing.assert_array_equal(rewards, LENGTHS)
    paths, bodies = zip(*server.seen, strict=True)
    self.assertEqual({*paths}, {"/v1/rewards"})
    self.assertEqual(bodies[0], {"prompts": [], "responses": []})
    sizes = sorted(len(body["responses"]) for body in bodies[1:])
    self.assertEqual(sizes, [1, 2, 2])
    turns = [{"role": "user", "content": "b"}]
    self.assertIn({"prompts": ["a", turns], "responses": ["x", "yy"]}, bodies)

  def test_one_text_a_request_will_do(self):
    with serving() as server:
      rewards = open_source(server, batch_size=1)(PROMPTS, RESPONSES)
    np.testing.assert_array_equal(rewards, LENGTHS)
    self.assertLen(server.seen, 1 + len(RESPONSES))

  def test_labels_come_with_the_rewards(self):
    def behave(handler, asked):
      said = answer(asked)
      shares = [[size / 4, 1 - size / 4] for size, _ in said["rewards"]]
      said["labels"] = {
        "names": ["a", "b"], "values": [2.0, -1.5], "probs": shares
      }  # fmt: skip
      rude_server.raw(handler, json.dumps(said).encode())

    with serving(behave) as server:
      source = open_source(server)
      found = source.scored(PROMPTS, RESPONSES)
      number = len(server.seen)
      again = source.label_probs(PROMPTS, RESPONSES)
      self.assertEqual(source.label_probs([], []).shape, (0, 2))
    self.assertEqual(source.labels, (("a", "b"), (2.0, -1.5)))
    self.assertEqual(number, 1 + 3)  # rewards and labels in one request
    np.testing.assert_array_equal(found.rewards, LENGTHS)
    want = [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25], [0, 1], [0.25, 0.75]]
    np.testing.assert_array_equal(found.label_probs, want)
    np.testing.assert_array_equal(again, want)

  @parameterized.parameters(
    (dict(names=["a"], values=[1.0], probs=[[0.5], [0.5]]), "garbage"),
    (dict(names=["a"], values=[1.0, 2.0], probs=[[1.0], [1.0]]), "garbage"),
    (dict(names="ab", values=[1.0, 2.0], probs=[[1, 0]] * 2), "garbage"),
    (dict(names=["a"], values=[float("nan")], probs=[[1.0]] * 2), "garbage"),
    (dict(names=["a"], values=[1.0]), "garbage"),
    (dict(names=["a"], values=[1.0], probs=[[1.0]] * 2), "another model"),
  )
  def test_what_are_no_labels_never_get_through(self, labels, message):
    def behave(handler, asked):
      said = answer(asked)
      if asked["responses"]:
        said["labels"] = labels
      rude_server.raw(handler, json.dumps(said).encode())

    with serving(behave) as server:
      source = open_source(server)
      self.assertIsNone(source.labels)
      with self.assertRaisesRegex(RewardError, message):
        source(PROMPTS[:2], RESPONSES[:2])

  def test_a_server_that_stumbles_is_asked_again(self):
    stumbles = iter(
      [
        lambda h: rude_server.raw(h, b"full", status=503),
        lambda h: rude_server.raw(h, b"{}"),
        lambda h: rude_server.break_off(h, b'{"names"'),
        lambda h: rude_server.raw(h, b"slow down", status=429),
      ]
    )

    def behave(handler, asked):
      if asked["responses"]:
        stumble = next(stumbles, None)
        if stumble is not None:
          stumble(handler)
          return
      good(handler, asked)

    with serving(behave) as server:
      source = open_source(
        server,
        connection=ConnectionConfig(
          **{**CONNECTION.__dict__, "max_attempts": 6}
        ),
      )
      np.testing.assert_array_equal(source(PROMPTS, RESPONSES), LENGTHS)

  def test_after_a_failure_only_the_rest_is_asked(self):
    broken = [True]

    def behave(handler, asked):
      if broken[0] and "zzz" in asked["responses"]:
        rude_server.raw(handler, b"no", status=500)
      else:
        good(handler, asked)

    with serving(behave) as server:
      source = open_source(server)
      with self.assertRaisesRegex(
        RewardError, "did not answer 1 of 3 requests after 3 attempts each"
      ):
        source(PROMPTS, RESPONSES)
      broken[0] = False
      before = len(server.seen)
      np.testing.assert_array_equal(source(PROMPTS, RESPONSES), LENGTHS)
      self.assertLen(server.seen, before + 1)
      # Answers are kept for that one purpose: a new call asks anew.
      source(PROMPTS, RESPONSES)
      self.assertLen(server.seen, before + 4)

  @parameterized.parameters(
    (dict(rewards=[[1.0, 2.0]]), "garbage"),
    (dict(rewards=[[1.0], [2.0]]), "garbage"),
    (dict(rewards=[[1.0, None], [0.0, 0.0]]), "garbage"),
    (dict(names=[]), "garbage"),
    (dict(names=[1, 2]), "garbage"),
    (dict(names="ab"), "garbage"),
    (dict(mixture_weights=[1.0]), "garbage"),
    (dict(mixture_weights=[1.0, float("inf")]), "garbage"),
    (dict(mixture_weights=[1.0, 10**400]), "garbage"),
    (dict(rewards=[[1.0, 10**400], [0.0, 0.0]]), "garbage"),
    (dict(rewards=[[1.0, float("inf")], [0.0, 0.0]]), "garbage"),
    (dict(names=["short", "long"]), "another model is served there"),
  )
  def test_what_is_no_reward_never_gets_through(self, changes, message):
    def behave(handler, asked):
      said = answer(asked) | (changes if asked["responses"] else {})
      rude_server.raw(handler, json.dumps(said).encode())

    with serving(behave) as server:
      source = open_source(server)
      with self.assertRaisesRegex(RewardError, message):
        source(PROMPTS[:2], RESPONSES[:2])

  def test_a_refusal_is_quoted(self):
    refuse = lambda h, asked: rude_server.raw(h, b"no such path", status=404)
    with (
      serving(refuse) as server,
      self.assertRaisesRegex(RewardError, "/v1/rewards .* 404: no such path"),
    ):
      open_source(server)

  def test_errors_at_the_start(self):
    with self.assertRaisesRegex(RewardError, "did not answer 1 of 1 .*connect"):
      http_rewards.EndpointSource(
        "http://127.0.0.1:1/v1", CONNECTION, batch_size=2
      )
    with self.assertRaisesRegex(ValueError, "url must begin with http"):
      http_rewards.EndpointSource("localhost", CONNECTION, batch_size=2)
    with self.assertRaisesRegex(ValueError, "batch_size must be >= 1, got 0"):
      http_rewards.EndpointSource("http://a/v1", CONNECTION, batch_size=0)

  def test_float32_survives_the_journey(self):
    rewards = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    reply = http_rewards.Reply(("a", "b"), rewards, None)
    again = http_rewards.parse_reply(
      json.loads(json.dumps(reply.to_json())), num_texts=7
    )
    self.assertEqual(again.names, reply.names)
    np.testing.assert_array_equal(again.rewards, rewards)
    self.assertIsNone(again.mixture_weights)

  def test_a_request_is_read_back(self):
    sent = json.loads(json.dumps(http_rewards.request(PROMPTS, RESPONSES)))
    texts = http_rewards.parse_request(sent)
    self.assertEqual(texts, (PROMPTS, RESPONSES, {}))

  def test_turns_of_a_response_and_columns_are_read_back(self):
    call = Turn("assistant", "", '{"tool_calls": [{"name": "f"}]}')
    prompts = [(Turn("user", "b"),), "c"]
    responses = [(call, Turn("tool", "3"), Turn("assistant", "Three.")), "x"]
    sent = http_rewards.request(prompts, responses, {"answer": (3, None)})
    texts = http_rewards.parse_request(json.loads(json.dumps(sent)))
    self.assertEqual(texts, (prompts, responses, {"answer": [3, None]}))

  def test_columns_travel_with_their_texts(self):
    with serving() as server:
      open_source(server)(PROMPTS, RESPONSES, {"answer": [0, 1, 2, 3, 4]})
    sent = [body["columns"]["answer"] for _, body in server.seen[1:]]
    self.assertCountEqual(sent, [[0, 1], [2, 3], [4]])

  @parameterized.parameters(
    (["a"], "must be an object with prompts and responses, got a list"),
    ({"texts": []}, "unknown key 'texts'; allowed: prompts, responses"),
    ({"prompts": []}, "responses must be a list, got nothing"),
    ({"prompts": "a", "responses": ["b"]}, "prompts must be a list, got text"),
    ({"prompts": ["a"], "responses": []}, "equally many, got 1 and 0"),
    (
      {"prompts": ["a"], "responses": ["b"], "columns": [1]},
      "columns must be an object of lists, got a list",
    ),
    (
      {"prompts": ["a"], "responses": ["b"], "columns": {"n": []}},
      "column n must have a value for each of 1 responses, got 0",
    ),
    (
      {"prompts": ["a"], "responses": [[{"role": "user", "content": "b"}]]},
      "text 0: a response of chat turns goes with a prompt of chat turns",
    ),
    (
      {"prompts": [[]], "responses": [[{"role": "user", "content": "b"}]]},
      "text 0: .* must end with an assistant turn, got role 'user'",
    ),
    ({"prompts": ["a", 3], "responses": ["b", "c"]}, "text 1: prompt must be"),
    ({"prompts": ["a"], "responses": [None]}, "text 0: response must be text"),
    ({"prompts": ["a"], "responses": ["\ud800"]}, "text 0: .*lone surrogate"),
    (
      {"prompts": [[{"role": "me", "content": "a"}]], "responses": ["b"]},
      "text 0: .*role must be one of system, developer, .*, got 'me'",
    ),
  )
  def test_a_bad_request_says_what_was_got_and_what_is_allowed(
    self, content, message
  ):
    with self.assertRaisesRegex(ValueError, message):
      http_rewards.parse_request(content)


if __name__ == "__main__":
  absltest.main()
