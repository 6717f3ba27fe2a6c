"""A config compiled for a TPU slice, as a user would from the command line."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest

from tests import checkout

if importlib.util.find_spec("libtpu") is None:
  pytest.skip("compiling for a TPU needs libtpu", allow_module_level=True)


def compile_for(
  *arguments: str, config: str = "rm_bt_crowd:smoke"
) -> subprocess.CompletedProcess:
  file, colon, variant = config.partition(":")
  return subprocess.run(
    [
      sys.executable,
      "-m",
      "jaxalign.experiments.compile",
      f"--config=configs/{file}.py{colon}{variant}",
      *arguments,
    ],
    cwd=checkout.ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "100"},
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )


class CompileTest(absltest.TestCase):
  def test_both_programs_of_a_policy(self):
    workdir = pathlib.Path(tempfile.mkdtemp())
    done = compile_for(
      "--stage=train_policy",
      "--topology=v5e:2x2",
      "--config.mesh.fsdp=2",
      f"--workdir={workdir}",
      config="policy_maxmin_crowd:smoke",
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])
    result = json.loads((workdir / "compile.json").read_text())
    sample, learn = result["programs"]
    self.assertEqual((sample["name"], learn["name"]), ("sample", "learn"))
    self.assertIn("kv_cache", sample["hbm_bytes"])
    self.assertNotIn("kv_cache", learn["hbm_bytes"])
    self.assertEqual(sample["rows"], [8, 48])
    self.assertEqual(learn["rows"], [8, 1, 72])
    # Forward of policy, reference and critic; four epochs of two networks.
    self.assertAlmostEqual(learn["flops"] / sample["flops"], 3 + 4 * 2 * 3)
    memory = learn["hbm_bytes"]
    # Policy, reference and critic; two moments of two of them.
    self.assertAlmostEqual(
      memory["optimizer"] / memory["parameters"], 4 / 3, delta=0.02
    )

  def test_a_sharded_step_for_four_chips(self):
    workdir = pathlib.Path(tempfile.mkdtemp())
    done = compile_for(
      "--topology=v5e:2x2", "--config.mesh.fsdp=2", f"--workdir={workdir}"
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])
    self.assertIn("v5e:2x2: 4 devices, data 2 x fsdp 2", done.stdout)
    result = json.loads((workdir / "compile.json").read_text())
    self.assertEqual(result["mesh"], {"data": 2, "fsdp": 2, "tensor": 1})
    self.assertTrue(result["fits"])
    (program,) = result["programs"]
    self.assertEqual(program["rows"], [8, 2, 128])
    memory = program["hbm_bytes"]
    # Float32, the matrices halved by fsdp; two moments, and padding aside.
    self.assertBetween(memory["parameters"], 20_000, 100_000)
    self.assertAlmostEqual(
      memory["optimizer"] / memory["parameters"], 2, delta=0.01
    )
    # Two pairs per device: ids and masks, and some columns.
    pairs = 2 * 2 * 128 * 5
    self.assertBetween(memory["batch"], pairs, pairs + 100)
    # A step this small keeps what it computes beside the chip's HBM.
    self.assertBetween(memory["activations"], 0, 1_000_000)
    self.assertEqual(
      memory["total"], sum(v for k, v in memory.items() if k != "total")
    )
    self.assertEqual(program["involuntary"], [])
    kinds = {message["kind"] for message in program["collectives"]}
    self.assertIn("all-reduce", kinds)

  def test_tuning_on_packed_texts(self):
    workdir = pathlib.Path(tempfile.mkdtemp())
    done = compile_for(
      "--stage=sft",
      "--topology=v5e:2x2",
      "--config.mesh.fsdp=2",
      f"--workdir={workdir}",
      config="sft_crowd:smoke",
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])
    result = json.loads((workdir / "compile.json").read_text())
    (program,) = result["programs"]
    self.assertEqual(program["rows"], [8, 128])
    self.assertEqual(result["mesh"], {"data": 2, "fsdp": 2, "tensor": 1})
    # The head over the vocabulary counts: a reward model has none.
    self.assertGreater(program["flops"], 3 * 8 * 128 * 2 * 32 * 256)

  def test_a_paper_scale_model_fits_sixteen_chips(self):
    folder = pathlib.Path(tempfile.mkdtemp())
    done = compile_for(
      "--topology=v5e:4x4",
      "--config.data.buckets=(256,)",
      "--config.data.max_length=256",
      "--config.train.batch_size=16",
      "--strict",
      f"--workdir={folder}",
      config="rm_bt_pythia_1_4b:shape",
    )
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr[-2000:])
    result = json.loads((folder / "compile.json").read_text())
    self.assertEqual(result["mesh"], {"data": 1, "fsdp": 16, "tensor": 1})
    (program,) = result["programs"]
    self.assertEqual(program["involuntary"], [])
    self.assertEqual(program["replicated"], [])
    weights = 24 * (4 * 2048**2 + 2 * 2048 * 8192) + 50304 * 2048
    memory = program["hbm_bytes"]
    self.assertAlmostEqual(
      memory["parameters"] / (4 * weights / 16), 1, delta=0.01
    )
    # Gathered forwards and backwards, and gradients scattered, in bfloat16.
    sent = sum(m["bytes"] * m["count"] for m in program["collectives"])
    layers = 24 * (4 * 2048**2 + 2 * 2048 * 8192)
    self.assertBetween(sent / (3 * 2 * layers), 1.0, 1.15)

  def test_what_does_not_fit_has_its_own_status_and_a_way_out(self):
    arguments = [
      "--topology=v5e:2x2",
      "--config.data.buckets=(2048,)",
      "--config.data.max_length=2048",
      "--config.train.batch_size=512",
    ]
    done = compile_for(*arguments)
    self.assertEqual(done.returncode, 3, done.stderr[-2000:])
    self.assertIn("DOES NOT FIT in 15.75 GiB", done.stdout)
    (flag,) = re.findall(r"--config.train.accumulation=\d+", done.stdout)
    again = compile_for(*arguments, flag)
    self.assertEqual(again.returncode, 0, again.stdout)

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
