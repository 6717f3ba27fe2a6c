"""Checkpoints in a store that Orbax cannot write to, by way of the disk."""

import json
import os
from collections.abc import Iterable
from concurrent import futures

from etils import epath

from jaxalign.runtime.io import filesystem, scratch

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
