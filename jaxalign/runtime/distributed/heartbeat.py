"""Heartbeat of processes: when one fails, all fail fast with its reason.

When one process fails, the others wait for it inside a collective until JAX
gives up. So every process writes a heartbeat to the key-value store of
`jax.distributed`, and a failing one writes its reason. A process that reads a
failure, or misses a heartbeat, exits with that reason.
"""

import contextlib
import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Protocol

import jax

from jaxalign.runtime import user_errors
from jaxalign.runtime.distributed import preemption

_log = logging.getLogger(__name__)

FAILED = 1  # the error would come again
ALIVE, FAILURES = "jaxalign/alive/", "jaxalign/failed/"
# What a message of XLA begins with where a device or a connection is to blame.
STATUS = re.compile(
  "(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): "
)


class Store(Protocol):
  """What is used of the client of `jax.distributed`."""

  def key_value_set(
    self, key: str, value: str, allow_overwrite: bool = False
  ) -> None:
    """Writes a value."""

  def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
    """All (key, value) below a prefix."""


def shared_store() -> Store | None:
  """The store of `jax.distributed`, None where that was not started.

  JAX has no public name for it; Orbax takes it from the same place.

  Raises:
    RuntimeError: this version of JAX keeps it elsewhere.
  """
  try:
    from jax._src import distributed

    return distributed.global_state.client
  except (ImportError, AttributeError) as error:
    raise RuntimeError(
      f"jax {jax.__version__} has no jax._src.distributed.global_state.client, "
      "by which the processes of a run watch each other: install a version "
      "that has, such as 0.10, or run one process"
    ) from error


class Heartbeat:
  """Heartbeat of one process, and its periodic check of the others'.

  Attributes:
    process: this one.
  """

  def __init__(
    self,
    store: Store,
    *,
    process: int,
    num_processes: int,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Counts everybody as alive from now on.

    Args:
      store: shared by all processes.
      process: this one.
      num_processes: all of them.
      timeout_s: silence after which a process counts as lost.
      clock: seconds that never go back.
    """
    self._store = store
    self.process = process
    self._timeout_s = timeout_s
    self._clock = clock
    self._host = socket.gethostname()
    self._beats = 0
    now = clock()
    self._heard = {
      n: ("", "an unknown host", now) for n in range(num_processes)
    }

  def beat(self) -> None:
    """Writes this process's heartbeat."""
    self._beats += 1
    self._store.key_value_set(
      f"{ALIVE}{self.process}",
      f"{self._beats} {self._host}",
      allow_overwrite=True,
    )

  def fail(self, reason: str) -> None:
    """Reports that this process ends, and why."""
    self._store.key_value_set(
      f"{FAILURES}{self.process}",
      f"process {self.process} on {self._host}: {reason}",
      allow_overwrite=True,
    )

  def failure(self) -> str | None:
    """What the first process that failed said, or None."""
    for key, reason in sorted(self._store.key_value_dir_get(FAILURES)):
      if int(key.rpartition("/")[2]) != self.process:
        return reason
    return None

  def lost(self) -> str | None:
    """A sentence that names the processes without a heartbeat, or None."""
    now = self._clock()
    for key, value in self._store.key_value_dir_get(ALIVE):
      number = int(key.rpartition("/")[2])
      beat, _, host = value.partition(" ")
      if beat != self._heard[number][0]:
        self._heard[number] = (beat, host, now)
    silent = [
      f"{number} on {host}"
      for number, (_, host, since) in self._heard.items()
      if number != self.process and now - since > self._timeout_s
    ]
    if not silent:
      return None
    return (
      f"nothing heard for {self._timeout_s:g} s of process "
      f"{', '.join(silent)}: killed, or cut off"
    )


def _end(reason: str, status: int) -> None:
  """Ends the process now: what is being waited for will not come."""
  _log.error("stopping: %s", reason)
  sys.stderr.write(f"stopping with exit status {status}: {reason}\n")
  sys.stderr.flush()
  sys.stdout.flush()
  os._exit(status)


def _may_be_of_another(error: BaseException) -> bool:
  """Whether an error, or one that it came from, is one of the runtime.

  Of the same broken connection JAX makes a JaxRuntimeError where an array is
  waited for, and a ValueError where a call is dispatched.
  """
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, jax.errors.JaxRuntimeError):
      return True
    if STATUS.match(str(seen)):
      return True
    seen = seen.__cause__ or seen.__context__
  return False


class _Thread(threading.Thread):
  """Writes and checks heartbeats until it is stopped."""

  def __init__(self, heartbeat: Heartbeat, period_s: float):
    super().__init__(name="heartbeat", daemon=True)
    self._heartbeat = heartbeat
    self._period_s = period_s
    self.stopped = threading.Event()

  def run(self) -> None:
    while not self.stopped.wait(self._period_s):
      try:
        self._heartbeat.beat()
        failure, lost = self._heartbeat.failure(), self._heartbeat.lost()
      except jax.errors.JaxRuntimeError as error:
        if not self.stopped.is_set():
          _end(f"process 0 is gone: {error}", preemption.EXIT_STATUS)
        return
      if failure is not None:
        self._end(failure, FAILED)
      if lost is not None:
        self._end(lost, preemption.EXIT_STATUS)

  def _end(self, reason: str, status: int) -> None:
    if self._heartbeat.process == 0:
      # With it goes the store: the others would not learn who was lost.
      time.sleep(2 * self._period_s)
    _end(reason, status)


class FailFast:
  """A block in which all processes exit soon after one fails.

  An error in the block is reported to the others, which exit with it as their
  reason. A process without a heartbeat makes them exit with
  `preemption.EXIT_STATUS`, as starting again may help. An error that another
  process may have caused, such as a broken connection, waits to see whether it
  did. A run of one process is left alone.
  """

  def __init__(self, timeout_s: float):
    """Checks the time.

    Args:
      timeout_s: silence after which a process counts as lost; at most as long
        as JAX's own, 100 s.

    Raises:
      ValueError: `timeout_s` is out of range.
    """
    if not 0 < timeout_s <= 100:
      raise ValueError(f"timeout_s must be in (0, 100], got {timeout_s}")
    self._timeout_s = timeout_s
    self._period_s = timeout_s / 8
    self._heartbeat: Heartbeat | None = None

  def __enter__(self) -> "FailFast":
    """Starts the heartbeat, if there are other processes."""
    client = shared_store() if jax.process_count() > 1 else None
    if client is not None:
      self._heartbeat = Heartbeat(
        client,
        process=jax.process_index(),
        num_processes=jax.process_count(),
        timeout_s=self._timeout_s,
      )
      self._heartbeat.beat()
      self._thread = _Thread(self._heartbeat, self._period_s)
      self._thread.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    """Ends the process if there was an error and there are others."""
    if self._heartbeat is None:
      return
    if isinstance(error, Exception):
      # Shown by `_end`, whose line is all that a user error needs.
      users = user_errors.is_users(error)
      if not users:
        traceback.print_exception(error)
      if _may_be_of_another(error):
        # Ends this process with the other's reason if there is one.
        time.sleep(self._timeout_s + 2 * self._period_s)
      reason = f"{type(error).__name__}: {error}"
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._heartbeat.fail(reason)
      # Process 0 holds the store, so it waits until the others have read it.
      time.sleep(2 * self._period_s if jax.process_index() == 0 else 0)
      self._thread.stopped.set()
      _end(reason, user_errors.EXIT_STATUS if users else FAILED)
    self._thread.stopped.set()
