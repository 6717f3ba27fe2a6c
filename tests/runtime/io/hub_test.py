"""Models by id, fetched from a hub on this machine, and its errors."""

import contextlib
import functools
import hashlib
import http.server
import json
import pathlib
import tempfile
import threading
from unittest import mock

import huggingface_hub
import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.experiments.common import provenance
from jaxalign.runtime.io import filesystem, hub
from tests.models.samples import LLAMA

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
  """The few calls of the hub that fetching a model needs."""

  def __init__(self, *args, folder, asked):
    self.folder, self.asked = folder, asked
    super().__init__(*args)

  def log_message(self, *args):
    pass

  def do_HEAD(self):
    self.answer(body=False)

  def do_GET(self):
    self.answer(body=True)

  def answer(self, *, body):
    path = self.path.partition("?")[0]
    self.asked.append(path)
    headers = {"X-Repo-Commit": COMMIT}
    if path.startswith("/api/models/org/tiny/revision/"):
      files = sorted(f.name for f in self.folder.iterdir())
      content = json.dumps(
        {
          "id": "org/tiny",
          "sha": COMMIT,
          "siblings": [{"rfilename": name} for name in files],
        }
      ).encode()
    elif path == f"/api/models/org/tiny/tree/{COMMIT}":
      content = json.dumps(
        [
          {
            "type": "file",
            "path": file.name,
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
          }
          for file in self.folder.iterdir()
        ]
      ).encode()
    elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
      content = (self.folder / path.rpartition("/")[2]).read_bytes()
      headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
    else:
      content = b'{"error": "Repository not found"}'
      headers["X-Error-Code"] = "RepoNotFound"
      self.send_response(404)
      self.finish_answer(headers, content if body else b"", len(content))
      return
    self.send_response(200)
    self.finish_answer(headers, content if body else b"", len(content))

  def finish_answer(self, headers, content, length):
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(length))
    self.end_headers()
    self.wfile.write(content)


class HubTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    enter = self.enter_context
    folder = lambda: pathlib.Path(enter(tempfile.TemporaryDirectory()))
    self.repository, self.cache, here = folder(), folder(), folder()
    enter(contextlib.chdir(here))
    self.asked = []
    server = http.server.ThreadingHTTPServer(
      ("127.0.0.1", 0),
      functools.partial(Hub, folder=self.repository, asked=self.asked),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.addCleanup(server.server_close)
    self.addCleanup(server.shutdown)
    self.addCleanup(hub.snapshot.cache_clear)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    enter(mock.patch.dict("os.environ", HF_ENDPOINT=endpoint))
    constants = huggingface_hub.constants
    for name, value in (
      ("HF_HUB_CACHE", str(self.cache)),
      ("HF_HUB_OFFLINE", False),
    ):
      enter(mock.patch.object(constants, name, value))

  def publish(self):
    params = models.causal_lm(LLAMA).init(
      jax.random.key(0), np.zeros((1, 1), np.int32), np.ones((1, 1), bool)
    )
    models.save_pretrained(self.repository, params, LLAMA)
    (self.repository / "pytorch_model.bin").write_bytes(b"a pickle")
    (self.repository / "modeling_tiny.py").write_text("raise SystemExit\n")
    return params

  @parameterized.parameters(
    ("org/tiny", True),
    ("org/tiny@main", True),
    ("org/tiny@refs/pr/1", True),
    ("byte", False),
    ("./org/tiny", False),
    ("/org/tiny", False),
    ("org/tiny/model", False),
    ("gs://bucket/tiny", False),
  )
  def test_an_id_is_owner_and_name(self, text, is_one):
    self.assertEqual(hub.is_hub_id(text), is_one)

  def test_a_folder_here_comes_first(self):
    pathlib.Path("org/tiny").mkdir(parents=True)
    self.assertFalse(hub.is_hub_id("org/tiny"))
    self.assertFalse(hub.is_hub_id("org/misspelt"))
    self.assertEqual(filesystem.resolved("org/tiny"), "org/tiny")

  def test_a_model_comes_with_safetensors_and_its_commit(self):
    params = self.publish()
    folder = pathlib.Path(filesystem.resolved("org/tiny@main"))
    self.assertEqual(folder.name, COMMIT)
    self.assertEqual(
      sorted(file.name for file in folder.iterdir()),
      ["config.json", "model.safetensors"],
    )
    self.assertFalse([p for p in self.asked if p.endswith((".bin", ".py"))])
    _, read, _ = models.load_causal_lm(folder)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    self.assertIn("/api/models/org/tiny/revision/main", self.asked)
    config = {"model": {"init_from": "org/tiny"}, "data": {"tokenizer": "byte"}}
    self.assertEqual(provenance.revisions(config), {"model.init_from": COMMIT})

  def test_a_tokenizer_comes_without_weights(self):
    self.publish()
    folder = pathlib.Path(filesystem.resolved("org/tiny", weights=False))
    self.assertEqual([f.name for f in folder.iterdir()], ["config.json"])

  def test_a_model_without_safetensors_is_refused(self):
    (self.repository / "config.json").write_text("{}")
    (self.repository / "pytorch_model.bin").write_bytes(b"a pickle")
    with self.assertRaisesRegex(ValueError, "holds no safetensors files"):
      filesystem.resolved("org/tiny")

  def test_an_unknown_model_is_one_line(self):
    with self.assertRaisesRegex(ValueError, "no folder org/none@v1") as raised:
      filesystem.resolved("org/none@v1")
    text = str(raised.exception)
    self.assertIn("hf download org/none --revision v1 --local-dir FOLDER", text)
    self.assertNotIn("\n", text)

  def test_offline_says_how_to_fetch_it_elsewhere(self):
    enter = self.enter_context
    enter(mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True))
    with self.assertRaisesRegex(ValueError, "check the network") as raised:
      filesystem.resolved("org/tiny")
    self.assertIn("hf download org/tiny --local-dir", str(raised.exception))


if __name__ == "__main__":
  absltest.main()
