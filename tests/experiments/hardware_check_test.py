"""Hardware check on CPU devices: probe, page, and a real kill -9 in between."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import types

import jax
import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.experiments import hardware_check
from jaxalign.experiments.reports import hardware_check as page_of
from jaxalign.experiments.reward_model import device_probe
from tests import checkout
from tests.experiments import train_reward_test


def ended(status: int) -> dict:
  return hardware_check.Ended(status, 1.0, False)._asdict()


def trained(**changes) -> dict:
  """What kill_and_resume gives where all is well."""
  return {
    "straight": ended(0),
    "killed": ended(-signal.SIGKILL),
    "noticed": ended(75),
    "resumed": ended(0),
    "steps": 8,
    "killed_at": 4,
    "noticed_at": 5,
    "curve": {"rows": 8, "equal": 8, "more": False},
  } | changes


class ProbeTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.enter_context(mock_constant(device_probe, "STEPS", 3))
    self.enter_context(mock_constant(device_probe, "WARM_UP", 1))

  def test_measures_many_devices_against_one_cpu(self):
    config = train_reward_test.smoke_config(mesh__data=4, mesh__fsdp=2)
    (self.workdir / "killed").mkdir()
    rank_file = self.workdir / "rank"
    device_probe.run(config, self.workdir, rank_file=str(rank_file))
    found = json.loads((self.workdir / "probe.json").read_text())
    self.assertEqual(rank_file.read_text(), "0")
    self.assertFalse((self.workdir / "killed").exists())
    self.assertEqual(found["mesh"], {"data": 4, "fsdp": 2, "tensor": 1})
    self.assertEqual(
      [(row["devices"], row["kind"]) for row in found["hosts"]], [(8, "cpu")]
    )
    default, highest = found["goldens"]
    for row in (default, highest):
      self.assertTrue(row["passed"])
      # 8 CPU devices and 1 differ by the order of a sum.
      self.assertLess(row["gap"], 1e-5)
      self.assertGreater(row["gradient_norm"], 0)
    low, middle, high = found["speed"]["step_s"]
    self.assertTrue(0 < low <= middle <= high)
    self.assertGreater(found["speed"]["first_s"], middle)
    self.assertGreater(found["speed"]["tokens_per_s"], 0)

  @parameterized.parameters((1.0, True), (1.02, True), (1.04, False))
  def test_a_step_that_computes_something_else_is_seen(self, factor, passed):
    def stage(scale):
      alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
      shape = jax.ShapeDtypeStruct((3,), np.float32, sharding=alone)
      step = lambda state, batch, key: (
        state,
        {
          "train/loss": (state * batch["where"]).sum(),
          "train/gradient_norm": scale * batch["where"].sum(),
        },
      )
      return types.SimpleNamespace(
        step=jax.jit(step), state=shape, batch={"where": shape}
      )

    numbers = np.arange(3, dtype=np.float32)
    batch = {"where": numbers + 1}
    result = device_probe.golden(
      stage(factor), stage(1.0), batch, numbers, "default"
    )
    self.assertEqual((result.loss, result.cpu_loss), (8.0, 8.0))
    self.assertAlmostEqual(result.gap, factor - 1, places=5)
    self.assertEqual(result.passed, passed)

  def test_not_a_number_does_not_pass(self):
    result = device_probe.Golden("default", float("nan"), 1.0, 1.0, 1.0, 0.1)
    self.assertFalse(result.passed)


class PageTest(parameterized.TestCase):
  def test_passes_what_is_as_it_should_be(self):
    self.assertTrue(page_of.resumed(trained()).passed)
    self.assertTrue(page_of.noticed(trained()).passed)

  @parameterized.parameters(
    (dict(straight=ended(1)), "straight run failed: exit code 1"),
    (dict(resumed=ended(-6)), "resumed run failed: ended by SIGABRT"),
    (dict(killed=ended(0)), "nothing was killed"),
    (dict(killed=ended(1), killed_at=0), "before it had saved: exit code 1"),
    (dict(killed_at=8), "nothing was killed"),
    (dict(curve={"rows": 8, "equal": 7, "more": False}), "7 are equal"),
    (dict(curve={"rows": 8, "equal": 8, "more": True}), "8 are equal"),
    (dict(curve={"rows": 0, "equal": 0, "more": False}), "0 are equal"),
  )
  def test_fails_what_is_not(self, changes, words):
    check = page_of.resumed(trained(**changes))
    self.assertFalse(check.passed)
    self.assertIn(words, check.found)

  @parameterized.parameters(
    (dict(noticed=ended(-15)), "ended by SIGTERM, step 5 saved"),
    (dict(noticed=ended(1)), "exit code 1"),
    (dict(noticed=ended(0), noticed_at=8), "it had ended before"),
    (dict(noticed_at=4), "exit code 75, step 4 saved"),
  )
  def test_fails_what_does_not_leave_in_order(self, changes, words):
    check = page_of.noticed(trained(**changes))
    self.assertFalse(check.passed)
    self.assertIn(words, check.found)

  @parameterized.parameters(
    ([4, 4], "cpu", True), ([4, 3], "cpu", False), ([0, 0], "cpu", False)
  )
  def test_hosts_must_be_alike(self, counts, kind, passed):
    rows = [dict(devices=count, kind=kind) for count in counts]
    self.assertEqual(page_of.devices(rows).passed, passed)

  def test_a_probe_that_failed_is_the_report(self):
    page, passed = page_of.page(None, None, command="--config=x")
    self.assertFalse(passed)
    self.assertIn("| probe | it failed, see its log | FAIL |", page)


class HardwareCheckTest(absltest.TestCase):
  def test_from_nothing_to_a_report(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    files = folder / "pairs.jsonl"
    rows = [
      {"prompt": "Q:", "chosen": f" {i} {i * i}", "rejected": f" {i * 7 % 5}"}
      for i in range(48)
    ]
    files.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = subprocess.run(
      [
        sys.executable,
        *(
          "-m",
          "jaxalign.experiments.hardware_check",
          "--steps=200",
          "--every=5",
        ),
        "--config=configs/rm_bt_crowd.py:smoke",
        f"--config.data.train_files=('{files}',)",
        "--config.data.eval_files=()",
        "--config.data.buckets=(64,)",
        "--config.data.max_length=64",
        "--config.train.keep_best=0",
        "--config.train.eval_every=200",
        f"--workdir={folder / 'hour'}",
      ],
      cwd=checkout.ROOT,
      env=os.environ
      | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
      },
      capture_output=True,
      text=True,
      timeout=1500,  # a busy machine takes its time
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stdout + done.stderr[-3000:])
    page = (folder / "hour/hardware_check.md").read_text()
    self.assertIn(page, done.stdout)
    self.assertEqual(page.count("| pass |"), 5)
    self.assertNotIn("FAIL", page)
    self.assertIn("200 are equal bit for bit", page)
    self.assertIn("| 0 | ", page)


def mock_constant(module, name, value):
  return absltest.mock.patch.object(module, name, value)


if __name__ == "__main__":
  absltest.main()
