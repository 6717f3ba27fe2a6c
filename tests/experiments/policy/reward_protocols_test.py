"""What clients of other programs send and get, against a real server."""

import base64
import json

import httpx
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.turns import Rendered
from jaxalign.experiments import serve
from jaxalign.runtime.reward_sources import FunctionSource
from tests.experiments import serve_test
from tests.runtime.reward_sources import model_test

ROOM = dict(max_bytes=10_000, max_waiting_bytes=99_000)
CHAT = [{"role": "user", "content": "Why?"}]
ANSWER = {"role": "assistant", "content": "So."}


class Noted:
  """Lengths of responses and their negatives, with a note of each call."""

  def __init__(self):
    self.calls = []

  def __call__(self, prompts, responses, **columns):
    self.calls.append((prompts, responses, columns))
    return serve_test.lengths(prompts, responses)


def asked(path, body, *, names=("long", "short"), **changes):
  """Status and JSON of one request, and what the source was asked."""
  noted = Noted()
  source = FunctionSource(
    noted if len(names) == 2 else lambda p, r: [len(text) for text in r],
    names=names,
  )
  with serve_test.serving(source, **ROOM | changes) as url:
    reply = httpx.post(url + path, json=body, timeout=20)
  return reply.status_code, reply.json(), noted.calls


class GetRewardTest(parameterized.TestCase):
  body = {
    "query": ["Q: a\nA: yes</s>", "bQ"],
    "prompts": ["Q: a\nA:", "cut"],
    "labels": ["yes", None],
  }

  def test_query_is_cut_behind_its_prompt(self):
    status, reply, calls = asked(
      "/get_reward", self.body, output="short", ends=("</s>",)
    )
    self.assertEqual(status, 200, reply)
    self.assertEqual(
      reply,
      {
        "rewards": [-4.0, -2.0],
        "scores": [-4.0, -2.0],
        "extra_logs": {
          "reward_long": [4.0, 2.0],
          "reward_short": [-4.0, -2.0],
        },
      },
    )
    ((prompts, responses, columns),) = calls
    self.assertEqual(prompts, ["Q: a\nA:", ""])
    self.assertEqual(responses, [" yes", "bQ"])
    self.assertIsInstance(responses[0], Rendered)
    self.assertEqual(columns, {"labels": ["yes", None]})

  def test_one_output_needs_no_name(self):
    _, reply, _ = asked("/get_reward", {"query": ["abc"]}, names=("reward",))
    self.assertEqual(
      reply, {"rewards": [3.0], "scores": [3.0], "extra_logs": {}}
    )

  @parameterized.parameters(
    ({"query": "abc"}, "query must be a list of texts, got text"),
    ({"query": [3]}, r"query\[0\] must be text"),
    ({}, "query must be a list of texts, got nothing"),
    ([], "must be an object with query, got a list"),
    ({"query": ["a"], "prompts": []}, "prompts must have one for each of 1"),
    ({"query": ["a"], "labels": "b"}, "labels must be a list, got text"),
    ({"query": ["a"], "labels": []}, "labels must have one for each of 1"),
  )
  def test_a_bad_request(self, body, message):
    with self.assertLogs("jaxalign", "WARNING") as logs:
      status, reply, calls = asked("/get_reward", body, output="long")
    self.assertEqual((status, calls), (400, []))
    self.assertRegex(reply["error"], message)
    # A client that hides the answer is found out here.
    self.assertIn("POST /get_reward was answered 400", logs.output[0])

  def test_one_of_several_outputs_must_be_named(self):
    for path in ("/get_reward", "/classify", "/v1/embeddings"):
      body = {"query": ["a"], "input": "a"}
      status, reply, _ = asked(path, body)
      self.assertEqual(status, 400)
      self.assertIn("one of the outputs long, short must be", reply["error"])
      status, reply, _ = asked(path, body | {"model": "long"})
      self.assertEqual(status, 200, reply)
    with self.assertRaisesRegex(
      ValueError, "output must be one of long, short, got 'wide'"
    ):
      asked("/get_reward", {}, output="wide")


