"""Files that are whole at any moment, on a disk and in an object store."""

import os
import pathlib
import tempfile
import time
from unittest import mock

from absl.testing import absltest

from jaxalign.runtime.io import filesystem
from tests import object_store


class DiskTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder) / "log"

  def test_each_write_reaches_the_system_at_once(self):
    file = filesystem.AppendedFile(self.path)
    file.write(b"one\n")
    self.assertEqual(self.path.read_bytes(), b"one\n")
    file.close()
    file.close()  # harmless

  def test_old_bytes_stay_if_kept(self):
    self.path.write_bytes(b"old\n")
    for keep, expected in ((True, b"old\nnew\n"), (False, b"new\n")):
      file = filesystem.AppendedFile(self.path, keep=keep)
      file.write(b"new\n")
      file.close()
      self.assertEqual(self.path.read_bytes(), expected)

  def test_short_writes_are_completed(self):
    file = filesystem.AppendedFile(self.path)
    whole = file._file.write
    with mock.patch.object(file, "_file") as slow:
      slow.write.side_effect = lambda rest: whole(rest[:3])
      file.write(b"0123456789")
    file.close()
    self.assertEqual(self.path.read_bytes(), b"0123456789")

  def test_replacing_is_all_or_nothing(self):
    filesystem.write_atomically(self.path, b"first")
    with (
      mock.patch.object(os, "replace", side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      filesystem.write_atomically(self.path, b"second")
    self.assertEqual(self.path.read_bytes(), b"first")
    filesystem.write_atomically(self.path, b"second")
    self.assertEqual(self.path.read_bytes(), b"second")

  def test_local_and_remote_paths(self):
    self.assertTrue(filesystem.is_local(self.path))
    self.assertFalse(filesystem.is_local("gs://bucket/run"))


class ReplacedTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.store = object_store.install()

  def test_the_file_is_there_when_it_is_whole(self):
    for path in (self.folder / "out", "s3://bucket/out"):
      with filesystem.replaced(path) as file:
        file.write(b"one\n")
        self.assertFalse((self.folder / "out").exists())
        self.assertFalse(self.store.exists("s3://bucket/out"))
        file.write(b"two\n")
      found = (
        path.read_bytes()
        if isinstance(path, pathlib.Path)
        else self.store.cat(path)
      )
      self.assertEqual(found, b"one\ntwo\n")
      if isinstance(path, pathlib.Path):
        self.assertEqual(path.stat().st_mode & 0o777, 0o644)
        path.unlink()

  def test_what_failed_leaves_the_old_file_and_nothing_else(self):
    path = self.folder / "out"
    path.write_bytes(b"old")
    with (
      self.assertRaisesRegex(ValueError, "midway"),
      filesystem.replaced(path) as file,
    ):
      file.write(b"new")
      raise ValueError("midway")
    self.assertEqual([*self.folder.iterdir()], [path])
    self.assertEqual(path.read_bytes(), b"old")


class ObjectStoreTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.store = object_store.install()

  def test_replacing_needs_no_folder(self):
    filesystem.write_atomically("s3://bucket/a/b", b"whole")
    self.assertEqual(self.store.cat("s3://bucket/a/b"), b"whole")

  def test_flush_publishes_and_a_kill_loses_only_what_came_after(self):
    path = "s3://bucket/log"
    file = filesystem.AppendedFile(path)
    file.write(b"one\n")
    file.flush()
    file.write(b"two\n")
    self.assertEqual(self.store.cat(path), b"one\n")
    file.close()
    self.assertEqual(self.store.cat(path), b"one\ntwo\n")

  def test_rewriting_waits_its_time(self):
    with mock.patch.object(time, "monotonic") as now:
      now.return_value = 0.0
      file = filesystem.AppendedFile("s3://bucket/log", rewrite_s=60.0)
      file.write(b"one\n")
      self.assertFalse(self.store.exists("s3://bucket/log"))
      now.return_value = 61.0
      file.write(b"two\n")
      self.assertEqual(self.store.cat("s3://bucket/log"), b"one\ntwo\n")
      file.close()
