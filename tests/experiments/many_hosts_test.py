"""Real processes over gloo: one curve, one reason to end, one step to leave."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import metric_writer
from tests import checkout, gcs_server, tier
from tests.experiments import host_runs
from tests.runtime.distributed import multihost_test

STEPS = 60
COMPARED = ("metrics.jsonl", "model/model.safetensors", "eval.json")
SILENCE_S = host_runs.SILENCE_S


class ManyHostsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(tempfile.mkdtemp())
    cls.straight = cls.folder / "straight"
    cls.end(cls.start(cls.straight, 2))

  @classmethod
  def start(cls, workdir, processes, *flags):
    """Starts the processes of one run on four devices in all.

    Args:
      workdir: of the run.
      processes: how many.
      *flags: after those that all runs here have.

    Returns:
      The processes.
    """
    port = multihost_test.free_port()
    variables = os.environ | {
      "XLA_FLAGS": tier.xla_flags(),
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(4 // processes),
      "JAX_COMPILATION_CACHE_DIR": str(cls.folder / f"compiled{processes}"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [
      sys.executable,
      "-m",
      "jaxalign.experiments.train_reward",
      "--config=configs/rm_bt_crowd.py:smoke",
      f"--workdir={workdir}",
      f"--coordinator=127.0.0.1:{port}",
      f"--num_processes={processes}",
      f"--host_silence={SILENCE_S}",
      f"--config.train.num_steps={STEPS}",
      "--config.train.eval_every=30",
      "--config.train.checkpoint_every=20",
      "--config.train.num_reference=8",
      "--config.data.buckets=(128,)",
      "--config.eval.num_samples=5",
      "--config.mesh.data=2",
      "--config.mesh.fsdp=2",
      *flags,
    ]
    run = [
      subprocess.Popen(
        [*command, f"--process_id={number}"],
        cwd=checkout.ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for number in range(processes)
    ]
    for process in run:  # whatever a test does, none is left behind
      cls.addClassCleanup(process.kill)
    return run

  @staticmethod
  def end(run, expected=0):
    """Waits for all; their outputs."""
    outputs = [process.communicate(timeout=900)[0] for process in run]
    for process, output in zip(run, outputs, strict=True):
      if process.returncode != expected:
        raise AssertionError(f"{process.returncode}: {output[-3000:]}")
    return outputs

  def wait_for_step(self, workdir, step):
    """Returns once the run has written `step`."""
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
      if metrics.exists() and any(
        row["step"] >= step
        for row in metric_writer.read_rows(epath.Path(metrics))
      ):
        return
      time.sleep(0.02)
    self.fail(f"step {step} was not reached")

  def assert_same(self, workdir, straight):
    for name in COMPARED:
      self.assertEqual(
        (workdir / name).read_bytes(), (straight / name).read_bytes(), name
      )

  def test_metrics_come_from_process_0_once(self):
    rows = metric_writer.read_rows(epath.Path(self.straight / "metrics.jsonl"))
    steps = [row["step"] for row in rows if "train/loss" in row]
    self.assertEqual(steps, list(range(1, STEPS + 1)))
    for step in (self.straight / "checkpoints").iterdir():
      sums = (step / "state" / "SHA256SUMS").read_text()
      for process in (0, 1):  # each summed up what it wrote
        self.assertIn(f"  ocdbt.process_{process}/d/", sums)
    content = json.loads((self.straight / "eval.json").read_text())
    self.assertEqual(content["models"]["model"]["all"]["num_pairs"], 1000)

  def test_a_host_killed_mid_run_ends_all_and_the_curve_goes_on(self):
    workdir = self.folder / "killed"
    run = self.start(workdir, 2)
    self.wait_for_step(workdir, 5)
    run[1].kill()
    start = time.monotonic()
    output = run[0].communicate(timeout=600)[0]
    self.assertLess(time.monotonic() - start, 10 * SILENCE_S)
    self.assertEqual(run[0].returncode, 75, output[-3000:])
    self.assertIn("of process 1 on", output)
    run[1].communicate()
    self.end(self.start(workdir, 2))
    self.assert_same(workdir, self.straight)

  def test_four_hosts_show_the_rows_of_two_and_end_together(self):
    workdir = self.folder / "four"
    run = self.start(workdir, 4)
    self.wait_for_step(workdir, 5)
    run[2].kill()
    outputs = [process.communicate(timeout=600)[0] for process in run]
    statuses = [process.returncode for process in run]
    self.assertEqual(
      statuses, [75, 75, -signal.SIGKILL, 75], outputs[0][-3000:]
    )
    for number in (0, 1, 3):
      self.assertIn("of process 2 on", outputs[number])
    losses = lambda folder: [
      row["train/loss"]
      for row in metric_writer.read_rows(epath.Path(folder / "metrics.jsonl"))
      if "train/loss" in row
    ]
    found = losses(workdir)
    np.testing.assert_allclose(
      found, losses(self.straight)[: len(found)], rtol=1e-4
    )

  @pytest.mark.slow
  def test_two_hosts_in_a_bucket(self):
    store = gcs_server.started(self, "bucket")
    self.end(self.start("gs://bucket/run", 2))
    for name in COMPARED:
      self.assertEqual(
        store.read("bucket", f"run/{name}"),
        (self.straight / name).read_bytes(),
        name,
      )

  @pytest.mark.slow
  def test_a_host_asked_to_leave_takes_the_others_with_it(self):
    workdir = self.folder / "asked"
    run = self.start(workdir, 2, f"--config.train.checkpoint_every={STEPS}")
    self.wait_for_step(workdir, 2)
    run[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=600)[0] for process in run]
    statuses = [process.returncode for process in run]
    if statuses == [0, 0]:
      self.skipTest("the run was over before the notice had gone round")
    self.assertEqual(statuses, [75, 75], "\n".join(outputs)[-3000:])
    self.assertIn("is saved", outputs[0])
    self.end(self.start(workdir, 2, f"--config.train.checkpoint_every={STEPS}"))
    self.assert_same(workdir, self.straight)


class MetaRmHostsTest(host_runs.Case):
  stage = "train_reward"
  devices = 2
  flags = (
    "--config=configs/rm_metarm_crowd.py:smoke",
    "--config.train.num_steps=4",
    "--config.train.num_reference=8",
    "--config.data.buckets=(128,)",
    "--config.data.eval_files=()",
    "--config.mesh.data=2",
  )

  def test_two_hosts_with_fresh_responses_have_the_metrics_of_one_process(self):
    found = {}
    for processes in (1, 2):
      workdir = f"on{processes}"
      self.finish(workdir, processes)
      found[processes] = metric_writer.read_rows(
        epath.Path(self.folder / workdir / "metrics.jsonl")
      )
    alone, together = found[1], found[2]
    self.assertEqual(len(alone), len(together))
    self.assertIn("train/spread", alone[0])
    for one, two in zip(alone, together, strict=True):
      self.assertEqual(one.keys(), two.keys())
      for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-4, err_msg=name)


if __name__ == "__main__":
  absltest.main()
