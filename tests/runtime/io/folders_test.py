"""Folders are opened, filled and fetched alike on a disk and in a store."""

import contextlib
import os
import pathlib
import tempfile
from unittest import mock

import fsspec
import pytest
from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import filesystem
from tests import gcs_server, object_store


class FoldersTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.store = object_store.install()

  def test_a_workdir_is_made_and_left_as_it_was(self):
    path = self.folder / "deep" / "run"
    self.assertEqual(filesystem.open_workdir(path), epath.Path(path))
    self.assertEqual([*path.iterdir()], [])
    filesystem.open_workdir(path)
    filesystem.open_workdir("s3://bucket/run")
    self.assertEqual(self.store.find("s3://bucket"), [])

  def test_a_relative_workdir_is_absolute_from_the_start(self):
    with contextlib.chdir(self.folder):
      found = filesystem.open_workdir("runs/mine")
    # Where the process goes later does not matter any more.
    self.assertTrue((self.folder / "runs" / "mine").is_dir())
    self.assertEqual(
      found, epath.Path(os.path.realpath(self.folder / "runs" / "mine"))
    )

  def test_the_home_folder_can_be_named(self):
    with mock.patch.dict(os.environ, HOME=str(self.folder)):
      found = filesystem.open_workdir("~/run")
    self.assertEqual(found, epath.Path(self.folder / "run"))
    self.assertTrue((self.folder / "run").is_dir())

  def test_a_store_without_its_client_is_named(self):
    with (
      mock.patch.object(
        fsspec, "get_filesystem_class", side_effect=ImportError("no gcsfs")
      ),
      self.assertRaisesRegex(ModuleNotFoundError, r"gcsfs: .*jaxalign\[cloud"),
    ):
      filesystem.open_workdir("gs://bucket/run")

  def test_other_stores_are_refused(self):
    for path in ("hf://a/b", "ftp://a/b"):
      with self.assertRaisesRegex(ValueError, f"{path}: must be a folder, gs"):
        filesystem.open_workdir(path)

  def test_files_appear_when_all_are_there(self):
    for target in (self.folder / "out", "s3://bucket/out"):
      for content in (b"old", b"new"):
        with filesystem.filled(target) as folder:
          (folder / "a").write_bytes(content)
          (folder / "b").write_bytes(content)
        self.assertEqual((epath.Path(target) / "b").read_bytes(), content)
    with (
      self.assertRaisesRegex(ValueError, "midway"),
      filesystem.filled("s3://bucket/out") as folder,
    ):
      (folder / "a").write_bytes(b"newer")
      raise ValueError("midway")
    self.assertEqual(self.store.cat("s3://bucket/out/a"), b"new")

  def test_a_fetched_folder_follows_its_files(self):
    self.assertEqual(filesystem.fetched(str(self.folder)), str(self.folder))
    self.store.pipe("s3://bucket/model/a", b"one")
    first = filesystem.fetched("s3://bucket/model")
    self.assertEqual(pathlib.Path(first, "a").read_bytes(), b"one")
    self.assertEqual(filesystem.fetched("s3://bucket/model"), first)
    self.store.pipe("s3://bucket/model/a", b"other")
    other = filesystem.fetched("s3://bucket/model")
    self.assertEqual(pathlib.Path(other, "a").read_bytes(), b"other")
    with self.assertRaisesRegex(ValueError, "s3://bucket/none holds no files"):
      filesystem.fetched("s3://bucket/none")


class RefusedWorkdirTest(absltest.TestCase):
  """A workdir that cannot be one, in one line."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def test_a_file(self):
    file = self.folder / "notes"
    file.write_text("")
    for path in (file, file / "run"):
      with self.assertRaisesRegex(OSError, f"^workdir {path}: {file} is a fil"):
        filesystem.open_workdir(path)

  def test_no_rights(self):
    with (
      mock.patch.object(os, "access", return_value=False),
      self.assertRaisesRegex(OSError, "no permission to write there"),
    ):
      filesystem.open_workdir(self.folder)
    refused = PermissionError(13, "Permission denied")
    with (
      mock.patch.object(os, "mkdir", side_effect=refused),
      self.assertRaisesRegex(OSError, "^workdir .*/run: Permission denied$"),
    ):
      filesystem.open_workdir(self.folder / "run")

  def test_no_network(self):
    store = object_store.install()
    with (
      mock.patch.object(type(store), "_open", side_effect=ConnectionError("x")),
      self.assertRaisesRegex(OSError, "^workdir s3.*: no connection, so check"),
    ):
      filesystem.open_workdir("s3://bucket/run")
    with (
      mock.patch.object(type(store), "ls", side_effect=ConnectionError("x")),
      self.assertRaisesRegex(ValueError, "^s3://bucket/m: no connection, so"),
    ):
      filesystem.fetched("s3://bucket/m")


class BucketTest(absltest.TestCase):
  """What only a server can refuse."""

  def setUp(self):
    super().setUp()
    self.server = gcs_server.started(self, "bucket", "closed")
    self.server.closed.add("closed")

  def test_a_bucket_is_tried_before_anything_is_computed(self):
    filesystem.open_workdir("gs://bucket/run")
    self.assertEqual(self.server.names("bucket"), [])
    with self.assertRaisesRegex(OSError, "no bucket gs://none; make it first"):
      filesystem.open_workdir("gs://none/run")
    with self.assertRaisesRegex(OSError, "must be allowed to: Forbidden.*"):
      filesystem.open_workdir("gs://closed/run")

  def test_what_others_write_is_seen(self):
    run = filesystem.open_workdir("gs://bucket/run")
    (run / "a").write_bytes(b"mine")
    self.assertEqual([path.name for path in run.iterdir()], ["a"])
    self.server.put("bucket", "run/b", b"of another host", {})
    self.assertTrue((run / "b").exists())

  @pytest.mark.filterwarnings("ignore:Sending a large body")  # of gcsfs
  def test_a_large_file_goes_there_and_back(self):
    content = os.urandom(12_000_000)  # several parts
    with filesystem.filled("gs://bucket/model") as folder:
      (folder / "weights").write_bytes(content)
    self.assertEqual(self.server.read("bucket", "model/weights"), content)
    copy = pathlib.Path(filesystem.fetched("gs://bucket/model"), "weights")
    self.assertEqual(copy.read_bytes(), content)


if __name__ == "__main__":
  absltest.main()
