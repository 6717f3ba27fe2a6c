"""Persistent compilation cache: a second run of a stage compiles nothing.

JAX keeps compiled programs in a folder under a key of the program, the
compiler and the devices. That key leaves out what a CPU can do, so the folder
has a name of its own for each kind of CPU. Stages switch the cache on; the
library, when imported into other code, never does.
"""

import hashlib
import logging
import os
import pathlib
import platform

import jax

VARIABLE = "JAXALIGN_COMPILATION_CACHE"
OFF = "off"
MAX_BYTES = 4 << 30  # of a folder, before its oldest programs go

log = logging.getLogger("jaxalign")


def cpu_features() -> str:
  """What programs for this machine's CPU may rely on, as a short digest."""
  found = [platform.system(), platform.machine()]
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  if cpuinfo.exists():
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    # All cores of a machine are of one kind; of each line the first will do.
    wanted = ("model name", "flags", "Features")
    found += [
      next((line for line in lines if line.startswith(name)), "")
      for name in wanted
    ]
  return hashlib.sha256("\n".join(found).encode()).hexdigest()[:12]


def default_folder() -> pathlib.Path:
  """A folder of the user's caches, by the rules of the XDG base directories."""
  root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(root, "jaxalign", f"programs-{cpu_features()}")


def enable(folder: str | None = None) -> pathlib.Path | None:
  """Keeps the programs that this process compiles for processes after it.

  Args:
    folder: where; "off" for no cache. None asks the variable
      JAXALIGN_COMPILATION_CACHE, and without it takes `default_folder`. Many
      processes and hosts may share one: in a run on many hosts only the first
      of them writes, and an entry that a kill has cut off is compiled again.

  Returns:
    The folder; None where there is no cache, or JAX has been told of one
    already (`JAX_COMPILATION_CACHE_DIR`), which then stays as it is.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return None
  named = folder or os.environ.get(VARIABLE)
  if named == OFF:
    return None
  path = pathlib.Path(named).expanduser().absolute() if named else None
  path = path or default_folder()
  try:
    path.mkdir(parents=True, exist_ok=True)
    _shrink(path, MAX_BYTES)
  except OSError as error:
    log.warning(
      "compiled programs are not kept: %s (set %s to a folder, or to %s)",
      error,
      VARIABLE,
      OFF,
    )
    return None
  jax.config.update("jax_compilation_cache_dir", os.fspath(path))
  # Hundreds of small programs take as long as one large one.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  return path


def _shrink(folder: pathlib.Path, max_bytes: int) -> None:
  """Removes the oldest files until the folder is half as large as allowed.

  JAX's own limit takes a lock and lists the folder at every program.
  """
  with os.scandir(folder) as entries:
    files = [(e.stat().st_mtime, e.stat().st_size, e.path) for e in entries]
  total = sum(size for _, size, _ in files)
  if total <= max_bytes:
    return
  for _, size, path in sorted(files):
    if total <= max_bytes // 2:
      return
    pathlib.Path(path).unlink(missing_ok=True)  # another process may be faster
    total -= size
