"""One run per workdir; a second one is told whose it is."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import filesystem, workdir_lock
from tests import checkout, gcs_server, object_store

# Holds a workdir until its standard input ends, or it is killed.
HOLDER = """
import sys
from etils import epath
from jaxalign.runtime.io import workdir_lock
with workdir_lock.held(epath.Path(sys.argv[1]), is_main=True):
  sys.stdout.write("held\\n")
  sys.stdout.flush()
  sys.stdin.read()
"""


class DiskTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())

  def test_another_process_is_named_and_a_killed_one_is_not_in_the_way(self):
    with subprocess.Popen(
      [sys.executable, "-c", HOLDER, str(self.workdir)],
      cwd=checkout.ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    ) as other:
      self.assertEqual(other.stdout.readline(), "held\n")
      message = (
        f"{self.workdir} is in use by process {other.pid} on "
        f"{socket.gethostname()} since .*use a new --workdir"
      )
      with (
        self.assertRaisesRegex(ValueError, message),
        workdir_lock.held(self.workdir, is_main=True),
      ):
        self.fail("two hold it")
      other.kill()
    with workdir_lock.held(self.workdir, is_main=True):
      owner = json.loads((self.workdir / workdir_lock.LOCK).read_text())
      self.assertEqual(owner["pid"], os.getpid())

  def test_it_is_free_afterwards_also_after_an_error(self):
    for _ in range(2):
      with (
        self.assertRaises(KeyError),
        workdir_lock.held(self.workdir, is_main=True),
      ):
        raise KeyError

  def test_the_other_hosts_of_a_run_share_it(self):
    with (
      workdir_lock.held(self.workdir, is_main=True),
      workdir_lock.held(self.workdir, is_main=False),
    ):
      self.assertTrue((self.workdir / workdir_lock.LOCK).exists())

  def test_a_file_system_without_locks_is_a_warning(self):
    unable = OSError(workdir_lock.errno.ENOLCK, "No locks available")
    with (
      mock.patch.object(workdir_lock.fcntl, "flock", side_effect=unable),
      self.assertLogs("jaxalign.runtime.io.workdir_lock") as logs,
      workdir_lock.held(self.workdir, is_main=True),
    ):
      pass
    self.assertIn("without locks", logs.output[0])


class StoreTest(absltest.TestCase):
  """An owner object with a heartbeat; `beat_s` and `dead_s` are short here."""

  def setUp(self):
    super().setUp()
    self.store = object_store.install()
    self.workdir = epath.Path("s3://bucket/run")

  def held(self, beat_s=0.02, dead_s=60.0):
    return workdir_lock.held(
      self.workdir, is_main=True, beat_s=beat_s, dead_s=dead_s
    )

  def owner(self):
    return json.loads((self.workdir / workdir_lock.OWNER).read_text())

  def test_a_living_owner_is_named(self):
    with self.held():
      pid = os.getpid()
      with (
        self.assertRaisesRegex(
          ValueError, f"{self.workdir} is in use by process {pid} on "
        ),
        self.held(),
      ):
        self.fail("two hold it")
      self.assertEqual(self.owner()["pid"], pid)
    self.assertFalse((self.workdir / workdir_lock.OWNER).exists())

  def test_a_dead_owner_makes_room(self):
    left = {"host": "gone", "pid": 1, "since": "then", "token": "a", "beats": 1}
    (self.workdir / workdir_lock.OWNER).write_text(json.dumps(left))
    with self.held(dead_s=0.05):
      self.assertEqual(self.owner()["pid"], os.getpid())

  def test_an_owner_that_leaves_makes_room(self):
    left = {"host": "going", "pid": 1, "since": "then", "token": "a"}
    (self.workdir / workdir_lock.OWNER).write_text(json.dumps(left))
    # Were it waited for until it counts as dead, this would take a minute.
    sleep = lambda _: (self.workdir / workdir_lock.OWNER).unlink(
      missing_ok=True
    )
    with mock.patch.object(workdir_lock.time, "sleep", sleep), self.held():
      self.assertEqual(self.owner()["pid"], os.getpid())

  def test_who_was_taken_for_dead_ends(self):
    reasons, ended = [], workdir_lock.threading.Event()

    def end(reason):
      reasons.append(reason)
      ended.set()

    with mock.patch.object(workdir_lock, "_end", end), self.held():
      other = {"host": "next", "pid": 7, "since": "now", "token": "b"}
      (self.workdir / workdir_lock.OWNER).write_text(json.dumps(other))
      self.assertTrue(ended.wait(60))
    self.assertIn("in use by process 7 on next since now", reasons[0])
    self.assertEqual(self.owner(), other)  # it is theirs to remove


class BucketTest(StoreTest):
  """The same through the client of gs://."""

  def setUp(self):
    super().setUp()
    self.server = gcs_server.started(self, "bucket")
    self.workdir = filesystem.open_workdir("gs://bucket/run")

  def test_nothing_stays_in_the_bucket(self):
    with self.held():
      self.assertEqual(self.server.names("bucket"), ["run/owner.json"])
    self.assertEmpty(self.server.names("bucket"))

  def test_only_one_of_two_that_come_at_once_makes_the_object(self):
    owners = [
      workdir_lock._Owner(self.workdir, beat_s=1.0, dead_s=1.0)
      for _ in range(2)
    ]
    self.assertEqual([owner._create() for owner in owners], [True, False])


class ProgramTest(absltest.TestCase):
  def test_a_stage_refuses_a_workdir_that_is_in_use(self):
    workdir = pathlib.Path(tempfile.mkdtemp())
    with workdir_lock.held(epath.Path(workdir), is_main=True):
      done = subprocess.run(
        [
          *(sys.executable, "-m", "jaxalign.experiments.tabular"),
          "--config=configs/tabular_navigation.py:smoke",
          f"--workdir={workdir}",
        ],
        cwd=checkout.ROOT,
        capture_output=True,
        text=True,
      )
    self.assertNotEqual(done.returncode, 0)
    self.assertIn(f"is in use by process {os.getpid()}", done.stderr)
    self.assertEqual([p.name for p in workdir.iterdir()], [workdir_lock.LOCK])


if __name__ == "__main__":
  absltest.main()
