"""Temporary folders go with their process, or with the next one."""

import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest

from jaxalign.runtime.io import scratch
from tests import checkout

KILLED = """
import os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from jaxalign.runtime.io import scratch
(scratch.Folder("model").path / "weights").write_text("large")
os.kill(os.getpid(), 9)
"""


class ScratchTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.place = pathlib.Path(tempfile.mkdtemp())
    self.enter_context(mock.patch.object(tempfile, "tempdir", str(self.place)))

  def age(self, path):
    os.utime(path, (0, 0))

  def test_closing_removes_it(self):
    made = scratch.Folder("a")
    (made.path / "b").write_text("c")
    made.close()
    made.close()
    self.assertEmpty(list(self.place.iterdir()))

  def test_what_a_kill_left_goes_and_what_is_in_use_stays(self):
    command = [sys.executable, "-c", KILLED, str(self.place)]
    subprocess.run(command, cwd=checkout.ROOT, check=False)
    (left,) = self.place.iterdir()
    self.assertTrue((left / "weights").exists())
    used = scratch.Folder("b")
    self.addCleanup(used.close)
    self.assertTrue(left.exists())  # too young to tell
    others = self.place / "jaxalign.without_a_lock"
    others.mkdir()
    for path in (left, used.path, others):
      self.age(path)
    made = scratch.Folder("c")
    self.addCleanup(made.close)
    self.assertEqual({*self.place.iterdir()}, {used.path, others, made.path})


if __name__ == "__main__":
  absltest.main()
