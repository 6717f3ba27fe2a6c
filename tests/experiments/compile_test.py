"""A config compiled for a TPU slice, as a user would from the command line."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest

from tests import checkout

if importlib.util.find_spec("libtpu") is None:
  pytest.skip("compiling for a TPU needs libtpu", allow_module_level=True)


def compile_for(
  *arguments: str, config: str = "rm_bt_crowd"
) -> subprocess.CompletedProcess:
  return subprocess.run(
    [
      sys.executable,
      "-m",
      "jaxalign.experiments.compile",
      f"--config=configs/{config}.py:smoke",
      *arguments,
    ],
    cwd=checkout.ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "100"},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


class CompileTest(absltest.TestCase):
  def test_a_sharded_step_for_four_chips(self):
    workdir = pathlib.Path(tempfile.mkdtemp())
    done = compile_for(
      "--topology=v5e:2x2", "--config.mesh.fsdp=2", f"--workdir={workdir}"
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])
    self.assertIn("v5e:2x2: 4 devices, data 2 x fsdp 2", done.stdout)
    result = json.loads((workdir / "compile.json").read_text())
    self.assertEqual(result["mesh"], {"data": 2, "fsdp": 2, "tensor": 1})
    self.assertEqual(result["batch"], [8, 2, 128])
    memory = result["hbm_bytes"]
    # Parameters and two moments in float32, the matrices halved by fsdp.
    self.assertBetween(memory["arguments"], 50_000, 400_000)
    self.assertEqual(
      memory["total"],
      memory["arguments"]
      + memory["temporaries"]
      + memory["outputs"]
      - memory["aliases"],
    )
    self.assertGreater(memory["aliases"], 0.9 * memory["outputs"])
    self.assertTrue(result["fits"])
    kinds = {message["kind"] for message in result["collectives"]}
    self.assertIn("all-reduce", kinds)

  def test_tuning_on_packed_texts(self):
    workdir = pathlib.Path(tempfile.mkdtemp())
    done = compile_for(
      "--stage=sft",
      "--topology=v5e:2x2",
      "--config.mesh.fsdp=2",
      f"--workdir={workdir}",
      config="sft_crowd",
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])
    result = json.loads((workdir / "compile.json").read_text())
    self.assertEqual(result["batch"], [8, 128])
    self.assertEqual(result["mesh"], {"data": 2, "fsdp": 2, "tensor": 1})
    # The head over the vocabulary counts: a reward model has none.
    self.assertGreater(result["flops"], 3 * 8 * 128 * 2 * 32 * 256)

  def test_pmap_is_refused_by_name(self):
    done = compile_for(
      "--topology=v5e:2x2",
      "--config.train.parallel=pmap",
      "--config.mesh.data=4",
    )
    self.assertNotEqual(done.returncode, 0)
    self.assertIn("train.parallel", done.stderr)

  def test_an_unknown_slice_is_refused_by_name(self):
    done = compile_for("--topology=v5e-16")
    self.assertNotEqual(done.returncode, 0)
    self.assertIn("v5e-16", done.stderr)


if __name__ == "__main__":
  absltest.main()