class InputTest(parameterized.TestCase):
  @parameterized.parameters(("abc",), (["abc", "de"],))
  def test_classify(self, given):
    body = {"model": "any", "input": given, "use_activation": False}
    status, reply, calls = asked("/classify", body, output="long")
    self.assertEqual(status, 200, reply)
    size = 1 if isinstance(given, str) else 2
    rows = [
      {"index": 0, "label": "long", "probs": [3.0], "num_classes": 1},
      {"index": 1, "label": "long", "probs": [2.0], "num_classes": 1},
    ]
    self.assertEqual(reply["data"], rows[:size])
    self.assertEqual((reply["object"], reply["model"]), ("list", "any"))
    self.assertEqual(calls[0][0], [""] * size)
    self.assertIsInstance(calls[0][1][0], Rendered)

  def test_a_conversation_is_a_prompt_and_its_last_turn(self):
    for path in ("/classify", "/v1/embeddings"):
      _, reply, calls = asked(
        path, {"messages": [*CHAT, ANSWER]}, output="long"
      )
      self.assertEqual(calls, [([(Turn("user", "Why?"),)], ["So."], {})])
    self.assertEqual(reply["data"][0]["embedding"], [3.0])

  def test_embeddings_as_floats_and_as_base64(self):
    body = {"input": ["abc", "de"], "model": "short"}
    _, reply, _ = asked("/v1/embeddings", body)
    self.assertEqual(
      reply["data"],
      [
        {"index": 0, "object": "embedding", "embedding": [-3.0]},
        {"index": 1, "object": "embedding", "embedding": [-2.0]},
      ],
    )
    body["encoding_format"] = "base64"
    _, reply, _ = asked("/v1/embeddings", body)
    packed = base64.b64decode(reply["data"][1]["embedding"])
    self.assertEqual(np.frombuffer(packed, "<f4").tolist(), [-2.0])

  def test_pooling_gives_every_output(self):
    _, reply, _ = asked("/pooling", {"input": ["abc", "de"]})
    self.assertEqual(
      [row["data"] for row in reply["data"]], [[3.0, -3.0], [2.0, -2.0]]
    )

  @parameterized.parameters(
    ({}, "input must be a list of texts, got nothing"),
    ({"input": [1, 2]}, r"input\[0\] must be text, got int"),
    ({"input": "a", "use_activation": True}, "use_activation must be false"),
    ({"input": "a", "encoding_format": "hex"}, "float or base64, got 'hex'"),
    ({"messages": []}, "messages must be a list"),
    ({"messages": CHAT}, "must end with an assistant turn, got role 'user'"),
  )
  def test_a_bad_request(self, body, message):
    status, reply, _ = asked("/pooling", body)
    self.assertEqual(status, 400)
    self.assertRegex(reply["error"], message)


class OtherPathsTest(absltest.TestCase):
  def test_models_are_the_served_one_and_its_outputs(self):
    source = serve_test.source_of(serve_test.lengths)
    with serve_test.serving(source, model="my/rm") as url:
      found = httpx.get(f"{url}/v1/models").json()
    rows = found["data"]
    self.assertEqual([row["id"] for row in rows], ["my/rm", "long", "short"])
    self.assertEqual([row["parent"] for row in rows], [None, "my/rm", "my/rm"])

  def test_ready_until_full(self):
    gate = serve_test.Gate()
    with (
      serve_test.serving(serve_test.source_of(gate), max_waiting=4) as url,
      serve_test.futures.ThreadPoolExecutor(1) as clients,
    ):
      self.assertEqual(httpx.get(f"{url}/ready").json(), {"status": "ready"})
      full = clients.submit(serve_test.post, url, ["a"] * 4)
      self.assertTrue(gate.arrived.acquire(timeout=10))
      reply = httpx.get(f"{url}/ready")
      self.assertEqual(reply.status_code, 503)
      self.assertEqual(httpx.get(f"{url}/health").status_code, 200)
      gate.open.set()
      self.assertEqual(full.result().status_code, 200)
      self.assertEqual(httpx.get(f"{url}/ready").status_code, 200)

  def test_metrics_count_answers_and_texts(self):
    with serve_test.serving(serve_test.source_of(serve_test.lengths)) as url:
      serve_test.post(url, ["a", "b"])
      httpx.post(f"{url}/v1/rewards", content=b"{")
      httpx.get(f"{url}/elsewhere")
      reply = httpx.get(f"{url}/metrics")
    self.assertStartsWith(reply.headers["content-type"], "text/plain; version")
    lines = reply.text.splitlines()
    answers = 'jaxalign_http_answers_total{path="/v1/rewards",status='
    for line in (
      "jaxalign_texts_total 2",
      "jaxalign_waiting_texts_limit 6",
      "jaxalign_ready 1",
      f'{answers}"200"}} 1',
      f'{answers}"400"}} 1',
    ):
      self.assertIn(line, lines)
    self.assertNotIn("elsewhere", reply.text)

  def test_a_token_is_asked_for_but_where_there_is_nothing_to_see(self):
    with (
      absltest.mock.patch.dict(serve_test.os.environ, SERVE_TOKEN="sesame"),
      serve_test.serving(
        serve_test.source_of(serve_test.lengths), token_variable="SERVE_TOKEN"
      ) as url,
    ):
      for path in ("/metrics", "/v1/models"):
        self.assertEqual(httpx.get(url + path).status_code, 401)
      self.assertEqual(httpx.get(f"{url}/ready").status_code, 200)
      for path in ("/get_reward", "/classify", "/pooling", "/v1/embeddings"):
        self.assertEqual(httpx.post(url + path, json={}).status_code, 401)
      headers = {"Authorization": "Bearer sesame"}
      reply = httpx.get(f"{url}/metrics", headers=headers)
    self.assertIn(
      'answers_total{path="/get_reward",status="401"} 1', reply.text
    )


