"""Metric writer: JSON lines, TensorBoard, trackers and a progress bar.

`metrics.jsonl` holds values that are a function of the run's inputs alone, so
it is bit-for-bit identical after a kill and a resume. Whatever depends on the
clock or the machine goes to `speed.jsonl`.
"""

import json
import logging
import math
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, Self

from etils import epath

from jaxalign.runtime.io import event_file, filesystem, progress_bar
from jaxalign.runtime.io import trackers as experiment_trackers

_log = logging.getLogger(__name__)

# JSON has no words for these; as strings, Python's float() reads them back.
_NON_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _line(step: int, values: Mapping[str, float]) -> bytes:
  """One row as standard JSON: step first, then the keys in order."""
  if "step" in values:
    raise ValueError("'step' is the row's own key, it cannot name a metric")
  row: dict[str, int | float | str] = {"step": int(step)}
  for key in sorted(values):
    value = float(values[key])
    if not math.isfinite(value):
      row[key] = "NaN" if math.isnan(value) else _NON_FINITE[value]
    else:
      row[key] = value
  return json.dumps(row, allow_nan=False).encode() + b"\n"


def _row(line: bytes) -> dict[str, Any] | None:
  """The row, or None for bytes that are not one."""
  try:
    row = json.loads(line)
  except ValueError:  # covers bad JSON and bad UTF-8
    return None
  if not isinstance(row, dict) or not isinstance(row.get("step"), int):
    return None
  return row


def read_rows(path: epath.PathLike) -> list[dict[str, float]]:
  """The rows of a metrics.jsonl or speed.jsonl, non-finite values included.

  Args:
    path: the file. A torn last line, as a running or killed writer leaves it,
      is not an error and is left out.

  Returns:
    One dict per row: "step" (int) and the metrics as floats.

  Raises:
    ValueError: a line other than the last is not a row, by file and line.
  """
  rows = []
  lines = epath.Path(path).read_bytes().splitlines()
  for number, line in enumerate(lines, start=1):
    row = _row(line)
    if row is None:
      if number == len(lines):
        break
      raise ValueError(f"{os.fspath(path)}:{number}: not a row of metrics")
    step = row.pop("step")
    rows.append({"step": step, **{k: float(v) for k, v in row.items()}})
  return rows


def _trim(path: epath.Path, start_step: int) -> set[int]:
  """Drops rows past `start_step` and a torn last line, atomically.

  Returns:
    The steps of the rows that stay.
  """
  if not path.exists():
    return set()
  content = path.read_bytes()
  lines, kept, steps = content.splitlines(), [], set()
  for number, line in enumerate(lines, start=1):
    row = _row(line)
    if row is None:
      if number == len(lines):
        break
      raise ValueError(
        f"{os.fspath(path)}:{number}: not a row of metrics; only the last line "
        "can be torn by a kill, so this file was damaged otherwise"
      )
    # A run that starts at 0 will write its step 0 again.
    if start_step > 0 and row["step"] <= start_step:
      kept.append(line + b"\n")
      steps.add(row["step"])
  if b"".join(kept) != content:
    filesystem.write_atomically(path, b"".join(kept))
  return steps


def _warn_of_gaps(path: epath.Path, steps: set[int], start_step: int) -> None:
  """Says which steps before `start_step` have no row any more."""
  missing = [step for step in range(1, start_step + 1) if step not in steps]
  if not missing:
    return
  _log.warning(
    "%s has no rows of %d steps from %d to %d, and this run goes on after step "
    "%d: they were lost after they were written, and are not written again",
    os.fspath(path),
    len(missing),
    missing[0],
    missing[-1],
    start_step,
  )


