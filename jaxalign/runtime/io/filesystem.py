"""Files that are whole at any moment, on a disk or in an object store."""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from jaxalign.runtime.io import full_disk


def is_local(path: epath.PathLike) -> bool:
  """Whether the path is on a file system, not a URI such as gs://."""
  return "://" not in os.fspath(path)


def write_atomically(path: epath.PathLike, content: bytes) -> None:
  """Replaces a file so that a reader or a kill sees the old or the new one.

  On a file system the bytes go to a neighbouring file that is renamed; an
  object store publishes an object only once it is complete.

  Args:
    path: file to write; its folder must exist on a file system.
    content: the whole file.

  Raises:
    FullDisk: there is no room for it.
  """
  path = epath.Path(path)
  if not is_local(path):
    path.write_bytes(content)
    return
  # The process number keeps two writers out of each other's half-made file.
  partial = path.parent / f"{path.name}.{os.getpid()}.partial"
  try:
    with full_disk.named(path), open(partial, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def replaced(path: epath.PathLike) -> Iterator[BinaryIO]:
  """Like `write_atomically` for content that memory should not hold.

  Args:
    path: file to write; its folder must exist on a file system.

  Yields:
    A file; what was written becomes `path` when the context ends well, and is
    thrown away when it does not.
  """
  path = epath.Path(path)
  folder = os.fspath(path.parent) if is_local(path) else None
  with tempfile.NamedTemporaryFile(
    dir=folder, prefix=f"{path.name}.", suffix=".partial", delete=False
  ) as file:
    try:
      with full_disk.named(path):
        yield file
        file.flush()
        os.fsync(file.fileno())
      if is_local(path):
        os.chmod(file.name, 0o644)  # temporary files are for their owner alone
        os.replace(file.name, path)
        return
      epath.Path(file.name).copy(path, overwrite=True)
      os.unlink(file.name)
    except BaseException:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(file.name)
      raise


class AppendedFile:
  """Bytes added to the end of a file.

  On a file system each `write` reaches the operating system at once, so it
  survives the death of the process. An object store cannot append: the bytes
  are kept in memory and the whole object is rewritten when `rewrite_s` seconds
  have passed since the last time, at `flush` and at `close`. A kill loses what
  came after the last rewrite, so flush before saving whatever must not be
  ahead of this file.
  """

  def __init__(
    self,
    path: epath.PathLike,
    *,
    keep: bool = True,
    rewrite_s: float = 60.0,
  ):
    """Opens the file.

    Args:
      path: file to append to; made if absent.
      keep: whether what the file holds stays.
      rewrite_s: least seconds between rewrites in an object store.
    """
    self._path = epath.Path(path)
    self._rewrite_s = rewrite_s
    self._written = time.monotonic()
    self._changed = False
    if is_local(self._path):
      # Unbuffered: one system call per write, so a line is torn only by a
      # full disk or a kill inside that call.
      self._file: io.RawIOBase | io.BytesIO = open(  # noqa: SIM115
        self._path, "ab" if keep else "wb", buffering=0
      )
    else:
      old = self._path.read_bytes() if keep and self._path.exists() else b""
      self._file = io.BytesIO()
      self._file.write(old)

  def write(self, content: bytes) -> None:
    """Adds bytes at the end."""
    if isinstance(self._file, io.BytesIO):
      self._file.write(content)
      self._changed = True
      if time.monotonic() - self._written >= self._rewrite_s:
        self.flush()
      return
    with full_disk.named(self._path):
      rest = memoryview(content)
      while rest:
        rest = rest[self._file.write(rest) :]

  def flush(self) -> None:
    """Returns once everything written would survive a power cut."""
    if not isinstance(self._file, io.BytesIO):
      with full_disk.named(self._path):
        os.fsync(self._file.fileno())
    elif self._changed:
      write_atomically(self._path, self._file.getvalue())
      self._changed = False
      self._written = time.monotonic()

  def close(self) -> None:
    """Flushes and closes; a second call does nothing."""
    if not self._file.closed:
      self.flush()
      self._file.close()
