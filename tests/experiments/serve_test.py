"""A real server on this machine, asked well, badly and too much."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from unittest import mock

import httpx
import numpy as np
import pytest
import uvicorn
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments import serve
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.reward_sources.base import FunctionSource, RewardError
from jaxalign.runtime.reward_sources.http import EndpointSource
from tests import checkout, config_reads, shipped
from tests.runtime.reward_sources import http_test, model_test

CONFIG = serve.ServeConfig(
  host="127.0.0.1",
  port=0,
  max_texts=4,
  max_bytes=500,
  max_waiting=6,
  linger_ms=0.0,
  shutdown_s=5,
  max_waiting_bytes=1000,
)
PROMPTS, RESPONSES = http_test.PROMPTS, http_test.RESPONSES


def lengths(prompts, responses):
  return [[len(response), -len(response)] for response in responses]


def source_of(function):
  return FunctionSource(
    function, names=("long", "short"), mixture_weights=(0.75, 0.25)
  )


@contextlib.contextmanager
def serving(source, *, batch_size=8, **changes):
  """The server's address, while it runs in a thread."""
  config = dataclasses.replace(CONFIG, **changes)
  app = serve.make_app(source, config, batch_size=batch_size)
  server, bound = serve.make_server(app, config)
  thread = threading.Thread(target=server.run, args=([bound],))
  thread.start()
  try:
    while not server.started:
      time.sleep(0.005)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
  finally:
    server.should_exit = True
    thread.join()
    bound.close()


def post(url, texts, **options):
  body = {"prompts": ["p"] * len(texts), "responses": texts}
  return httpx.post(f"{url}/v1/rewards", json=body, timeout=20, **options)


def leaving_client(url, texts):
  """A connection that asks for rewards and does not read them."""
  body = json.dumps({"prompts": ["p"] * len(texts), "responses": [*texts]})
  host, _, port = url.removeprefix("http://").partition(":")
  connection = socket.create_connection((host, int(port)))
  connection.sendall(
    f"POST /v1/rewards HTTP/1.1\r\nHost: {host}\r\n"
    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
  )
  return connection


class Gate:
  """A reward function that waits to be let through, and notes its batches."""

  def __init__(self):
    self.batches = []
    self.arrived = threading.Semaphore(0)
    self.open = threading.Event()

  def __call__(self, prompts, responses):
    self.batches.append(list(responses))
    self.arrived.release()
    self.open.wait(20)
    return lengths(prompts, responses)


