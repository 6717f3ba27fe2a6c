"""Full disk: an error that names the disk and the file."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
# As libraries say it that have no errors of the operating system.
_WORDS = ("No space left on device", "Disk quota exceeded")


class FullDisk(OSError):
  """The disk is full."""


@contextlib.contextmanager
def named(path: os.PathLike[str] | str) -> Iterator[None]:
  """A block in which a full disk raises an error with the disk and the file.

  Args:
    path: what is written in the block, a file or a folder.

  Yields:
    Nothing.

  Raises:
    FullDisk: there was no room.
  """
  try:
    yield
  except FullDisk:
    raise
  except Exception as error:
    if not _is_full(error):
      raise
    raise FullDisk(_message(path, error)) from error


def _is_full(error: BaseException | None) -> bool:
  """Whether an error, or one that it came from, means a full disk."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _NUMBERS:
      return True
    if any(words in str(error) for words in _WORDS):
      return True
    error = error.__cause__ or error.__context__
  return False


def _message(path: os.PathLike[str] | str, error: Exception) -> str:
  file = os.fspath(path)
  if isinstance(error, OSError) and isinstance(error.filename, str):
    file = error.filename
  if "://" in file:  # a copy on the way there
    file = tempfile.gettempdir()
  disk = _disk(file)
  try:
    free = f"{shutil.disk_usage(disk).free / 2**20:.0f} MiB free"
  except OSError:
    free = "unknown free"
  return (
    f"no room on the disk {disk} ({free}, or a quota is used up) for {file}: "
    "make room and run the same command again, or use a --workdir elsewhere"
  )


def _disk(file: str) -> str:
  """The mount point below which a file lies."""
  place = os.path.realpath(file)
  while not os.path.ismount(place):
    place = os.path.dirname(place)
  return place
