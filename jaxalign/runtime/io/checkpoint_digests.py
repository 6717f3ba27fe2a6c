"""Checkpoint digests: made while a step is saved, checked in a stream.

Every process sums up the arrays that it has written before the checkpoint
counts; the main one joins these with its own and adds the rest.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import fsspec
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from jaxalign.runtime.distributed import multihost

FILE = "SHA256SUMS"  # in the format that `sha256sum -c` reads
METRICS = "metrics"
_AT_A_TIME = 4  # files that are read together; hashing releases the interpreter
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
# What Orbax adds when all else is there.
_AFTERWARDS = ("commit_success.txt",)


def _to_text(sums: Mapping[str, str]) -> str:
  return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def _from_text(text: str, where: str) -> dict[str, str]:
  """Name -> digest; ValueError for a line that is none."""
  sums = {}
  for number, line in enumerate(text.splitlines(), 1):
    found = _LINE.fullmatch(line)
    if found is None:
      raise ValueError(f"{where}:{number} is damaged: not a digest and a name")
    sums[found[2]] = found[1]
  return sums


class _Folder:
  """The files below a folder, on a disk or in a store."""

  def __init__(self, path: epath.PathLike):
    self._files, self._root = fsspec.core.url_to_fs(os.fspath(path))

  def names(self) -> list[str]:
    """Of all files below it, sorted."""
    start = len(self._root.rstrip("/")) + 1
    return sorted(path[start:] for path in self._files.find(self._root))

  def sums(self, names: Sequence[str]) -> dict[str, str]:
    """Name -> digest, several files at a time."""

    def one(name: str) -> str:
      with self._files.open(f"{self._root}/{name}", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

    with futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
      return dict(zip(names, pool.map(one, names), strict=True))


class _SummedUp:
  """What Orbax waits for, and then the digests of what it has written."""

  def __init__(self, directory: Any, written: Sequence[Any], process: int):
    self._directory, self._written = directory, written
    self._own = f"ocdbt.process_{process}"
    self._process = process

  def result(self, timeout: float | None = None) -> None:
    """Returns when both are there."""
    for future in self._written:
      future.result(timeout)
    folder = epath.Path(self._directory)
    sums = {
      f"{self._own}/{name}": digest
      for name, digest in _sums_below(folder / self._own).items()
    }
    name = f"{FILE}.{self._process}"
    (folder / name).write_text(_to_text(sums))

  def cancel(self) -> None:
    """Cancels what Orbax writes."""
    for future in self._written:
      future.cancel()


def _sums_below(path: epath.Path) -> dict[str, str]:
  folder = _Folder(path)
  return folder.sums(folder.names())


def handler() -> ocp.StandardCheckpointHandler:
  """Orbax's handler of a tree of arrays, with a digest of every file.

  It is not a class of its own, as a checkpoint names the class that reads it:
  this stays one that Orbax alone can read.
  """
  made = ocp.StandardCheckpointHandler()
  save, finalize = made.async_save, made.finalize

  async def async_save(directory: Any, *args: Any, **kwargs: Any) -> list[Any]:
    written = await save(directory, *args, **kwargs)
    return [_SummedUp(directory, written or [], jax.process_index())]

  def finalize_with_digests(directory: epath.Path) -> None:
    """On one process, when all have written and before the step counts."""
    finalize(directory)
    _join(epath.Path(directory))

  made.async_save = async_save
  made.finalize = finalize_with_digests
  return made


def _join(folder: epath.Path) -> None:
  """One file of digests from those of the processes and those of the rest."""
  below = _Folder(folder)
  names = below.names()
  parts = [name for name in names if name.startswith(f"{FILE}.")]
  sums = {}
  for part in parts:
    sums |= _from_text((folder / part).read_text(), part)
  rest = [name for name in names if name not in sums and name not in parts]
  sums |= below.sums(rest)
  (folder / FILE).write_text(_to_text(sums))
  for part in parts:
    (folder / part).unlink()


def damaged(directory: epath.PathLike) -> str | None:
  """The first file of a saved state that is not as it was written, or None.

  Processes share the reading, so all of them must ask.

  Args:
    directory: the state's folder in a checkpoint.

  Returns:
    Path and what is wrong with it; None if all is well.

  Raises:
    FileNotFoundError: it was saved without digests.
  """
  path = epath.Path(directory)
  text = (path / FILE).read_bytes().decode(errors="replace")
  try:
    found = _first_damaged(path, text)
  except (OSError, ValueError) as error:
    found = str(error)
  if jax.process_count() > 1:
    number = multihost.all_hosts_sum(np.array([found is not None], np.int32))[0]
    if number and found is None:
      return f"{path} is damaged, as another host says"
  return found


def _first_damaged(path: epath.Path, text: str) -> str | None:
  folder = _Folder(path)
  sums = _from_text(text, os.fspath(path / FILE))
  there = {*folder.names()} - {FILE, *_AFTERWARDS}
  for name in sorted({*sums} ^ there):
    return f"{path / name} is {'new' if name in there else 'missing'}"
  mine = sorted(sums)[jax.process_index() :: jax.process_count()]
  for name, digest in folder.sums(mine).items():
    if digest != sums[name]:
      return (
        f"{path / name} is damaged: its SHA-256 is not that written with it"
      )
  return None


def with_metrics(
  state: Any, metrics: Mapping[str, float] | None
) -> ocp.args.StandardSave:
  """A state to be saved, with a copy of its metrics below its digests.

  Args:
    state: tree of arrays.
    metrics: by which Orbax ranks steps, in a file of its own.
  """
  copy = None if metrics is None else {METRICS: dict(metrics)}
  return ocp.args.StandardSave(state, custom_metadata=copy)


def metrics_file(step: epath.Path) -> epath.Path:
  """Where Orbax keeps the metrics of a step, below its folder."""
  return step / METRICS / METRICS


def damaged_metrics(step: epath.Path, name: str) -> str | None:
  """What is wrong with the metrics of a saved step, or None.

  Args:
    step: its folder.
    name: the metric that steps are ranked by.
  """
  file = metrics_file(step)
  try:
    found = json.loads(file.read_bytes()) if file.exists() else None
    if found is not None:
      float(found[name])
  except (ValueError, TypeError, KeyError) as error:
    return f"{file} is damaged ({type(error).__name__}: {error})"
  try:
    described = json.loads((step / "state" / "_METADATA").read_bytes())
  except (FileNotFoundError, ValueError):
    return None  # no step yet, or found with its digests
  copy = (described.get("custom_metadata") or {}).get(METRICS, found)
  return None if copy == found else f"{file} is damaged: it was {copy}"
