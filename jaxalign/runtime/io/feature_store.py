"""Feature store: vectors by key in a memory-mapped file, added to and resumed.

A folder holds `features.bin`, float32 rows one after another, `keys.bin` with
the key of each row, and `features.json`, which says what they are vectors of.
A key is written once its row is, so what a kill leaves is a shorter store.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.models.hf import json_files
from jaxalign.runtime.io import filesystem

KEY_BYTES = 16
VALUES, KEYS, DESCRIPTION, LOCK = (
  "features.bin",
  "keys.bin",
  "features.json",
  ".lock",
)


class FeatureStore:
  """Rows of one width by key, on a disk.

  Attributes:
    width: numbers per row.
    folder: where they are.
  """

  def __init__(
    self, folder: str | os.PathLike[str], about: Mapping[str, Any], width: int
  ) -> None:
    """Opens a folder, or makes it.

    Args:
      folder: on a disk; an object store cannot be mapped into memory.
      about: what the rows are vectors of, values of JSON.
      width: numbers per row.

    Raises:
      ValueError: the folder is no disk's, or holds rows of something else.
    """
    if not filesystem.is_local(folder):
      raise ValueError(
        f"features are mapped into memory from a disk, got {folder}; set the "
        "folder to one on a disk that all hosts see"
      )
    self.width = width
    self.folder = pathlib.Path(folder)
    self.folder.mkdir(parents=True, exist_ok=True)
    self._rows: dict[bytes, int] = {}
    content = {**about, "width": width}
    file = self.folder / DESCRIPTION
    if not file.exists():
      text = json.dumps(content, indent=2, sort_keys=True)
      filesystem.write_atomically(file, f"{text}\n".encode())
    found = json_files.read_object(file)
    for name in sorted({*found, *content}):
      if found.get(name) != content.get(name):
        raise ValueError(
          f"{self.folder} holds features with {name} {found.get(name)!r}, "
          f"wanted {content.get(name)!r}: give another folder"
        )
    self.refresh()

  def __len__(self) -> int:
    """Rows that were there at the last look."""
    return len(self._rows)

  def refresh(self) -> None:
    """Looks again at which rows there are."""
    file = self.folder / KEYS
    found = file.read_bytes() if file.exists() else b""
    whole = min(len(found) // KEY_BYTES, self._values_bytes() // self._stride)
    for row in range(len(self._rows), whole):
      self._rows[found[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = row

  def rows(self, keys: Sequence[bytes]) -> np.ndarray:
    """Row of each key, -1 where there is none, int64 [N]."""
    return np.array([self._rows.get(key, -1) for key in keys], np.int64)

  def values(self) -> np.ndarray:
    """All rows as they lie in the file, float32 [n, width], read-only."""
    if not self._rows:
      return np.zeros((0, self.width), np.float32)
    return np.memmap(
      self.folder / VALUES, np.float32, "r", shape=(len(self), self.width)
    )

  @contextlib.contextmanager
  def writing(self) -> Iterator[None]:
    """Keeps other processes from adding rows; waits until none does."""
    with open(self.folder / LOCK, "wb") as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      self.refresh()
      for name, size in (
        (VALUES, len(self) * self._stride),
        (KEYS, len(self) * KEY_BYTES),
      ):
        with open(self.folder / name, "ab") as file:
          file.truncate(size)  # what a kill cut short
      yield

  def append(self, keys: Sequence[bytes], values: np.ndarray) -> None:
    """Adds rows at the end, within `writing`.

    Args:
      keys: of `KEY_BYTES` each, none of which is there.
      values: float [N, width].

    Raises:
      ValueError: keys and values do not fit, or a number is not finite.
      FullDisk: there is no room for them.
    """
    if values.shape != (len(keys), self.width):
      raise ValueError(
        f"values must be {(len(keys), self.width)}, got shape {values.shape}"
      )
    if not np.isfinite(values).all():
      raise ValueError(
        "a feature is not finite: the model's parameters or its compute type "
        "do not hold it"
      )
    for name, content in (
      (VALUES, np.ascontiguousarray(values, np.float32).tobytes()),
      (KEYS, b"".join(keys)),
    ):
      path = self.folder / name
      with filesystem.full_disk_named(path), open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    for key in keys:
      self._rows[key] = len(self._rows)

  @property
  def _stride(self) -> int:
    return 4 * self.width

  def _values_bytes(self) -> int:
    file = self.folder / VALUES
    return file.stat().st_size if file.exists() else 0
