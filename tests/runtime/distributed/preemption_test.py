"""SIGTERM becomes a saved step and an exit status, and is handed back."""

import os
import signal
import threading
from unittest import mock

import jax
from absl.testing import absltest
from jax.experimental import multihost_utils

from jaxalign.runtime.distributed import multihost, preemption


def ask() -> None:
  """Sends SIGTERM, as a machine does that is taken away."""
  os.kill(os.getpid(), signal.SIGTERM)


class OneProcessTest(absltest.TestCase):
  def test_nothing_is_due_until_asked(self):
    before = signal.getsignal(signal.SIGTERM)
    with preemption.Preemption() as preempted:
      self.assertFalse(preempted.due(1))
      ask()
      self.assertTrue(preempted.due(2))
      with self.assertRaises(SystemExit) as left:
        preempted.leave(2)
    self.assertEqual(left.exception.code, 75)
    self.assertIn("step 2 is saved", left.exception.reason)
    self.assertEqual(signal.getsignal(signal.SIGTERM), before)

  def test_outside_a_loop_it_leaves_at_once(self):
    with self.assertRaises(preemption.Preempted), preemption.leaving_at_once():
      with preemption.Preemption() as preempted:
        ask()
        self.assertTrue(preempted.due(1))
      ask()
      self.fail("still here")

  def test_another_thread_may_run_a_loop(self):
    seen = []

    def loop():
      with preemption.Preemption() as preempted:
        seen.append(preempted.due(1))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    self.assertEqual(seen, [False])


class ManyProcessesTest(absltest.TestCase):
  """What the service says, and what is done where it is off."""

  def setUp(self):
    super().setUp()
    self.enter_context(mock.patch.object(jax, "process_count", return_value=2))

  def test_the_service_names_the_step(self):
    with mock.patch.object(
      multihost_utils, "reached_preemption_sync_point", lambda step: step == 3
    ):
      before = signal.getsignal(signal.SIGTERM)
      with preemption.leaving_at_once(), preemption.Preemption() as preempted:
        # The signal is the service's.
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)
        self.assertEqual(
          [preempted.due(step) for step in (1, 2, 3, 4)],
          [False, False, True, False],
        )

  def test_without_the_service_processes_agree_now_and_then(self):
    off = mock.Mock(side_effect=RuntimeError("not initialized"))
    asked = []

    def gather(flag):
      asked.append(int(flag[0]))
      return flag + 1  # another process was asked

    with (
      mock.patch.object(multihost_utils, "reached_preemption_sync_point", off),
      mock.patch.object(multihost, "all_hosts_sum", gather),
      preemption.Preemption() as preempted,
    ):
      due = [step for step in range(1, 11) if preempted.due(step)]
    self.assertEqual((due, asked), ([10], [0]))


if __name__ == "__main__":
  absltest.main()
