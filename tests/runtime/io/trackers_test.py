"""Trackers beside the metric writer, offline, with the packages themselves."""

import importlib.util
import os
import pathlib
import sys
import tempfile
import time
import types
import unittest
import warnings
from unittest import mock

from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import metric_writer, trackers


class Fake:
  """A tracker's module; `fails` names the call that raises."""

  Settings = dict

  def __init__(self, fails=None):
    self.fails, self.opened, self.rows = fails, [], []
    self.finished = 0

  def init(self, **options):
    self._call("init")
    self.opened.append(options)
    return types.SimpleNamespace(log=self.log, finish=self.finish)

  def log(self, values, step):
    self._call("log")
    self.rows.append((step, values))

  def finish(self):
    self.finished += 1

  def _call(self, name):
    if name == self.fails:
      raise OSError("no network")


def run(workdir, *names, start=0):
  with metric_writer.MetricWriter(
    workdir, start_step=start, num_steps=2, is_main=True, trackers=names
  ) as out:
    out.write(1, {"train/loss": 0.5})
    out.write(2, {"train/loss": float("nan")})
    out.write_speed(2, {"speed/steps_per_second": 3.0})
    out.flush()


def found(fake):
  """`fake` in place of both packages."""
  spec = importlib.util.find_spec
  return (
    mock.patch.object(
      importlib.util,
      "find_spec",
      lambda name: name in trackers.NAMES or spec(name),
    ),
  )


def _restore(name, module):
  sys.modules.pop(name)
  if module is not None:
    sys.modules[name] = module


class TrackersTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp()) / "runs/mine"

  def with_fake(self, fake):
    for patch in found(fake):
      self.enter_context(patch)
    for name in trackers.NAMES:
      before = sys.modules.get(name)
      sys.modules[name] = fake
      # By hand: what else is imported meanwhile stays.
      self.addCleanup(_restore, name, before)
    return fake

  def test_a_tracker_gets_every_row(self):
    fake = self.with_fake(Fake())
    with mock.patch.dict(os.environ, WANDB_PROJECT="theirs"):
      run(self.workdir, "wandb")
    steps, values = zip(*fake.rows, strict=True)
    self.assertEqual(steps, (1, 2, 2))
    self.assertEqual(values[0], {"train/loss": 0.5})
    self.assertEqual(values[2], {"speed/steps_per_second": 3.0})
    self.assertEqual(fake.finished, 1)
    (options,) = fake.opened
    self.assertEqual((options["project"], options["name"]), ("theirs", "mine"))

  def test_a_workdir_is_one_run_and_another_one_another(self):
    fake = self.with_fake(Fake())
    other = self.workdir.parent.parent / "other/mine"
    for workdir in (self.workdir, self.workdir, other):
      run(workdir, "wandb", "trackio")
    for tracker, key in ((0, "id"), (1, "name")):
      ids = [options[key] for options in fake.opened[tracker::2]]
      self.assertEqual(ids[0], ids[1])
      self.assertNotEqual(ids[0], ids[2])

  def test_a_tracker_that_fails_costs_itself_alone(self):
    for fails in ("init", "log"):
      fake = self.with_fake(Fake(fails))
      with self.assertLogs(trackers.__name__, "WARNING") as logs:
        run(self.workdir, "wandb")
      self.assertLen(logs.output, 1)
      self.assertIn("wandb failed and gets no more metrics", logs.output[0])
      self.assertIn("OSError: no network", logs.output[0])
      self.assertEqual(fake.rows, [])
      rows = metric_writer.read_rows(self.workdir / "metrics.jsonl")
      self.assertEqual([row["step"] for row in rows], [1, 2])

  def test_without_trackers_none_is_imported(self):
    fake = self.with_fake(Fake())
    run(self.workdir)
    self.assertEqual(fake.opened, [])

  def test_an_unknown_tracker_is_an_error_at_the_start(self):
    with self.assertRaisesRegex(ValueError, "trackers must be .*wandb.*'mlf"):
      run(self.workdir, "mlflow")
    absent = mock.patch.object(importlib.util, "find_spec", lambda name: None)
    with absent, self.assertRaisesRegex(ValueError, "pip install trackio"):
      run(self.workdir, "trackio")
    self.assertFalse(self.workdir.exists())


class OfflineTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = epath.Path(tempfile.mkdtemp())
    self.enter_context(
      mock.patch.dict(
        os.environ,
        WANDB_MODE="offline",
        TRACKIO_DIR=str(self.folder / "trackio"),
      )
    )
    # Those of the trackers are theirs to mend.
    self.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")

  @unittest.skipUnless(importlib.util.find_spec("wandb"), "needs wandb")
  def test_wandb(self):
    with self.assertNoLogs(trackers.__name__, "WARNING"):
      run(self.folder / "mine", "wandb")
    (file,) = (self.folder / "mine").glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 20
    while b"speed/steps" not in (content := file.read_bytes()):
      self.assertLess(time.monotonic(), end, content)
      time.sleep(0.1)  # another process writes it
    self.assertIn(b"train/loss", content)

  @unittest.skipUnless(importlib.util.find_spec("trackio"), "needs trackio")
  def test_trackio(self):
    with self.assertNoLogs(trackers.__name__, "WARNING"):
      run(self.folder / "mine", "trackio")
    files = [*pathlib.Path(self.folder).rglob("*.db")]
    self.assertNotEmpty(files)
    self.assertTrue(any(b"train/loss" in file.read_bytes() for file in files))


if __name__ == "__main__":
  absltest.main()
