"""Who fails tells, who falls silent is noticed, who reads of it ends."""

import contextlib
import io
import os
import threading
from unittest import mock

import jax
from absl.testing import absltest, parameterized

from jaxalign.runtime import user_errors
from jaxalign.runtime.distributed import heartbeat, preemption


class Store:
  """The key-value store of `jax.distributed`, in a dict."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    if key in self.values and not allow_overwrite:
      raise ValueError(key)
    self.values[key] = value

  def key_value_dir_get(self, key):
    return [(k, v) for k, v in self.values.items() if k.startswith(key)]


class HeartbeatTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.now = 0.0
    store = Store()
    self.beats = [
      heartbeat.Heartbeat(
        store,
        process=n,
        num_processes=3,
        timeout_s=10,
        clock=lambda: self.now,
      )
      for n in range(3)
    ]

  def test_those_who_speak_are_alive(self):
    for self.now in range(40):
      for one in self.beats:
        one.beat()
      self.assertIsNone(self.beats[0].lost())

  def test_the_silent_one_is_named_with_its_host(self):
    for self.now in range(30):
      for one in self.beats[: 3 if self.now < 5 else 2]:
        one.beat()
      lost = self.beats[0].lost()
      self.assertEqual(lost is not None, self.now > 14, self.now)
    self.assertRegex(lost, r"for 10 s of process 2 on \S+: killed")

  def test_one_that_never_spoke_is_lost_too(self):
    self.now = 11.0
    self.beats[0].beat()
    self.assertIn("1 on an unknown host, 2 on", self.beats[0].lost())

  def test_a_failure_is_told_to_the_others(self):
    self.assertIsNone(self.beats[0].failure())
    self.beats[1].fail("ValueError: bad row")
    self.assertRegex(
      self.beats[0].failure(), r"process 1 on \S+: ValueError: bad row"
    )
    self.assertIsNone(self.beats[1].failure())


BROKEN = "UNKNOWN: Gloo AllGather failed: Connection closed by peer"


def scoring_fails():
  try:
    raise ValueError(BROKEN)
  except ValueError:
    raise KeyError("no rewards") from None


class FailFastTest(parameterized.TestCase):
  def test_one_process_is_left_alone(self):
    with (
      self.assertRaisesRegex(KeyError, "mine"),
      heartbeat.FailFast(1.0),
    ):
      raise KeyError("mine")

  def test_the_time_is_checked(self):
    with (
      self.assertRaisesRegex(ValueError, "got 101"),
      heartbeat.FailFast(101.0),
    ):
      self.fail("entered")

  def many(self, process):
    store = Store()
    for owner, name, value in (
      (jax, "process_count", lambda: 2),
      (jax, "process_index", lambda: process),
      (heartbeat, "shared_store", lambda: store),
    ):
      self.enter_context(mock.patch.object(owner, name, value))

    def end(status):
      if threading.current_thread() is threading.main_thread():
        raise SystemExit(status)

    ended = self.enter_context(mock.patch.object(os, "_exit", side_effect=end))
    return store, ended

  def test_a_jax_without_the_store_is_named_where_there_are_several(self):
    self.enter_context(mock.patch.object(jax._src, "distributed", None))
    with heartbeat.FailFast(1.0):
      pass  # one process needs none
    with (
      mock.patch.object(jax, "process_count", lambda: 2),
      self.assertRaisesRegex(RuntimeError, "global_state.client, by which"),
      heartbeat.FailFast(1.0),
    ):
      self.fail("entered")

  def test_this_jax_has_the_store(self):
    self.assertIsNone(heartbeat.shared_store())  # nothing was started

  def test_an_error_is_told_before_the_end(self):
    store, ended = self.many(process=1)
    with self.assertRaises(SystemExit), heartbeat.FailFast(1.0):
      raise KeyError("mine")
    ended.assert_called_once_with(heartbeat.FAILED)
    self.assertIn("KeyError: 'mine'", store.values[f"{heartbeat.FAILURES}1"])

  def test_a_user_error_is_one_line(self):
    store, ended = self.many(process=1)
    written = self.enter_context(contextlib.redirect_stderr(io.StringIO()))
    with self.assertRaises(SystemExit), heartbeat.FailFast(1.0):
      heartbeat.FailFast(0)  # refused on purpose
    ended.assert_called_once_with(user_errors.EXIT_STATUS)
    self.assertIn(
      "ValueError: timeout_s", store.values[f"{heartbeat.FAILURES}1"]
    )
    self.assertRegex(
      written.getvalue(), "^stopping with exit status 2: ValueError: timeo.*\n$"
    )

  @parameterized.parameters(
    jax.errors.JaxRuntimeError(BROKEN),
    ValueError(BROKEN),  # of a call that was being dispatched
    scoring_fails,
  )
  def test_an_error_that_is_another_s_end_waits_for_it(self, error):
    store, ended = self.many(process=1)
    with self.assertRaises(SystemExit), heartbeat.FailFast(0.5):
      if callable(error):
        error()
      raise error
    # The heartbeat thread has ended it, while the error was waiting.
    self.assertEqual(ended.call_args_list[0].args, (preemption.EXIT_STATUS,))
    self.assertIn(f"{heartbeat.ALIVE}1", store.values)

  def test_leaving_in_order_is_no_failure(self):
    store, ended = self.many(process=1)
    with self.assertRaises(SystemExit), heartbeat.FailFast(1.0):
      raise SystemExit(75)
    ended.assert_not_called()
    self.assertNotIn(f"{heartbeat.FAILURES}1", store.values)


if __name__ == "__main__":
  absltest.main()
