"""A policy run on two processes is the run on one."""

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.numpy
from absl.testing import absltest
from etils import epath

from jaxalign.runtime import writer
from tests import checkout
from tests.runtime import hosts_test

DEVICES = 4


class PolicyHostsTest(absltest.TestCase):
  def start(self, workdir, processes, *flags):
    """Runs the smoke policy on four devices, `processes` of a host each."""
    command = [
      sys.executable,
      "-m",
      "jaxalign.experiments.train_policy",
      "--config=configs/policy_maxmin_crowd.py:smoke",
      f"--workdir={workdir}",
      f"--coordinator=127.0.0.1:{hosts_test.free_port()}",
      f"--num_processes={processes}",
      "--config.mesh.data=2",
      "--config.mesh.fsdp=2",
      "--config.sampling.max_new_tokens=8",
      "--config.train.num_iterations=2",
      *flags,
    ]
    run = [
      subprocess.Popen(
        [*command, f"--process_id={number}"],
        cwd=checkout.ROOT,
        env=os.environ
        | {
          "XLA_FLAGS": "",
          "JAX_PLATFORMS": "cpu",
          "JAX_NUM_CPU_DEVICES": str(DEVICES // processes),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for number in range(processes)
    ]
    for process in run:  # whatever the test does, none is left behind
      self.addCleanup(process.kill)
    outputs = [process.communicate(timeout=900)[0] for process in run]
    for process, output in zip(run, outputs, strict=True):
      self.assertEqual(process.returncode, 0, output[-3000:])

  def test_one_and_two_processes_agree(self):
    folder = pathlib.Path(tempfile.mkdtemp())
    found = {}
    for processes in (1, 2):
      workdir = folder / f"on{processes}"
      self.start(workdir, processes)
      rows = writer.read_rows(epath.Path(workdir / "metrics.jsonl"))
      weights = safetensors.numpy.load_file(workdir / "model/model.safetensors")
      found[processes] = rows, weights
    (alone, params), (together, others) = found[1], found[2]
    self.assertEqual(len(alone), len(together))
    for one, two in zip(alone, together, strict=True):
      self.assertEqual(one.keys(), two.keys())
      for name, value in one.items():
        np.testing.assert_allclose(
          two[name], value, rtol=1e-4, atol=1e-5, err_msg=name
        )
    for name, value in params.items():
      np.testing.assert_allclose(others[name], value, atol=1e-5, err_msg=name)


if __name__ == "__main__":
  absltest.main()
