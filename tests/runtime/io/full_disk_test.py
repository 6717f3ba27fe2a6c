"""A full disk is told in one line, with the disk and the file."""

import errno
import os
import pathlib
import tempfile
from unittest import mock

import orbax.checkpoint as ocp
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.models.hf import weights
from jaxalign.runtime.io import checkpoint, filesystem
from tests.runtime.io import checkpoint_test

FULL = OSError(errno.ENOSPC, "No space left on device")


class FullDiskTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())

  def refused(self, path):
    return self.assertRaisesRegex(
      filesystem.FullDisk,
      rf"^no room on the disk /\S* \(\d+ MiB free.* for {path}",
    )

  def test_a_row_that_does_not_fit(self):
    if not os.path.exists("/dev/full"):
      self.skipTest("needs /dev/full")
    file = filesystem.AppendedFile("/dev/full")  # which is full indeed
    self.addCleanup(file._file.close)
    with self.refused("/dev/full"):
      file.write(b"row\n")

  def test_a_file_that_does_not_fit_leaves_the_older_one_and_no_half(self):
    path = self.folder / "a.json"
    path.write_text("old")
    with mock.patch.object(os, "fsync", side_effect=FULL), self.refused(path):
      filesystem.write_atomically(path, b"new")
    with (
      mock.patch.object(os, "fsync", side_effect=FULL),
      self.refused(path),
      filesystem.replaced(path) as file,
    ):
      file.write(b"new")
    self.assertEqual([p.name for p in self.folder.iterdir()], ["a.json"])
    self.assertEqual(path.read_text(), "old")

  def test_weights_that_do_not_fit(self):
    words = RuntimeError("I/O error: No space left on device (os error 28)")
    with (
      mock.patch.object(weights, "write_folder", side_effect=words),
      self.refused(self.folder / "model"),
      filesystem.filled(self.folder / "model") as folder,
    ):
      weights.write_folder(folder, {}, None, {})

  def test_a_checkpoint_that_does_not_fit(self):
    words = ValueError("RESOURCE_EXHAUSTED: Failed: No space left on device")
    with checkpoint.Checkpoints(
      self.folder, keep_last=1, keep_best=0, best_metric="eval/nll"
    ) as saved:
      with (
        mock.patch.object(ocp.CheckpointManager, "save", side_effect=words),
        self.refused(self.folder / "3"),
      ):
        saved.save(3, checkpoint_test.state(3), None)
      with (
        mock.patch.object(
          ocp.CheckpointManager, "wait_until_finished", side_effect=words
        ),
        self.refused(self.folder),
      ):
        saved.wait()

  @parameterized.parameters(
    OSError(errno.EACCES, "Permission denied"), KeyError("a")
  )
  def test_other_errors_stay_what_they_are(self, error):
    with (
      self.assertRaises(type(error)) as caught,
      filesystem.full_disk_named("/tmp"),
    ):
      raise error
    self.assertIs(caught.exception, error)

  def test_the_innermost_file_is_the_one_that_is_named(self):
    error = OSError(errno.EDQUOT, "Disk quota exceeded", "/var/tokens")
    with (
      self.refused("/var/tokens"),
      filesystem.full_disk_named(self.folder),
      filesystem.full_disk_named(self.folder / "b"),
    ):
      raise error

  def test_of_a_store_it_is_the_disk_of_the_copy(self):
    place = epath.Path("s3://bucket/model")
    with self.refused(tempfile.gettempdir()), filesystem.full_disk_named(place):
      raise FULL


if __name__ == "__main__":
  absltest.main()
