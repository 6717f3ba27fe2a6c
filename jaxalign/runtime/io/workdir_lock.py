"""Workdir lock: one run writes, and others are told whose lock it is.

On a disk it is a lock of the operating system on `.lock`, which ends with the
process however that ends. An object store has no locks: there the owner
rewrites the object `owner.json` now and then, its heartbeat, and who finds one
that is not rewritten any more takes its place. Whoever holds the lock removes
the half-written files of killed runs.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import fsspec
from etils import epath

from jaxalign.runtime.io import filesystem

# As `storage`, `safetensor_files` and Orbax name what is not complete yet.
_FILES = ("*.partial", ".*.tmp")
_FOLDERS = ("*.orbax-checkpoint-tmp*",)


def remove_leftovers(workdir: os.PathLike[str] | str, lock: str) -> None:
  """Removes them below a folder that no other run writes to.

  Args:
    workdir: the folder, on a disk; an object is there whole or not at all.
    lock: name of the file that says that a run of its own writes to a folder,
      which is left alone.
  """
  found = _below(pathlib.Path(workdir), lock)
  for path in found:
    if path.is_dir():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink(missing_ok=True)
  if found:
    _log.warning(
      "%s: removed what killed runs left half-written: %s",
      workdir,
      ", ".join(path.name for path in found),
    )


def _below(folder: pathlib.Path, lock: str) -> list[pathlib.Path]:
  found = []
  for path in sorted(folder.iterdir()):
    if path.is_symlink():
      continue
    if path.is_dir():
      if any(path.match(pattern) for pattern in _FOLDERS):
        found.append(path)
      elif not (path / lock).exists():
        found += _below(path, lock)
    elif any(path.match(pattern) for pattern in _FILES):
      found.append(path)
  return found


_log = logging.getLogger(__name__)

LOCK, OWNER = ".lock", "owner.json"
BEAT_S = 20.0  # between signs of life
DEAD_S = 60.0  # without one, after which an owner counts as dead
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def held(
  workdir: epath.Path,
  *,
  is_main: bool,
  beat_s: float = BEAT_S,
  dead_s: float = DEAD_S,
) -> Iterator[None]:
  """A block in which no other run writes to a workdir.

  What killed runs have left half-written there is removed first.

  Args:
    workdir: of the run, a folder that is there or one in a bucket.
    is_main: whether this process holds it for all; the others do nothing.
    beat_s: seconds between signs of life in a bucket.
    dead_s: seconds without one, after which an owner there counts as dead.

  Yields:
    Nothing.

  Raises:
    ValueError: another run holds it, with its host and process.
  """
  if not is_main:
    yield
  elif filesystem.is_local(workdir):
    with _locked(workdir):
      remove_leftovers(workdir, LOCK)
      yield
  else:
    with _Owner(workdir, beat_s=beat_s, dead_s=dead_s):
      yield


def _identity() -> dict[str, Any]:
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
  }


def _taken(workdir: epath.Path, content: bytes) -> ValueError:
  """The error that names the owner."""
  try:
    owner = json.loads(content)
    who = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
  except (ValueError, TypeError, KeyError):  # it is just being written
    who = "another process"
  return ValueError(
    f"{workdir} is in use by {who}: wait until that run has ended, stop it, or "
    "use a new --workdir"
  )


@contextlib.contextmanager
def _locked(workdir: epath.Path) -> Iterator[None]:
  file = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
  try:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise _taken(workdir, os.pread(file, 4096, 0)) from error
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      _log.warning(
        "%s is on a file system without locks: a second run in it would not be "
        "noticed",
        workdir,
      )
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(_identity()).encode(), 0)
    yield
  finally:
    os.close(file)


class _Owner:
  """Owns an object in a store while the context is entered."""

  def __init__(self, workdir: epath.Path, *, beat_s: float, dead_s: float):
    self._workdir = workdir
    self._beat_s, self._dead_s = beat_s, dead_s
    self._store, self._path = fsspec.core.url_to_fs(os.fspath(workdir / OWNER))
    self._self = _identity() | {"token": secrets.token_hex(8)}
    self._beats = 0
    self._stopped = threading.Event()
    self._thread = threading.Thread(
      target=self._live, name="ownership", daemon=True
    )

  def __enter__(self) -> None:
    while not self._create():
      found = self._read()
      if found is not None:
        self._await_death(found)
    self._thread.start()

  def __exit__(self, *error: object) -> None:
    self._stopped.set()
    self._thread.join()
    if self._is_ours(self._read()):
      self._store.rm_file(self._path)

  def _content(self) -> bytes:
    self._beats += 1
    return json.dumps(self._self | {"beats": self._beats}).encode()

  def _create(self) -> bool:
    """Makes the object unless there is one; whether it is ours."""
    try:
      self._store.pipe_file(self._path, self._content(), mode="create")
    except Exception:  # every client has exceptions of its own
      if self._read() is None:
        raise
    return self._is_ours(self._read())

  def _read(self) -> bytes | None:
    try:
      return bytes(self._store.cat_file(self._path))
    except FileNotFoundError:
      return None

  def _is_ours(self, content: bytes | None) -> bool:
    return content is not None and self._self["token"].encode() in content

  def _await_death(self, found: bytes) -> None:
    """Removes an object that is not rewritten; raises if it is."""
    _log.warning(
      "%s has an owner; watching for up to %.0f s whether it lives",
      self._workdir,
      self._dead_s,
    )
    end = time.monotonic() + self._dead_s
    while time.monotonic() < end:
      time.sleep(min(self._beat_s / 4, self._dead_s / 4))
      now = self._read()
      if now is None:
        return
      if now != found:
        raise _taken(self._workdir, now)
    with contextlib.suppress(FileNotFoundError):
      self._store.rm_file(self._path)

  def _live(self) -> None:
    told = False
    while not self._stopped.wait(self._beat_s):
      try:
        found = self._read()
        if self._is_ours(found):
          self._store.pipe_file(self._path, self._content())
          continue
      except Exception as error:  # noqa: BLE001, as above
        if not told:
          _log.warning("no sign of life in %s: %s", self._workdir, error)
        told = True
        continue
      _end(f"{_taken(self._workdir, found or b'')}; it took this one for dead")


def _end(reason: str) -> None:
  """Ends the process at once: whatever it still writes would be mixed in."""
  sys.stderr.write(f"stopping with exit status 1: {reason}\n")
  sys.stderr.flush()
  os._exit(1)
