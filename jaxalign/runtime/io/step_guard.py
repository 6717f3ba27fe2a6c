"""Step guard: stops at non-finite metrics and counts compilations."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.runtime.io import filesystem


class TraceCounter:
  """Counts how often a function is traced, that is: compiled anew.

  Length buckets promise one compilation per bucket; this is how a run, and a
  test, sees whether that held.
  """

  def __init__(self, function: Callable[..., Any]):
    self._function = function
    self.count = 0

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    """Calls the function; runs once per trace under `jax.jit`."""
    self.count += 1
    return self._function(*args, **kwargs)


class NonFiniteError(RuntimeError):
  """Too many steps in a row had no finite loss or gradient."""


class StepGuard:
  """Holds each step's metrics until the next step is under way.

  Fetching metrics waits for the device; fetching those of step t − 1 after step
  t was dispatched costs nothing.
  """

  def __init__(self, max_bad_steps: int):
    """Stops the run after `max_bad_steps` steps in a row were not applied."""
    if max_bad_steps < 1:
      raise ValueError(f"max_bad_steps must be >= 1, got {max_bad_steps}")
    self._max_bad_steps = max_bad_steps
    self._pending: tuple[int, Any, Sequence[int]] | None = None

  def exchange(
    self,
    step: int,
    metrics: Mapping[str, jax.Array],
    batch_ids: Sequence[int],
  ) -> tuple[int, dict[str, float]] | None:
    """Takes metrics of step `step`, returns those of the step before.

    Args:
      step: number of the step just dispatched.
      metrics: its scalars, still on the device.
      batch_ids: dataset indices of its rows, for the error message.

    Returns:
      The previous step and its metrics, or None at the first call.

    Raises:
      NonFiniteError: the previous step was one bad step too many.
    """
    previous = self.flush()
    self._pending = (step, metrics, batch_ids)
    return previous

  def flush(self) -> tuple[int, dict[str, float]] | None:
    """Waits for and returns the metrics of the last step."""
    if self._pending is None:
      return None
    (step, metrics, batch_ids), self._pending = self._pending, None
    values = {k: float(v) for k, v in jax.device_get(dict(metrics)).items()}
    if values["train/bad_steps"] >= self._max_bad_steps:
      bad = [k for k, v in values.items() if not np.isfinite(v)]
      raise NonFiniteError(
        f"step {step}: {', '.join(bad) or 'the gradient'} not finite, "
        f"{int(values['train/bad_steps'])} steps in a row "
        f"(train.max_bad_steps={self._max_bad_steps}); batch ids "
        f"{np.ravel(batch_ids).tolist()}. No such step was applied; the last "
        "checkpoint is good."
      )
    return step, values


class Profiler:
  """Writes a trace of a few steps; does nothing without a folder."""

  def __init__(self, folder: epath.PathLike | None, first: int, number: int):
    """Traces steps `first` to `first + number - 1` into `folder`.

    Args:
      folder: for TensorBoard or Perfetto, or None for no trace.
      first: late enough that compilation is over.
      number: steps to trace.
    """
    self._folder = folder
    self._first, self._last = first, first + number - 1
    self._running = False
    self._files = contextlib.ExitStack()

  def before(self, step: int) -> None:
    """Starts the trace if `step` is the first to be traced."""
    if self._folder is not None and step == self._first:
      files = self._files.enter_context(filesystem.filled(self._folder))
      jax.profiler.start_trace(os.fspath(files))
      self._running = True

  def after(self, step: int, state: Any) -> None:
    """Ends the trace after the last step, once `state` is computed."""
    if self._running and step == self._last:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    """Ends a trace that is still running."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
      self._files.close()
