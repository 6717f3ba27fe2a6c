"""Leftovers of killed runs: half-written files that nobody will finish."""

import logging
import os
import pathlib
import shutil

_log = logging.getLogger(__name__)

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
