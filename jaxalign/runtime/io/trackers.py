"""Experiment trackers: wandb and trackio as sinks of the metric writer.

A tracker repeats what metrics.jsonl and speed.jsonl hold. It may fail or be
offline, and the run goes on without it.
"""

import hashlib
import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jaxalign.ops import checks
from jaxalign.runtime.io import filesystem

_log = logging.getLogger(__name__)

NAMES = ("wandb", "trackio")
PROJECT = "jaxalign"  # where WANDB_PROJECT and TRACKIO_PROJECT are not set


def check_names(names: Sequence[str]) -> None:
  """Raises ValueError for a tracker that is unknown or not installed."""
  for name in names:
    checks.one_of(NAMES, trackers=name)
    if importlib.util.find_spec(name) is None:
      raise ValueError(
        f"trackers names {name}, which is not installed: pip install {name}, "
        "or leave it out"
      )


class Tracker:
  """A run of one tracker.

  A workdir is one run, whose id follows from its path, so that a resumed run
  goes on in it. Steps that it has logged before are logged once: wandb leaves
  out what is not beyond its last step.
  """

  def __init__(self, name: str, workdir: epath.PathLike) -> None:
    """Opens the run.

    Args:
      name: one of `NAMES`.
      workdir: of the run; its last part is the run's name.
    """
    path = epath.Path(workdir)
    self.name = name
    self._failed = False
    self._run: Any = None
    self._guarded(lambda: self._open(path))

  def _open(self, workdir: epath.Path) -> None:
    project = os.environ.get(f"{self.name.upper()}_PROJECT", PROJECT)
    whole = os.fspath(workdir)
    # Slow to import, and there only where the extra is installed.
    if self.name == "trackio":
      import trackio

      self._run = trackio.init(
        project=project,
        name=_named(workdir),
        resume="allow",
        embed=False,
      )
      return
    import wandb

    local = filesystem.is_local(workdir)
    self._run = wandb.init(
      project=project,
      name=workdir.name,
      id=hashlib.sha256(whole.encode()).hexdigest()[:16],
      resume="allow",
      dir=whole if local else None,
      settings=wandb.Settings(console="off", silent=True),
    )

  def log(self, step: int, values: Mapping[str, float]) -> None:
    """Logs scalars of a step; after a failure it does nothing.

    Args:
      step: number of steps done, not below the last one.
      values: scalars by name.
    """
    self._guarded(lambda: self._run.log(dict(values), step=int(step)))

  def close(self) -> None:
    """Ends the run."""
    self._guarded(lambda: self._run.finish())
    self._failed = True

  def _guarded(self, call: Any) -> None:
    if self._failed:
      return
    try:
      call()
    except Exception as error:  # noqa: BLE001
      # Another program's trouble, which must not cost the run.
      self._failed = True
      _log.warning(
        "%s failed and gets no more metrics, which metrics.jsonl has: %s: %s",
        self.name,
        type(error).__name__,
        error,
        exc_info=True,
      )


def _named(workdir: epath.Path) -> str:
  """A name that is another one for another workdir."""
  digest = hashlib.sha256(os.fspath(workdir).encode()).hexdigest()
  return f"{workdir.name}-{digest[:6]}"
