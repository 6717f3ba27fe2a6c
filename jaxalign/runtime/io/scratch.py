"""Scratch folders on the local disk, cleaned up after killed runs.

Each is locked by its process. Making one removes those whose process has ended,
as copies of models and checkpoints are large.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
import time

_PREFIX, _LOCK = "jaxalign.", ".lock"
_YOUNG_S = 60.0  # in which a folder may not have its lock yet


class Folder:
  """A folder that is removed with `close`, or after a kill by the next run.

  Attributes:
    path: where it is.
  """

  def __init__(self, name: str) -> None:
    """Makes it, and removes what killed processes have left.

    Args:
      name: a word on what it is for, part of its name.
    """
    _remove_dead()
    self.path = pathlib.Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}."))
    self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT)
    with contextlib.suppress(OSError):  # a file system without locks
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

  def close(self) -> None:
    """Removes it; a second call does nothing."""
    if self._lock >= 0:
      shutil.rmtree(self.path, ignore_errors=True)
      os.close(self._lock)
      self._lock = -1


def _remove_dead() -> None:
  for path in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
    with contextlib.suppress(OSError):  # another user's, or gone already
      if time.time() - path.stat().st_mtime < _YOUNG_S:
        continue
      lock = os.open(path / _LOCK, os.O_RDWR)
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
      finally:
        os.close(lock)
