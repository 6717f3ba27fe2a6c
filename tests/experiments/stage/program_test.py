"""The flags that every stage shares, up to the first call of a stage."""

import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.experiments.stage import program
from jaxalign.runtime import hosts
from tests import checkout

STAGE = (sys.executable, "-m", "jaxalign.experiments.train_reward")


class JoinHostsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(coordinator=None), None),
    (dict(coordinator="auto"), (None, None, None)),
    (
      dict(coordinator="host:1", num_processes=2, process_id=1),
      ("host:1", 2, 1),
    ),
  )
  def test_only_a_coordinator_starts_many_hosts(self, given, wanted):
    given = dict(num_processes=None, process_id=None) | given
    with mock.patch.object(hosts, "initialize") as initialize:
      program.join_hosts(**given, timeout_s=5)
    if wanted is None:
      initialize.assert_not_called()
      return
    keys = "coordinator", "num_processes", "process_id"
    initialize.assert_called_once_with(
      **dict(zip(keys, wanted, strict=True)), timeout_s=5
    )

  @parameterized.parameters(None, "auto")
  def test_numbers_without_an_address_are_refused(self, coordinator):
    with self.assertRaisesRegex(ValueError, "--process_id=1 need"):
      program.join_hosts(
        coordinator=coordinator, num_processes=2, process_id=1, timeout_s=5
      )


class CommandLineTest(parameterized.TestCase):
  @parameterized.parameters(
    (("--config.train.num_step=3",), "num_step"),
    (("steps=3",), "unknown argument 'steps=3'"),
    (("--config.train.num_steps=many",), "num_steps"),
  )
  def test_a_mistake_is_named_before_anything_runs(self, arguments, message):
    workdir = tempfile.mkdtemp()
    done = subprocess.run(
      [
        *STAGE,
        "--config=configs/rm_bt_crowd.py:smoke",
        f"--workdir={workdir}/run",
        *arguments,
      ],
      cwd=checkout.ROOT,
      capture_output=True,
      text=True,
    )
    self.assertNotEqual(done.returncode, 0)
    self.assertIn(message, done.stdout + done.stderr)


if __name__ == "__main__":
  absltest.main()
