"""Orbax checkpoints of a train state: asynchronous, kept by age and score.

`Mirror` keeps checkpoints in a store that Orbax cannot write to, by way of the
local disk.
"""

import json
import os
import types
from collections.abc import Iterable, Mapping
from concurrent import futures
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from jaxalign.runtime.distributed import mesh as abstracts
from jaxalign.runtime.io import checkpoint_digests, filesystem, scratch

INDEX = "index.json"
_AT_A_TIME = 16  # files on their way


class Mirror:
  """A folder of steps on this machine's disk, and its copy in a store.

  A step is there once the index names it and its files: the index is one
  object, written after them, so that a kill at any moment leaves the steps of
  before or after.
  """

  def __init__(self, store: epath.PathLike):
    """Fetches the steps that the store holds.

    Args:
      store: the folder in the store; it need not exist.
    """
    self._store = epath.Path(store)
    self._folder = scratch.Folder("checkpoints")
    self.local = epath.Path(self._folder.path) / "checkpoints"
    self.local.mkdir()
    self._held: dict[str, list[str]] = {}
    index = self._store / INDEX
    if index.exists():
      self._held = json.loads(index.read_text())
    for step, files in self._held.items():
      # Of a step that was removed, or lost files, there is what there is.
      _copy(self._store / step, self.local / step, files, may_lack=True)

  def push(self) -> None:
    """Makes the store hold the steps that the disk holds, and no others."""
    held = {}
    for folder in self.local.iterdir():
      if folder.name.isdigit():  # Orbax renames a folder when it is complete
        files = sorted(
          os.fspath(epath.Path(parent, name).relative_to(folder))
          for parent, _, names in os.walk(folder)
          for name in names
        )
        held[folder.name] = files
        if folder.name not in self._held:
          _copy(folder, self._store / folder.name, files)
    if held == self._held:
      return
    filesystem.write_atomically(
      self._store / INDEX, json.dumps(held, sort_keys=True).encode()
    )
    self._held = held
    for folder in self._store.iterdir():
      if folder.name.isdigit() and folder.name not in held:
        folder.rmtree()

  def close(self) -> None:
    """Removes the folder on the disk."""
    self._folder.close()


def _copy(
  source: epath.Path,
  target: epath.Path,
  files: Iterable[str],
  *,
  may_lack: bool = False,
) -> None:
  """Copies files that are named from both folders, several at a time."""

  def one(name: str) -> None:
    if may_lack and not (source / name).exists():
      return
    to = target / name
    if filesystem.is_local(to):
      to.parent.mkdir(parents=True, exist_ok=True)
    (source / name).copy(to, overwrite=True)

  with futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
    list(pool.map(one, files))


def check_directory(directory: epath.PathLike) -> None:
  """Raises ValueError unless checkpoints can be kept there.

  Orbax writes arrays through drivers of TensorStore, and chooses among two:
  files and Google Cloud Storage. It says so at the first save only. What it
  writes on one host's disk can be copied to s3://; of several hosts each would
  have a part.

  Args:
    directory: of the checkpoints, or of the run.
  """
  if filesystem.is_local(directory) or os.fspath(directory).startswith("gs://"):
    return
  if not os.fspath(directory).startswith("s3://"):
    raise ValueError(
      f"checkpoints cannot be kept in {directory}: must be a folder, gs:// or, "
      "on one host, s3://"
    )
  if jax.process_count() > 1:
    raise ValueError(
      f"checkpoints of {jax.process_count()} hosts cannot be kept in "
      f"{directory}: Orbax writes to a folder or to gs:// alone; train in a "
      "folder that all hosts share, and copy model/"
    )


