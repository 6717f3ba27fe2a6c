"""Models by id, fetched from a hub on this machine, and its errors."""

import contextlib
import os
import pathlib
import tempfile
from unittest import mock

import huggingface_hub
import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.experiments.common import provenance
from jaxalign.runtime.io import filesystem, hub
from tests import hub_server
from tests.models.samples import LLAMA


class HubTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    enter = self.enter_context
    folder = lambda: pathlib.Path(enter(tempfile.TemporaryDirectory()))
    self.repository, self.cache, here = folder(), folder(), folder()
    enter(contextlib.chdir(here))
    self.server = hub_server.start(self, self.repository)
    self.asked = self.server.asked
    self.addCleanup(hub.snapshot.cache_clear)
    cache = huggingface_hub.constants, "HF_HUB_CACHE", str(self.cache)
    enter(mock.patch.object(*cache))

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
    self.assertEqual(folder.name, hub_server.COMMIT)
    self.assertEqual(
      sorted(file.name for file in folder.iterdir()),
      ["config.json", "model.safetensors"],
    )
    self.assertFalse([p for p in self.asked if p.endswith((".bin", ".py"))])
    _, read, _ = models.load_causal_lm(folder)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    self.assertIn("/api/models/org/tiny/revision/main", self.asked)
    config = {"model": {"init_from": "org/tiny"}, "data": {"tokenizer": "byte"}}
    self.assertEqual(
      provenance.revisions(config), {"model.init_from": hub_server.COMMIT}
    )

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
    offline = huggingface_hub.constants, "HF_HUB_OFFLINE", True
    self.enter_context(mock.patch.object(*offline))
    with self.assertRaisesRegex(ValueError, "check the network") as raised:
      filesystem.resolved("org/tiny")
    self.assertIn("hf download org/tiny --local-dir", str(raised.exception))

  # The client's, of its own client for HTTP.
  @pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
  def test_a_folder_becomes_one_commit_of_a_private_repository(self):
    self.publish()
    (self.repository / "checkpoints").mkdir()
    (self.repository / "checkpoints" / "1").write_text("not of the model")
    address = hub.upload(self.repository, "org/new", message="A model")
    self.assertEndsWith(address, f"/org/new/commit/{hub_server.COMMIT}")
    made = self.server.repositories["org/new"]
    self.assertEqual(made["visibility"], "private")
    self.assertEqual(made["message"], "A model")
    here = {f.name: f.read_bytes() for f in self.repository.glob("*.*")}
    self.assertEqual(made["files"], here)
    # Again: the repository is there, and what it holds is replaced.
    (self.repository / "config.json").write_text("{}")
    hub.upload(self.repository, "org/new", message="Another")
    self.assertEqual(made["files"]["config.json"], b"{}")

  def test_an_upload_that_is_refused_is_one_line(self):
    (self.repository / "config.json").write_text("{}")
    self.server.refuses = True
    with self.assertRaisesRegex(ValueError, "org/new on the hub") as raised:
      hub.upload(self.repository, "org/new", message="A model")
    text = str(raised.exception)
    self.assertIn(f"hf upload org/new {self.repository}", text)
    self.assertNotIn("\n", text)

  @parameterized.parameters("tiny", "org/tiny@main", "a/b/c", "")
  def test_a_name_to_push_to_is_checked_before_training(self, name):
    with self.assertRaisesRegex(ValueError, "must be OWNER/NAME"):
      hub.check_upload(name)

  def test_so_is_the_token(self):
    hub.check_upload("org/tiny")
    self.enter_context(mock.patch.dict("os.environ"))
    del os.environ["HF_TOKEN"]
    with self.assertRaisesRegex(ValueError, "needs a token .* hf auth login"):
      hub.check_upload("org/tiny")


if __name__ == "__main__":
  absltest.main()