class ServeTest(parameterized.TestCase):
  def test_a_client_gets_what_the_source_gives(self):
    local = model_test.open_source()
    with serving(local, max_bytes=10_000, max_waiting_bytes=99_000) as url:
      remote = EndpointSource(f"{url}/v1", http_test.CONNECTION, batch_size=2)
      self.assertEqual(remote.names, local.names)
      self.assertEqual(remote.mixture_weights, local.mixture_weights)
      prompts = model_test.PROMPTS
      responses = model_test.RESPONSES
      rewards = remote(prompts, responses)
    # Other batches, so the same to rounding.
    np.testing.assert_allclose(rewards, local(prompts, responses), atol=2e-6)

  def test_health_and_counts(self):
    with serving(source_of(lengths)) as url:
      post(url, ["a", "bb"])
      health = httpx.get(f"{url}/health")
    self.assertEqual(health.status_code, 200)
    self.assertEqual(
      health.json(),
      {
        "status": "ok",
        "names": ["long", "short"],
        "mixture_weights": [0.75, 0.25],
        "waiting": 0,
        "max_waiting": 6,
        "waiting_bytes": 0,
        "max_waiting_bytes": 1000,
        "texts": 2,
        "requests": 1,
        "batches": 1,
        "refused": 0,
        "failed": 0,
        "gone": 0,
      },
    )

  @parameterized.parameters(
    (b"", 400, "must be JSON"),
    (b"{", 400, "must be JSON"),
    (b"\xff\xfe", 400, "must be JSON"),
    (b"[" * 200, 400, "must be JSON"),
    (b"[1]", 400, "must be an object with prompts and responses, got a list"),
    (b'{"prompts": []}', 400, "responses must be a list, got nothing"),
    (b'{"prompts": [3], "responses": ["a"]}', 400, "text 0: prompt must be"),
    (b" " * 501, 413, "may hold 500 bytes"),
    (
      json.dumps({"prompts": ["a"] * 5, "responses": ["b"] * 5}).encode(),
      413,
      "may hold 4 texts, got 5",
    ),
  )
  def test_a_bad_request_is_answered_with_the_reason(self, body, status, said):
    with serving(source_of(lambda p, r: 1 / 0)) as url:
      reply = httpx.post(f"{url}/v1/rewards", content=body)
      health = httpx.get(f"{url}/health").json()
    self.assertEqual(reply.status_code, status)
    self.assertIn(said, reply.json()["error"])
    self.assertEqual(health["batches"], 0)

  @parameterized.parameters(
    ("GET", "/v1/rewards", 405), ("POST", "/health", 405), ("GET", "/", 404)
  )
  def test_another_path_or_method_says_which_there_are(
    self, method, path, status
  ):
    with serving(source_of(lengths)) as url:
      reply = httpx.request(method, url + path)
    self.assertEqual(reply.status_code, status)
    self.assertIn("there are POST /v1/rewards, /get_", reply.text)
    self.assertIn(" and GET /health, /ready, ", reply.text)

  def test_what_arrives_meanwhile_is_one_batch_and_too_much_is_refused(self):
    gate = Gate()
    with (
      serving(source_of(gate)) as url,
      futures.ThreadPoolExecutor(4) as clients,
    ):
      first = clients.submit(post, url, ["a"])
      self.assertTrue(gate.arrived.acquire(timeout=10))
      others = [clients.submit(post, url, [f"b{i}", "c"]) for i in range(2)]
      while httpx.get(f"{url}/health").json()["waiting"] < 5:
        time.sleep(0.005)
      full = post(url, ["d", "e"])
      self.assertEqual(full.status_code, 503)
      self.assertEqual(full.headers["retry-after"], "1")
      self.assertIn("5 texts wait, 2 more exceed serve.max_w", full.text)
      gate.open.set()
      self.assertEqual(first.result().json()["rewards"], [[1, -1]])
      for other in others:
        self.assertEqual(other.result().json()["rewards"], [[2, -2], [1, -1]])
    self.assertEqual([len(batch) for batch in gate.batches], [1, 4])

  def test_bytes_that_wait_are_bounded_as_texts_are(self):
    gate = Gate()
    with (
      serving(source_of(gate)) as url,
      futures.ThreadPoolExecutor(2) as clients,
    ):
      asked = [clients.submit(post, url, ["a" * 400]) for _ in range(2)]
      self.assertTrue(gate.arrived.acquire(timeout=10))
      while (held := httpx.get(f"{url}/health").json()["waiting_bytes"]) < 800:
        time.sleep(0.005)
      full = post(url, ["b" * 200])
      self.assertEqual(full.status_code, 503)
      self.assertEqual(full.headers["retry-after"], "1")
      self.assertIn(f"{held} bytes wait", full.text)
      self.assertIn("more exceed serve.max_waiting_bytes = 1000", full.text)
      gate.open.set()
      for one in asked:
        self.assertEqual(one.result().json()["rewards"], [[400, -400]])
      health = httpx.get(f"{url}/health").json()
    self.assertEqual((health["waiting_bytes"], health["refused"]), (0, 1))

  def test_many_texts_are_scored_a_batch_at_a_time(self):
    gate = Gate()
    gate.open.set()
    with serving(source_of(gate), batch_size=2, max_texts=5) as url:
      reply = post(url, ["a", "bb", "ccc", "dd", "e"])
      health = httpx.get(f"{url}/health").json()
    self.assertEqual(
      [row[0] for row in reply.json()["rewards"]], [1, 2, 3, 2, 1]
    )
    self.assertEqual(gate.batches, [["a", "bb"], ["ccc", "dd"], ["e"]])
    self.assertEqual((health["texts"], health["requests"]), (5, 1))

  def test_nothing_is_scored_for_a_client_that_has_gone(self):
    gate = Gate()
    with serving(source_of(gate), batch_size=2) as url:
      # One is being scored when its client leaves, the other waits.
      leaving = [leaving_client(url, texts) for texts in ("abcd", "ef")]
      self.assertTrue(gate.arrived.acquire(timeout=10))
      while httpx.get(f"{url}/health").json()["waiting"] < 6:
        time.sleep(0.005)
      for one in leaving:
        one.close()
      while (health := httpx.get(f"{url}/health").json())["gone"] < 2:
        time.sleep(0.005)
      gate.open.set()
      self.assertEqual(post(url, ["gg"]).json()["rewards"], [[2, -2]])
    self.assertEqual((health["waiting"], health["waiting_bytes"]), (0, 0))
    self.assertLen(gate.batches, 2)
    self.assertLen(gate.batches[0], 2)
    self.assertEqual(gate.batches[1], ["gg"])

  def test_a_token_is_asked_for(self):
    with (
      mock.patch.dict(os.environ, SERVE_TOKEN="open sesame\n"),
      serving(source_of(lengths), token_variable="SERVE_TOKEN") as url,
    ):
      for headers in (
        {},
        {"Authorization": "Bearer open sesam"},
        {"Authorization": "Basic open sesame"},
        {"Authorization": "open sesame"},
      ):
        reply = post(url, ["a"], headers=headers)
        self.assertEqual(reply.status_code, 401, headers)
        self.assertEqual(reply.headers["www-authenticate"], "Bearer")
        self.assertNotIn("sesam", reply.text)
      health = httpx.get(f"{url}/health")
      self.assertEqual(health.json(), {"status": "ok"})  # for load balancers
      remote = EndpointSource(
        f"{url}/v1",
        dataclasses.replace(http_test.CONNECTION, key_variable="SERVE_TOKEN"),
        batch_size=2,
      )
      self.assertEqual(remote(["a"], ["bb"]).tolist(), [[2, -2]])

  def test_a_token_that_is_not_there_is_an_error_at_the_start(self):
    with self.assertRaisesRegex(ValueError, "token_variable names is not set"):
      serve.make_app(
        source_of(lengths),
        dataclasses.replace(CONFIG, token_variable="SERVE_TOKEN_UNSET"),
        batch_size=1,
      )

  def test_no_more_texts_are_parsed_than_allowed(self):
    # In Python, text by text: it would hold everybody up.
    body = json.dumps({"prompts": [3] * 9, "responses": ["a"] * 9})
    with serving(source_of(lengths)) as url:
      reply = httpx.post(f"{url}/v1/rewards", content=body)
    self.assertEqual(reply.status_code, 413)
    self.assertIn("may hold 4 texts, got 9", reply.text)

  def test_batches_end_where_they_are_full(self):
    gate = Gate()
    with (
      serving(source_of(gate), batch_size=3, max_waiting=20) as url,
      futures.ThreadPoolExecutor(5) as clients,
    ):
      asked = [clients.submit(post, url, ["a"])]
      self.assertTrue(gate.arrived.acquire(timeout=10))
      asked += [clients.submit(post, url, ["b", "c"]) for _ in range(3)]
      while httpx.get(f"{url}/health").json()["waiting"] < 7:
        time.sleep(0.005)
      gate.open.set()
      for one in asked:
        self.assertEqual(one.result().status_code, 200)
    self.assertEqual([len(batch) for batch in gate.batches], [1, 2, 2, 2])

  def test_a_request_waits_for_company(self):
    gate = Gate()
    gate.open.set()
    with (
      serving(source_of(gate), batch_size=2, linger_ms=5_000) as url,
      futures.ThreadPoolExecutor(2) as clients,
    ):
      begun = time.monotonic()
      for one in [clients.submit(post, url, [text]) for text in "ab"]:
        self.assertEqual(one.result().status_code, 200)
      self.assertLess(time.monotonic() - begun, 4)
    self.assertCountEqual(gate.batches, [gate.batches[0]])
    self.assertLen(gate.batches[0], 2)

  def test_a_text_that_breaks_the_source_harms_nobody_else(self):
    gate = Gate()

    def picky(prompts, responses):
      rewards = gate(prompts, responses)
      if "bad" in responses:
        raise KeyError("bad")
      return rewards

    with (
      self.assertLogs("jaxalign", "ERROR"),
      serving(source_of(picky)) as url,
      futures.ThreadPoolExecutor(3) as clients,
    ):
      asked = [clients.submit(post, url, ["a"])]
      self.assertTrue(gate.arrived.acquire(timeout=10))
      asked += [clients.submit(post, url, [text]) for text in ("bad", "fine")]
      while httpx.get(f"{url}/health").json()["waiting"] < 3:
        time.sleep(0.005)
      gate.open.set()
      found = [one.result() for one in asked]
    self.assertEqual([r.status_code for r in found], [200, 500, 200])
    self.assertEqual(found[1].json()["error"], "no rewards: KeyError: 'bad'")

  def test_rewards_that_are_none_are_an_error_of_the_server(self):
    nan = source_of(lambda p, r: [[float("nan")] * 2] * len(r))
    with self.assertLogs("jaxalign", "ERROR"), serving(nan) as url:
      reply = post(url, ["a"])
      remote = EndpointSource(f"{url}/v1", http_test.CONNECTION, batch_size=2)
      with self.assertRaisesRegex(RewardError, "http_500"):
        remote(["a"], ["b"])
    self.assertEqual(reply.status_code, 500)
    self.assertIn("RewardError: the reward function gave nan", reply.text)

  def test_requests_under_way_are_answered_before_the_end(self):
    gate = Gate()
    with futures.ThreadPoolExecutor(1) as clients:
      with serving(source_of(gate)) as url:
        asked = clients.submit(post, url, ["a"])
        self.assertTrue(gate.arrived.acquire(timeout=10))
        threading.Timer(0.2, gate.open.set).start()
      # The server has stopped.
      self.assertEqual(asked.result().json()["rewards"], [[1, -1]])
      with self.assertRaises(httpx.ConnectError):
        post(url, ["b"])

  def test_requests_that_take_too_long_are_sent_away_at_the_end(self):
    gate = Gate()
    with futures.ThreadPoolExecutor(1) as clients:
      with (
        self.assertNoLogs("jaxalign", "ERROR"),
        serving(source_of(gate), shutdown_s=1) as url,
      ):
        asked = clients.submit(post, url, ["a"])
        self.assertTrue(gate.arrived.acquire(timeout=10))
      # The server has stopped, and the source still thinks.
      self.assertFalse(gate.open.is_set())
      self.assertEqual(asked.result().status_code, 503)
      self.assertIn("shutting down", asked.result().text)
    gate.open.set()

  def test_a_taken_address_is_named(self):
    with (
      serving(source_of(lengths)) as url,
      self.assertRaisesRegex(ValueError, "cannot listen on 127.0.0.1:"),
    ):
      port = int(url.rpartition(":")[2])
      serve.make_server(None, dataclasses.replace(CONFIG, port=port))

  @parameterized.parameters(
    (dict(port=70_000), r"port must be in \[0, 65536\), got 70000"),
    (dict(max_texts=0), "max_texts must be >= 1, got 0"),
    (dict(max_waiting=3), "max_waiting must be >= max_texts, got 3 and 4"),
    (dict(linger_ms=-1.0), "linger_ms must be >= 0, got -1.0"),
    (
      dict(max_waiting_bytes=499),
      "max_waiting_bytes must be >= max_bytes, got 499 and 500",
    ),
    (dict(token_variable="s3cr-et"), "token_variable must be the name of an"),
  )
  def test_values_out_of_range(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      dataclasses.replace(CONFIG, **changes)


class StageTest(absltest.TestCase):
  def test_every_key_is_read(self):
    cfg = shipped.config("serve", "smoke")
    cfg.mesh.data = 1
    config = configuration.to_dataclass(serve.Config, cfg)
    with (
      config_reads.recorded(config) as unread,
      mock.patch.object(uvicorn.Server, "run"),
    ):
      serve.run(config, epath.Path(tempfile.mkdtemp()))
    # The source's own are reward_source_test's; these two a request reads.
    self.assertEqual(
      {key for key in unread if not key.startswith("source.")},
      {"serve.max_texts", "serve.max_bytes"},
    )

  def start(self, workdir, *flags, **variables):
    """The stage as a process, and its address once it serves."""
    process = subprocess.Popen(
      [
        sys.executable,
        "-m",
        "jaxalign.experiments.serve",
        "--config=configs/serve.py:smoke",
        f"--workdir={workdir}",
        *flags,
      ],
      cwd=checkout.ROOT,
      env=os.environ | {"PYTHONPATH": str(checkout.ROOT)} | variables,
      stderr=subprocess.PIPE,
      text=True,
    )
    deadline = time.monotonic() + 60
    while not (workdir / "serve.json").exists():
      self.assertIsNone(process.poll(), "it ended by itself")
      self.assertLess(time.monotonic(), deadline)
      time.sleep(0.1)
    return process, json.loads((workdir / "serve.json").read_text())["url"]

  def test_smoke_serves_and_ends_in_good_order(self):
    process, url = self.start(epath.Path(tempfile.mkdtemp()))
    try:
      source = EndpointSource(url, http_test.CONNECTION, batch_size=2)
      self.assertEqual(source.names, ("warm", "brief"))
      rewards = source(["Q: How do I fix bowls?\nA:"], [" Glue the bowls."])
      self.assertGreater(rewards[0, 1], rewards[0, 0])
    finally:
      process.send_signal(signal.SIGTERM)
      _, said = process.communicate(timeout=30)
    self.assertEqual(process.returncode, 0, said)
    self.assertIn("served 1 texts of 2 requests", said)

  @pytest.mark.slow
  def test_a_source_that_hangs_does_not_hold_up_the_end(self):
    workdir = epath.Path(tempfile.mkdtemp())
    (workdir / "slow_rewards.py").write_text(
      "import time\n"
      "def rewards(prompts, responses):\n"
      "  time.sleep(600 if 'hang' in responses else 0)\n"
      "  return [0.0] * len(responses)\n"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
      with self.subTest(number.name), futures.ThreadPoolExecutor(1) as clients:
        (workdir / "serve.json").unlink(missing_ok=True)
        process, url = self.start(
          workdir,
          "--config.source.crowd=None",
          "--config.source.function=slow_rewards:rewards",
          "--config.serve.shutdown_s=2",
          PYTHONPATH=f"{checkout.ROOT}:{workdir}",
        )
        asked = clients.submit(post, url.removesuffix("/v1"), ["hang"])
        while not httpx.get(f"{url.removesuffix('/v1')}/health").json()[
          "waiting"
        ]:
          time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, said)
        self.assertIn("what is being scored is left", said)
        self.assertNotIn("Traceback", said)
        self.assertEqual(asked.result().status_code, 503)


if __name__ == "__main__":
  absltest.main()
