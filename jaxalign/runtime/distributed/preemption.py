"""Preemption: save at the next step, then exit with "run me again".

A machine that is taken away sends SIGTERM some seconds before. One process
notices by itself; of several, JAX's preemption service tells all of them and
names the step at which they leave together.
"""

import contextlib
import logging
import signal
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxalign.runtime.distributed import multihost

_log = logging.getLogger(__name__)

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
AGREE_EVERY = 10  # steps between agreements where JAX's service is off


class Preempted(SystemExit):
  """Ends the process with `EXIT_STATUS`."""

  def __init__(self, reason: str):
    """Takes a sentence on where the run stands; it is logged."""
    super().__init__(EXIT_STATUS)
    self.reason = reason
    _log.warning("%s; exit status %d: run me again", reason, EXIT_STATUS)


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
  """SIGTERM calls `handler` inside the block, and what it called before after.

  Only the main thread may say so; elsewhere the block changes nothing.
  """
  try:
    before = signal.signal(signal.SIGTERM, handler)
  except ValueError:
    _log.warning("not in the main thread: SIGTERM is not handled")
    yield
    return
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def _service_is_on() -> bool:
  """Whether JAX listens to SIGTERM for all processes."""
  if jax.process_count() == 1:
    return False
  try:
    # Step 0 is before any that a loop asks about, so it cannot be the one.
    multihost_utils.reached_preemption_sync_point(0)
  except RuntimeError:
    return False
  return True


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
  """SIGTERM ends the block with `Preempted`, wherever it is.

  For all that is repeated as a whole: reading data, the last evaluation,
  writing `model/`. A loop of steps inside it defers with `Preemption`. Several
  processes leave it to JAX's service, which only loops ask.
  """

  def handler(number: int, frame: types.FrameType | None) -> None:
    del number, frame
    raise Preempted("preempted outside the steps of a loop")

  with contextlib.ExitStack() as stack:
    if jax.process_count() == 1:
      stack.enter_context(_handling(handler))
    yield


class Preemption:
  """Preemption notice: whether to save and exit after a step.

  with preemption.Preemption() as preempted:
    for step in ...:
      ...
      leaving = preempted.due(step)
      if leaving or ...:
        saved.save(step, state, metrics)
      if leaving:
        preempted.leave(step)
  """

  def __init__(self) -> None:
    """Notices nothing until entered."""
    self._asked = False
    self._stack = contextlib.ExitStack()
    self._service = False

  def __enter__(self) -> "Preemption":
    """Begins to listen."""
    self._service = _service_is_on()
    # A handler of Python would take the signal from JAX's.
    if not self._service:
      self._stack.enter_context(_handling(self._note))
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    """Restores the earlier handler of SIGTERM."""
    self._stack.close()

  def _note(self, number: int, frame: types.FrameType | None) -> None:
    del number, frame
    self._asked = True

  def due(self, step: int) -> bool:
    """Whether to save after `step` and exit; the same on all processes.

    Call it once per step, on every process, with rising numbers.

    Args:
      step: number of the step just dispatched, from 1.
    """
    if self._service:
      return bool(multihost_utils.reached_preemption_sync_point(step))
    if jax.process_count() == 1:
      return self._asked
    if step % AGREE_EVERY:
      return False
    return bool(multihost.all_hosts_sum(np.array([self._asked], np.int32))[0])

  def leave(self, step: int) -> None:
    """Raises `Preempted`; what is being saved is still finished.

    Args:
      step: the step that was saved.
    """
    raise Preempted(f"preempted: step {step} is saved")