class MetricWriter:
  """Writes a run's metrics; a context manager.

  Opening at `start_step` = k makes the files those of a run that has just
  finished step k: rows of later steps, and a last line torn by a kill, are
  removed (all rows for k = 0), and TensorBoard is told to hide later events.
  For that to give an uninterrupted curve, write the rows of step k, and call
  `flush`, before saving the checkpoint of step k.

  JSON has no non-finite numbers: they are written as the strings "NaN",
  "Infinity" and "-Infinity", which `read_rows` turns back into floats.

  A workdir in an object store (gs://, s3://) works, with rewriting in place of
  appending; see `filesystem.AppendedFile`. Processes other than the main one
  write and show nothing.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    start_step: int,
    num_steps: int,
    is_main: bool,
    show_progress: bool | None = None,
    trackers: Sequence[str] = (),
  ):
    """Describes the writer; entering the context opens it.

    Args:
      workdir: folder for metrics.jsonl, speed.jsonl and tensorboard/, made if
        absent.
      start_step: number of steps already done.
      num_steps: number of steps after which the run is done.
      is_main: whether this process writes.
      show_progress: True draws a progress bar, False logs plain lines, None
        draws the bar if standard error is a terminal.
      trackers: "wandb", "trackio": what shows the same metrics beside.

    Raises:
      ValueError: start_step is not in [0, num_steps], or a tracker is unknown
        or not installed.
    """
    experiment_trackers.check_names(trackers)
    self._tracker_names = tuple(trackers)
    self._trackers: list[experiment_trackers.Tracker] = []
    if not 0 <= start_step <= num_steps:
      raise ValueError(
        f"start_step must be in [0, num_steps={num_steps}], got {start_step}"
      )
    self._workdir = epath.Path(workdir)
    self._start_step = start_step
    self._is_main = is_main
    self._progress = progress_bar.Progress(
      start_step=start_step, num_steps=num_steps, show=show_progress
    )

  def __enter__(self) -> Self:
    """Trims the files of an earlier attempt and opens them."""
    if not self._is_main:
      return self
    board = self._workdir / "tensorboard"
    board.mkdir(parents=True, exist_ok=True)
    paths = {n: self._workdir / f"{n}.jsonl" for n in ("metrics", "speed")}
    steps = {
      name: _trim(path, self._start_step) for name, path in paths.items()
    }
    _warn_of_gaps(paths["metrics"], steps["metrics"], self._start_step)
    self._files = {
      name: filesystem.AppendedFile(path) for name, path in paths.items()
    }
    self._board = event_file.EventFile(
      board,
      first_step=self._start_step + 1 if self._start_step else 0,
      suffix=f".{self._start_step}.{os.getpid()}",
    )
    self._trackers = [
      experiment_trackers.Tracker(name, self._workdir)
      for name in self._tracker_names
    ]
    self._progress.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    """Closes everything, whether or not the run failed."""
    if not self._is_main:
      return
    self._progress.stop()
    for file in self._files.values():
      file.close()
    self._board.close()
    for tracker in self._trackers:
      tracker.close()

  def _write(self, name: str, step: int, values: Mapping[str, float]) -> None:
    if not self._is_main:
      return
    self._files[name].write(_line(step, values))
    self._board.write(step, values)
    for tracker in self._trackers:
      tracker.log(step, values)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds one row to metrics.jsonl and its scalars to TensorBoard.

    Args:
      step: number of steps done.
      metrics: scalars by name (`split/noun[_unit]`), free of clock readings.

    Raises:
      ValueError: a metric is called "step".
    """
    self._write("metrics", step, metrics)

  def write_speed(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds one row to speed.jsonl and its scalars to TensorBoard.

    Args:
      step: number of steps done.
      metrics: scalars that depend on the clock or machine, as `speed` gives.

    Raises:
      ValueError: a metric is called "step".
    """
    self._write("speed", step, metrics)

  def advance(
    self,
    step: int,
    *,
    description: str | None = None,
    tokens: int | None = None,
    loss: float | None = None,
  ) -> None:
    """Moves the progress bar, or logs a plain line if one is due.

    Args:
      step: number of steps done.
      description: what the run is doing, kept until it is given again.
      tokens: tokens processed since the last call, over all devices.
      loss: the newest loss, kept until it is given again.
    """
    if self._is_main:
      self._progress.advance(
        step, description=description, tokens=tokens, loss=loss
      )

  def speed(self) -> dict[str, float]:
    """Steps and tokens per second over the last minute, and memory in bytes.

    Returns:
      `speed/steps_per_second`, `speed/tokens_per_second`,
      `speed/host_memory_bytes` and `speed/device_memory_bytes`, each where it
      is known: rates need two calls of `advance`, the last needs a device that
      counts its memory. Empty on other processes than the main one.
    """
    return self._progress.speed() if self._is_main else {}

  def flush(self) -> None:
    """Makes everything written so far durable; call it before a checkpoint."""
    if not self._is_main:
      return
    for file in self._files.values():
      file.flush()
    self._board.flush()
