"""Atomic file writes and listings, on a disk or in an object store.

Whole folders are opened, filled and fetched here too.
"""

import atexit
import contextlib
import errno
import io
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

import fsspec
from etils import epath

from jaxalign.data.records import reach, sources
from jaxalign.runtime.io import hub, scratch


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
    with full_disk_named(path), open(partial, "wb") as file:
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
      with full_disk_named(path):
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
    with full_disk_named(self._path):
      rest = memoryview(content)
      while rest:
        rest = rest[self._file.write(rest) :]

  def flush(self) -> None:
    """Returns once everything written would survive a power cut."""
    if not isinstance(self._file, io.BytesIO):
      with full_disk_named(self._path):
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


# The packages that reach a store, of the extra `cloud`.
CLIENTS = {"gs": "gcsfs", "s3": "s3fs"}
WEIGHTS = ".safetensors"

Listing = list[tuple[str, int, int]]

_fetched: dict[tuple[str, bool], tuple[Listing, str]] = {}


def _use_store(path: epath.PathLike) -> None:
  """Makes ready for a store, or says what is missing.

  Raises:
    ValueError: a kind of store that is not supported.
    ModuleNotFoundError: its client is not installed.
  """
  scheme = os.fspath(path).split("://")[0]
  if scheme not in CLIENTS:
    raise ValueError(
      f"{path}: must be a folder, "
      f"{' or '.join(f'{name}://' for name in CLIENTS)}"
    )
  try:
    fsspec.get_filesystem_class(scheme)
  except ImportError as error:
    raise ModuleNotFoundError(
      f"{path} needs {CLIENTS[scheme]}: pip install 'jaxalign[cloud]'"
    ) from error
  # A client would otherwise remember what a folder held, and not see what
  # TensorStore and the other hosts have written since.
  for name in (scheme, CLIENTS[scheme].removesuffix("fs")):
    fsspec.config.conf.setdefault(name, {}).setdefault(
      "use_listings_cache", False
    )


def open_workdir(path: epath.PathLike) -> epath.Path:
  """The folder of a run, made if absent, that this process may write to.

  Args:
    path: a folder, or one in a bucket that exists.

  Returns:
    The same, absolute on a disk: Orbax takes no other, and a stage that changes
    folders keeps its own.

  Raises:
    ValueError: a kind of store that is not supported.
    ModuleNotFoundError: the client of the store is not installed.
    OSError: nothing can be written or removed there, with the reason.
  """
  if is_local(path):
    folder = epath.Path(os.path.abspath(epath.Path(path).expanduser()))
    _make(folder)
    return folder
  _use_store(path)
  folder = epath.Path(path)
  probe = folder / f".{secrets.token_hex(4)}"
  try:
    probe.write_bytes(b"may this process write here?")
    probe.unlink()
  except FileNotFoundError as error:
    bucket = "/".join(os.fspath(folder).split("/")[:3])
    raise OSError(
      f"workdir {folder}: there is no bucket {bucket}; make it first, in the "
      "region of the machines"
    ) from error
  except Exception as error:  # every client has exceptions of its own
    rights = (
      "an object was not written and removed again, as the account of this "
      "machine must be allowed to: "
    )
    raise OSError(reach.why(f"workdir {folder}", error, rights)) from error
  return folder


def _make(folder: epath.Path) -> None:
  """Makes a folder that this process may write to, or says why it cannot."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except (FileExistsError, NotADirectoryError) as error:
    file = next(p for p in (folder, *folder.parents) if p.exists())
    raise OSError(
      f"workdir {folder}: {file} is a file; give a folder"
    ) from error
  except OSError as error:
    raise OSError(f"workdir {folder}: {error.strerror}") from error
  if not os.access(folder, os.W_OK | os.X_OK):
    raise OSError(
      f"workdir {folder}: no permission to write there; give another folder, "
      "or have its owner change the rights"
    )


@contextlib.contextmanager
def filled(path: epath.PathLike) -> Iterator[pathlib.Path]:
  """A local folder whose files become those of `path`.

  Args:
    path: the folder, made if absent; other files in it stay.

  Yields:
    The folder itself on a disk; else an empty one, whose files are copied when
    the context ends well, each whole, in the order of their names.
  """
  target = epath.Path(path)
  if is_local(target):
    target.mkdir(parents=True, exist_ok=True)
    with full_disk_named(target):
      yield pathlib.Path(target)
    return
  with (
    full_disk_named(target),
    contextlib.closing(scratch.Folder("filled")) as made,
  ):
    folder = made.path / target.name
    folder.mkdir()
    yield folder
    for file in sorted(folder.rglob("*")):
      if file.is_file():
        to = target / os.fspath(file.relative_to(folder))
        epath.Path(file).copy(to, overwrite=True)


def resolved(text: str, *, weights: bool = True) -> str:
  """A model's or tokenizer's folder, as a config names it, on this machine.

  Args:
    text: the folder, with environment variables; the id of a model on the hub;
      or a word that is neither.
    weights: see `fetched`.

  Returns:
    As `fetched`; of an id, the folder of the hub's cache.

  Raises:
    ValueError: see `fetched` and `hub.snapshot`.
  """
  path = sources.expand_variables(text)
  if hub.is_hub_id(path):
    return os.fspath(hub.snapshot(path, weights=weights))
  return fetched(path, weights=weights)


def fetched(path: str, *, weights: bool = True) -> str:
  """A folder on this machine's disk with the files of `path`.

  Args:
    path: a folder without subfolders that matter.
    weights: whether files of weights are wanted too.

  Returns:
    `path` itself on a disk; else a copy that lives as long as the process, made
    anew when the files have changed.

  Raises:
    ValueError: a kind of store that is not supported, or nothing is there.
    ModuleNotFoundError: the client of the store is not installed.
  """
  if is_local(path):
    return path
  _use_store(path)
  source = epath.Path(path)
  files = []
  try:
    files = [
      file
      for file in source.iterdir()
      if (weights or not file.name.endswith(WEIGHTS)) and file.is_file()
    ]
  except FileNotFoundError:
    pass  # said below
  except Exception as error:  # every client has exceptions of its own
    raise ValueError(reach.why(path, error)) from error
  if not files:
    raise ValueError(f"{path} holds no files")
  stats = [(file.name, file.stat()) for file in sorted(files)]
  found = [(name, stat.length, stat.mtime) for name, stat in stats]
  if _fetched.get((path, weights), ([],))[0] != found:
    made = scratch.Folder(source.name)
    atexit.register(made.close)
    with full_disk_named(made.path):
      for file in files:
        file.copy(epath.Path(made.path, file.name))
    _fetched[path, weights] = found, os.fspath(made.path)
  return _fetched[path, weights][1]


_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
# As libraries say it that have no errors of the operating system.
_WORDS = ("No space left on device", "Disk quota exceeded")


class FullDisk(OSError):
  """The disk is full."""


@contextlib.contextmanager
def full_disk_named(path: os.PathLike[str] | str) -> Iterator[None]:
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
