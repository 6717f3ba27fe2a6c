"""A real server on this machine, asked well, badly and too much."""

import contextlib
import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from unittest import mock

import httpx
import numpy as np
import uvicorn
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments import serve
from jaxalign.experiments.stage import configuration
from jaxalign.runtime.reward_sources import FunctionSource, RewardError
from jaxalign.runtime.served_rewards import EndpointSource
from tests import checkout, config_reads
from tests.runtime import model_rewards_test, served_rewards_test

CONFIG = serve.ServeConfig(
  host="127.0.0.1",
  port=0,
  max_texts=4,
  max_bytes=500,
  max_waiting=6,
  linger_ms=0.0,
  shutdown_s=5,
)
PROMPTS, RESPONSES = served_rewards_test.PROMPTS, served_rewards_test.RESPONSES


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
    local = model_rewards_test.open_source()
    with serving(local, max_bytes=10_000) as url:
      remote = EndpointSource(
        f"{url}/v1", served_rewards_test.CONNECTION, batch_size=2
      )
      self.assertEqual(remote.names, local.names)
      self.assertEqual(remote.mixture_weights, local.mixture_weights)
      prompts = model_rewards_test.PROMPTS
      responses = model_rewards_test.RESPONSES
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
        "texts": 2,
        "requests": 1,
        "batches": 1,
        "refused": 0,
        "failed": 0,
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
    self.assertIn("there are POST /v1/rewards and GET /h", reply.text)

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
      remote = EndpointSource(
        f"{url}/v1", served_rewards_test.CONNECTION, batch_size=2
      )
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
  )
  def test_values_out_of_range(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      dataclasses.replace(CONFIG, **changes)


class StageTest(absltest.TestCase):
  def test_every_key_is_read(self):
    path = str(checkout.ROOT / "configs/serve.py")
    cfg = runpy.run_path(path)["get_config"]("smoke")
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

  def test_smoke_serves_and_ends_in_good_order(self):
    workdir = epath.Path(tempfile.mkdtemp())
    process = subprocess.Popen(
      [
        sys.executable,
        "-m",
        "jaxalign.experiments.serve",
        "--config=configs/serve.py:smoke",
        f"--workdir={workdir}",
      ],
      cwd=checkout.ROOT,
      env=os.environ | {"PYTHONPATH": str(checkout.ROOT)},
      stderr=subprocess.PIPE,
      text=True,
    )
    try:
      deadline = time.monotonic() + 60
      while not (workdir / "serve.json").exists():
        self.assertIsNone(process.poll(), "it ended by itself")
        self.assertLess(time.monotonic(), deadline)
        time.sleep(0.1)
      url = json.loads((workdir / "serve.json").read_text())["url"]
      source = EndpointSource(url, served_rewards_test.CONNECTION, batch_size=2)
      self.assertEqual(source.names, ("warm", "brief"))
      rewards = source(["Q: How do I fix bowls?\nA:"], [" Glue the bowls."])
      self.assertGreater(rewards[0, 1], rewards[0, 0])
    finally:
      process.send_signal(signal.SIGINT)
      _, said = process.communicate(timeout=30)
    self.assertEqual(process.returncode, 0, said)
    self.assertIn("served {'texts': 1", said)


if __name__ == "__main__":
  absltest.main()