class Checkpoints:
  """The checkpoints of one run, under `directory/STEP/`.

  A step counts once its folder is complete; what a kill left half-written is
  ignored. Use as a context manager: leaving it waits for the last save.
  """

  def __init__(
    self,
    directory: epath.PathLike,
    *,
    keep_last: int,
    keep_best: int,
    best_metric: str,
    digests: bool = True,
  ):
    """Opens, or creates, the folder.

    Args:
      directory: the folder, local or in gs://; or in s3:// on one host, where
        `save` returns when the step is there.
      keep_last: most recent checkpoints kept, >= 1.
      keep_best: checkpoints with the lowest `best_metric` kept as well.
      best_metric: a key of the metrics given to `save`; lower is better.
      digests: whether to write a digest of every file, and to check those of a
        step before it is restored.
    """
    check_directory(directory)
    if keep_last < 1 or keep_best < 0:
      raise ValueError(
        f"keep_last must be >= 1 and keep_best >= 0, got {keep_last} and "
        f"{keep_best}"
      )
    self._directory = epath.Path(directory)
    self._mirror: Mirror | None = None
    if os.fspath(directory).startswith("s3://"):
      self._mirror = Mirror(self._directory)
    self._best_metric = best_metric
    policies: list[checkpoint_managers.PreservationPolicy] = [
      checkpoint_managers.LatestN(keep_last)
    ]
    if keep_best:
      policies.append(
        checkpoint_managers.BestN(
          get_metric_fn=lambda metrics: metrics[best_metric],
          reverse=True,
          n=keep_best,
          keep_checkpoints_without_metrics=False,
        )
      )
    self._digests = digests
    try:
      self._check_metrics()
    except ValueError:
      if self._mirror:
        self._mirror.close()
      raise
    handler = (
      checkpoint_digests.handler if digests else ocp.StandardCheckpointHandler
    )
    self._manager = ocp.CheckpointManager(
      self._local,
      item_handlers={"state": handler()},
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        # Orbax writes metrics to disk only if it is told how to rank them.
        best_fn=(lambda metrics: metrics[best_metric]) if keep_best else None,
        best_mode="min",
        create=True,
        # What kills left half-written; no other run writes here.
        cleanup_tmp_directories=True,
      ),
    )

  def __enter__(self) -> "Checkpoints":
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    """Waits for the last save."""
    try:
      self.wait()
      self._manager.close()
    finally:
      if self._mirror:
        self._mirror.close()

  def latest(self) -> int | None:
    """The last complete step, or None."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step with the lowest `best_metric`, or None if none has one."""
    self.wait()  # the metrics of a step in flight read as none
    scored = [
      (metrics[self._best_metric], step)
      for step in self._manager.all_steps()
      if (metrics := self._manager.metrics(step)) is not None
    ]
    return min(scored)[1] if scored else None

  def save(
    self, step: int, state: Any, metrics: Mapping[str, float] | None
  ) -> None:
    """Starts saving `state`; the arrays may be donated once this returns.

    Args:
      step: the step's number.
      state: tree of arrays.
      metrics: evaluation of this step, if it was evaluated.

    Raises:
      ValueError: the step was saved before; Orbax would skip it in silence.
    """
    with filesystem.full_disk_named(self._place(step)):
      saved = self._save(step, state, metrics)
    if not saved:
      raise ValueError(
        f"checkpoint {step} was not saved: {self._directory} already holds "
        f"steps {sorted(self._manager.all_steps())}"
      )
    if self._mirror:
      self.wait()

  def _save(
    self, step: int, state: Any, metrics: Mapping[str, float] | None
  ) -> bool:
    return self._manager.save(
      step,
      args=ocp.args.Composite(
        state=checkpoint_digests.with_metrics(state, metrics)
      ),
      metrics=None if metrics is None else dict(metrics),
    )

  def wait(self) -> None:
    """Returns when everything handed to `save` is in the folder."""
    with filesystem.full_disk_named(self._directory):
      self._manager.wait_until_finished()
    if self._mirror:
      self._mirror.push()

  def restore(self, step: int, abstract: Any) -> Any:
    """The state of a step, laid out as `abstract` says.

    Args:
      step: a complete step.
      abstract: tree of ShapeDtypeStruct with shardings; the topology may differ
        from the one that saved.

    Returns:
      Tree of arrays.

    Raises:
      ValueError: the checkpoint is of another model; names the first parameter
        that differs.
    """
    self.wait()
    checked = self._check_intact(step)
    try:
      saved = abstracts.shapes_of(
        self._manager.item_metadata(step)["state"].tree
      )
      restore = lambda: self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      )["state"]
      same = saved == abstracts.shapes_of(abstract)
      state = restore() if same else None
    except jax.errors.JaxRuntimeError:
      raise  # of a device or another host
    except Exception as error:  # every kind of damage has one of its own
      if checked or step not in self._steps():
        raise
      what = f"{type(error).__name__}: {error}".splitlines()[0]
      raise ValueError(
        self._advice(step, f"{self._place(step)} cannot be read ({what})")
      ) from error
    abstracts.check_same(
      saved, abstracts.shapes_of(abstract), str(self._place(step))
    )
    return state

  def _place(self, step: int) -> epath.Path:
    """A step's folder, as the user knows it."""
    return self._directory / str(step)

  @property
  def _local(self) -> epath.Path:
    """Where Orbax keeps the steps."""
    return self._mirror.local if self._mirror else self._directory

  def _steps(self) -> list[int]:
    """Steps that are there, newest last; on gs:// half-written ones too."""
    if not self._local.exists():
      return []
    names = (folder.name for folder in self._local.iterdir())
    return sorted(int(name) for name in names if name.isdigit())

  def _check_metrics(self) -> None:
    """Refuses metrics that Orbax could not rank, or would rank otherwise.

    An old step without the file was being deleted as a run was killed: it is as
    good as gone, and the next save deletes the rest of it.
    """
    steps = self._steps()
    for step in steps:
      folder = self._local / str(step)
      found = checkpoint_digests.damaged_metrics(folder, self._best_metric)
      there = checkpoint_digests.metrics_file(folder).exists()
      half_deleted = step != steps[-1] and not there
      if found is not None and not half_deleted:
        raise ValueError(self._advice(step, self._named(found)))

  def _named(self, reason: str) -> str:
    """With the place that the user knows."""
    return reason.replace(os.fspath(self._local), os.fspath(self._directory), 1)

  def _damaged(self, step: int) -> str | None:
    """What is wrong with a step; FileNotFoundError where it is not known."""
    found = checkpoint_digests.damaged(self._local / str(step) / "state")
    return found and self._named(found)

  def _check_intact(self, step: int) -> bool:
    """Whether a step has digests and they are right; ValueError if wrong."""
    if not self._digests:
      return False
    try:
      found = self._damaged(step)
    except FileNotFoundError:
      return False
    if found is not None:
      raise ValueError(self._advice(step, found))
    return True

  def _advice(self, step: int, reason: str) -> str:
    """One line on a step that cannot be gone on from, and what can be done."""
    steps = self._steps()
    if step != steps[-1]:
      return f"{reason}; remove {self._place(step)} to go on without that step"
    for other in reversed(steps[:-1]):
      known = "intact"
      try:
        if self._damaged(other) is not None:
          continue
      except FileNotFoundError:
        known = "older and has no digests to tell whether it is intact"
      return (
        f"{reason}; step {other} is {known}: remove {self._place(step)} and "
        "run the same command again to go on from there"
      )
    return f"{reason}; no older step is intact: begin anew in a new --workdir"
