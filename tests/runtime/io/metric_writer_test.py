"""A resumed run's metrics equal an uninterrupted run's, byte for byte."""

import json
import math
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from tensorboardX.proto import event_pb2

from jaxalign.runtime.io import metric_writer
from tests import checkout, object_store

STEPS = 8


def values(step):
  return {"train/loss": 1 / (step + 1), "train/accuracy": math.sin(step)}


def run(workdir, start, end, checkpoint_every=3):
  """Steps start+1..end of a run of STEPS; gives the last checkpoint's step."""
  saved = start
  with metric_writer.MetricWriter(
    workdir,
    start_step=start,
    num_steps=STEPS,
    is_main=True,
    show_progress=True,
  ) as out:
    if start == 0:
      out.write(0, {"eval/nll": 0.7})
    for step in range(start + 1, end + 1):
      out.write(step, values(step))
      out.write_speed(step, {"speed/steps_per_second": time.time()})
      if step % checkpoint_every == 0:
        out.write(step, {"eval/nll": 0.7 / step})
        out.flush()
        saved = step
  return saved


def events(folder):
  """The events of every TensorBoard file, in the order TensorBoard reads."""
  found = []
  for path in sorted(pathlib.Path(folder).iterdir()):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (size,) = struct.unpack_from("<Q", data, at)
      found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + size]))
      at += 16 + size
  return found


class TestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.metrics = self.workdir / "metrics.jsonl"


class ResumeTest(TestCase):
  def setUp(self):
    super().setUp()
    straight = self.workdir / "straight"
    run(straight, 0, STEPS)
    self.expected = (straight / "metrics.jsonl").read_bytes()

  def test_every_place_of_a_kill_gives_the_same_bytes(self):
    run(self.workdir, 0, 5)
    whole = self.metrics.read_bytes()
    step_3_done = whole.index(b'{"step": 4')
    with (  # what is not at stake here costs time
      mock.patch.object(metric_writer.event_file, "EventFile"),
      mock.patch.object(metric_writer.progress_bar, "Progress"),
      mock.patch.object(os, "fsync"),
    ):
      for cut in range(step_3_done, len(whole) + 1):
        self.metrics.write_bytes(whole[:cut])
        run(self.workdir, 3, STEPS)
        self.assertEqual(self.metrics.read_bytes(), self.expected, cut)

  @parameterized.parameters(0, 3, 7)
  def test_zeros_of_a_lost_block_are_torn_too(self, start):
    run(self.workdir, 0, STEPS)
    with self.metrics.open("ab") as file:
      file.write(bytes(100))
    run(self.workdir, start, STEPS)
    self.assertEqual(self.metrics.read_bytes(), self.expected)

  def test_a_line_that_lacks_only_its_end_is_kept(self):
    self.metrics.write_bytes(b'{"step": 1, "a": 2.0}')
    run(self.workdir, 1, 1)
    self.assertEqual(self.metrics.read_bytes(), b'{"step": 1, "a": 2.0}\n')

  def test_rows_that_are_lost_are_told(self):
    folder = self.workdir / "lost"
    self.assertEqual(run(folder, 0, 6), 6)
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    with self.assertNoLogs("jaxalign.runtime.io.metric_writer"):
      run(folder, 6, 6)
    kept = [line for line in lines if json.loads(line)["step"] not in (2, 3, 5)]
    path.write_bytes(b"".join(kept))
    with self.assertLogs(
      "jaxalign.runtime.io.metric_writer", "WARNING"
    ) as logs:
      run(folder, 6, 8)
    self.assertIn("no rows of 3 steps from 2 to 5, and this", logs.output[0])
    path.unlink()
    with self.assertLogs(
      "jaxalign.runtime.io.metric_writer", "WARNING"
    ) as logs:
      run(folder, 6, 8)
    self.assertIn("no rows of 6 steps from 1 to 6", logs.output[0])

  def test_start_from_nothing_forgets_step_0_as_well(self):
    run(self.workdir, 0, 2)
    run(self.workdir, 0, STEPS)
    self.assertEqual(self.metrics.read_bytes(), self.expected)

  def test_rows_reach_the_disk_before_a_kill(self):
    program = textwrap.dedent("""
      import sys, time
      from jaxalign.runtime.io import metric_writer
      with metric_writer.MetricWriter(
        sys.argv[1], start_step=0, num_steps=9, is_main=True
      ) as out:
        for step in range(1, 6):
          out.write(step, {"loss": 0.5})
        sys.stdout.write("ready" if "torch" not in sys.modules else "torch")
        sys.stdout.flush()
        time.sleep(60)
    """)
    with subprocess.Popen(
      [sys.executable, "-c", program, self.workdir],
      cwd=checkout.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
    ) as process:
      self.assertEqual(process.stdout.read(5), b"ready")
      process.send_signal(signal.SIGKILL)
    rows = metric_writer.read_rows(self.metrics)
    self.assertEqual([row["step"] for row in rows], [1, 2, 3, 4, 5])

  def test_clock_readings_stay_out_and_are_trimmed_too(self):
    run(self.workdir, 0, 5)
    run(self.workdir, 3, STEPS)
    rows = metric_writer.read_rows(self.workdir / "speed.jsonl")
    self.assertEqual([row["step"] for row in rows], list(range(1, STEPS + 1)))
    self.assertNotIn(b"speed", self.metrics.read_bytes())

  def test_damage_that_no_kill_makes_is_an_error(self):
    self.metrics.write_bytes(b'{"step": 1}\n{"ste\n{"step": 3}\n')
    for read in (
      lambda: run(self.workdir, 3, 3),
      lambda: metric_writer.read_rows(self.metrics),
    ):
      with self.assertRaisesRegex(ValueError, r"metrics\.jsonl:2: not a row"):
        read()

  def test_a_kill_while_trimming_leaves_the_old_file(self):
    run(self.workdir, 0, 5)
    before = self.metrics.read_bytes()
    with (
      mock.patch.object(os, "replace", side_effect=KeyboardInterrupt),
      self.assertRaises(KeyboardInterrupt),
    ):
      run(self.workdir, 3, STEPS)
    self.assertEqual(self.metrics.read_bytes(), before)


