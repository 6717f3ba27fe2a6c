"""A run whose whole workdir is on gs://, killed on the way: as on a disk."""

import os
import pathlib
import signal

import pytest
from absl.testing import absltest
from etils import epath

from jaxalign.experiments import train_reward
from tests import gcs_server
from tests.experiments import chaos, chaos_test, train_reward_test

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

  def test_a_store_without_checkpoints_is_refused_before_data_is_read(self):
    config = train_reward_test.smoke_config(
      data__train_files=("no/such/file.jsonl",)
    )
    with self.assertRaisesRegex(ValueError, "cannot be kept in s3://bucket/r"):
      train_reward.run(config, epath.Path("s3://bucket/run"), profile=False)

  @pytest.mark.slow
  def test_five_kills_in_each_phase(self):
    self.check_kills(5)


if __name__ == "__main__":
  absltest.main()