class ModelTest(absltest.TestCase):
  def test_a_rendered_text_has_the_reward_of_its_parts(self):
    path = model_test.folder()
    tokenizer = tokenizer_files.load_tokenizer(path)
    prompt, response = "Q: bb\nA:", " yes yes"
    whole = f"{prompt}{response}{tokenizer.fast.eos_token}"
    chat = tokenizer.fast.apply_chat_template([*CHAT, ANSWER], tokenize=False)
    source = model_test.open_source(path)
    wanted = source(
      [prompt, (Turn("user", "Why?"),)], [response, ANSWER["content"]]
    )
    with serve_test.serving(source, **ROOM, output="brief") as url:
      post = lambda path, body: httpx.post(url + path, json=body).json()
      openrlhf = post("/get_reward", {"query": [whole], "prompts": [prompt]})
      vllm = post("/classify", {"input": chat})
      every = post("/pooling", {"input": [whole, chat]})
    np.testing.assert_allclose(openrlhf["rewards"], wanted[:1, 1], atol=2e-6)
    np.testing.assert_allclose(
      vllm["data"][0]["probs"], wanted[1:, 1], atol=2e-6
    )
    np.testing.assert_allclose(
      [row["data"] for row in every["data"]], wanted, atol=2e-6
    )
    self.assertGreater(np.ptp(wanted[:, 1]), 0.01)

  def test_requests_with_other_columns_are_no_batch(self):
    gate, seen = serve_test.Gate(), []

    def function(prompts, responses, **columns):
      seen.append(columns)
      return gate(prompts, responses)

    body = lambda **columns: json.dumps(
      {"prompts": ["p"], "responses": ["a"], "columns": columns}
    )
    with (
      serve_test.serving(serve_test.source_of(function), **ROOM) as url,
      serve_test.futures.ThreadPoolExecutor(4) as clients,
    ):
      sent = [clients.submit(serve_test.post, url, ["a"])]
      self.assertTrue(gate.arrived.acquire(timeout=10))
      for columns in (dict(x=[1]), dict(x=[2]), dict(y=[3])):
        sent.append(
          clients.submit(
            httpx.post, f"{url}/v1/rewards", content=body(**columns)
          )
        )
        waiting = len(sent)
        while httpx.get(f"{url}/health").json()["waiting"] < waiting:
          serve_test.time.sleep(0.005)
      gate.open.set()
      for one in sent:
        self.assertEqual(one.result().status_code, 200)
    self.assertEqual(seen, [{}, {"x": [1, 2]}, {"y": [3]}])


class ServeConfigTest(absltest.TestCase):
  def test_every_protocol_is_on_the_page(self):
    page = serve_test.checkout.ROOT / "docs/serving.md"
    text = page.read_text(encoding="utf-8")
    app = serve.make_app(
      serve_test.source_of(serve_test.lengths),
      serve_test.CONFIG,
      batch_size=1,
    )
    for route in app.routes:
      self.assertIn(route.path, text)


if __name__ == "__main__":
  absltest.main()