class RowTest(TestCase):
  def open(self, **options):
    defaults = {"start_step": 0, "num_steps": 4, "is_main": True}
    return metric_writer.MetricWriter(self.workdir, **{**defaults, **options})

  def test_keys_are_sorted_after_the_step(self):
    with self.open() as out:
      out.write(np.int64(1), {"b": np.float32(0.1), "a/x": 1})
    self.assertEqual(
      self.metrics.read_bytes(),
      b'{"step": 1, "a/x": 1.0, "b": 0.10000000149011612}\n',
    )

  def test_non_finite_values_are_standard_json_and_come_back(self):
    row = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}
    with self.open() as out:
      out.write(2, row)

    def refuse(name):
      raise ValueError(f"{name} is not JSON")

    json.loads(self.metrics.read_bytes(), parse_constant=refuse)
    (back,) = metric_writer.read_rows(self.metrics)
    np.testing.assert_equal(back, {"step": 2, **row})

  def test_step_is_no_metric(self):
    with self.open() as out, self.assertRaisesRegex(ValueError, "'step'"):
      out.write(1, {"step": 2.0})

  def test_other_processes_leave_no_trace(self):
    with self.open(is_main=False, show_progress=True) as out:
      out.write(1, {"a": 1.0})
      out.write_speed(1, {"a": 1.0})
      out.advance(1, tokens=8, loss=0.5)
      out.flush()
      self.assertEqual(out.speed(), {})
    self.assertEmpty(list(self.workdir.iterdir()))

  def test_start_past_the_end_is_refused(self):
    with self.assertRaisesRegex(ValueError, r"num_steps=4\], got 5"):
      self.open(start_step=5)

  def test_reader_leaves_out_a_line_in_the_making(self):
    self.metrics.write_bytes(b'{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    self.assertEqual(
      metric_writer.read_rows(self.metrics), [{"step": 1, "a": 2.0}]
    )

  def test_speed_knows_rates_and_memory(self):
    now = mock.patch.object(time, "monotonic", side_effect=range(1000))
    with now, self.open() as out:
      out.advance(1, tokens=100)
      out.advance(2, tokens=100)
      speed = out.speed()
    self.assertAlmostEqual(
      speed["speed/tokens_per_second"] / speed["speed/steps_per_second"], 100
    )
    self.assertGreater(speed["speed/host_memory_bytes"], 2**20)
    self.assertNotIn("speed/device_memory_bytes", speed)


class TensorBoardTest(TestCase):
  def test_scalars_and_the_point_of_resumption(self):
    run(self.workdir, 0, 5)
    run(self.workdir, 3, 4)
    found = events(self.workdir / "tensorboard")
    scalars = [
      (e.step, v.tag, v.simple_value) for e in found for v in e.summary.value
    ]
    self.assertIn((1, "train/loss", 0.5), scalars)
    self.assertEqual([s[:2] for s in scalars].count((4, "train/loss")), 2)
    starts = [
      e.step
      for e in found
      if e.session_log.status == event_pb2.SessionLog.START
    ]
    self.assertEqual(starts, [0, 4])


class ObjectStoreTest(TestCase):
  def setUp(self):
    super().setUp()
    self.store = object_store.install()

  def test_resumed_object_equals_an_uninterrupted_file(self):
    run(self.workdir, 0, STEPS)
    run("s3://bucket/run", 0, 5)
    run("s3://bucket/run", 3, STEPS)
    self.assertEqual(
      self.store.cat("s3://bucket/run/metrics.jsonl"), self.metrics.read_bytes()
    )
    boards = self.store.ls("s3://bucket/run/tensorboard", detail=False)
    self.assertLen(boards, 2)
    for path in boards:
      (self.workdir / path.split("/")[-1]).write_bytes(self.store.cat(path))
      self.assertIn(b"train/loss", self.store.cat(path))


if __name__ == "__main__":
  absltest.main()
