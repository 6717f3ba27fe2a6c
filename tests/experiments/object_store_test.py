"""A run whose whole workdir is on gs://, killed on the way: as on a disk."""

import json
import os
import pathlib
import signal
import tempfile
from unittest import mock

import pytest
from absl.testing import absltest
from etils import epath

from jaxalign.experiments import train_reward
from jaxalign.runtime.io import checkpoint, filesystem
from tests import gcs_server, object_store
from tests.experiments import chaos, chaos_test, interrupted, train_reward_test

PHASES = {  # seconds after the phase is entered that a kill may come
  "training": 0.3,
  "evaluation": 0.2,
  "saving": 0.15,
  "commit": None,  # just before or just after the object that makes it count
}


class ObjectStoreTest(chaos_test.Case):
  """The attempts called "straight" are on a disk, all others in a bucket."""

  def setUp(self):
    self.store = gcs_server.started(self, "bucket")
    super().setUp()

  def place(self, workdir):
    on_disk = workdir == "straight"
    return super().place(workdir) if on_disk else f"gs://bucket/{workdir}"

  def content(self, workdir, name):
    if workdir == "straight":
      return super().content(workdir, name)
    return self.store.read("bucket", f"{workdir}/{name}")

  def attempt(self, workdir, steps, phase, delay):
    if phase != "commit":
      return super().attempt(workdir, steps, phase, delay)

    def witness(name, stored):
      if "/metrics/" in name or "/state/" in name:
        return  # parts of a checkpoint commit too
      if name.endswith("/commit_success.txt") and stored == bool(delay):
        self.kill_victim()

    self.store.witness = witness
    try:
      return super().attempt(workdir, steps, "none", 0.0)
    finally:
      self.store.witness = lambda name, stored: None

  def kill_victim(self):
    """Ends the process that the server of attempts has forked."""
    pid = self.server.pid
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split():
      os.kill(int(child), signal.SIGKILL)

  def check_kills(self, number):
    self.check(chaos.kills(PHASES, number, seed=number), 20 + 40 * number)
    steps = {
      name.split("/")[2]
      for name in self.store.names("bucket", "killed/checkpoints/")
    }
    # Neither what was half-written nor what is no longer kept stays behind.
    self.assertLessEqual(len(steps), 3, steps)

  def test_one_kill_in_each_phase(self):
    self.check_kills(1)

  @pytest.mark.slow
  def test_five_kills_in_each_phase(self):
    self.check_kills(5)


class MirroredTest(absltest.TestCase):
  """A run on s3://, whose checkpoints go by way of the disk."""

  def test_interrupted_while_saving_it_ends_as_on_a_disk(self):
    store = object_store.install()
    config = train_reward_test.smoke_config(
      data__eval_files=("synthetic:two_groups:test",)
    )
    straight = epath.Path(tempfile.mkdtemp())
    train_reward.run(config, straight, profile=False)
    workdir = epath.Path("s3://bucket/run")
    indexed = filesystem.write_atomically

    def dies_at_four(path, content):
      if str(path).endswith(checkpoint.INDEX) and b'"4"' in content:
        raise interrupted.Killed
      indexed(path, content)

    with (
      mock.patch.object(filesystem, "write_atomically", dies_at_four),
      self.assertRaises(interrupted.Killed),
    ):
      train_reward.run(config, workdir, profile=False)
    index = json.loads(store.cat("s3://bucket/run/checkpoints/index.json"))
    self.assertEqual([*index], ["2"])
    train_reward.run(config, workdir, profile=False)
    for name in ("metrics.jsonl", "eval.json", "model/model.safetensors"):
      self.assertEqual(
        store.cat(f"s3://bucket/run/{name}"), (straight / name).read_bytes()
      )


if __name__ == "__main__":
  absltest.main()
