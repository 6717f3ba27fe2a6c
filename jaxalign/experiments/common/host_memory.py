"""Allocator settings of a run on a CPU: memory that is kept between steps.

The runtime allocates a step's scratch anew each time. The C library maps memory
of that size and unmaps it, so that each step faults all its pages in again. A
process can only change that before it starts: it starts itself once more.
"""

import glob
import os
import sys
from collections.abc import Mapping

VARIABLE = "JAXALIGN_MALLOC"
# One heap for all threads, nothing mapped by itself, and at most 1 GiB that is
# free at the end of the heap is kept.
TUNABLES = ":".join(
  f"glibc.malloc.{name}"
  for name in ("arena_max=1", "mmap_max=0", f"trim_threshold={1 << 30}")
)
ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*")


def _has_glibc() -> bool:
  try:
    return bool(os.confstr("CS_GNU_LIBC_VERSION"))
  except (AttributeError, OSError, ValueError):
    return False


def settings(environment: Mapping[str, str]) -> dict[str, str]:
  """What to add to the environment of a run.

  Args:
    environment: of this process. GLIBC_TUNABLES stays as it is, and
      JAXALIGN_MALLOC=system leaves the allocator alone.

  Returns:
    The variables; none where the user has settings or wants none, where the C
    library is another, or where there is an accelerator, which keeps its own
    memory.

  Raises:
    ValueError: JAXALIGN_MALLOC is set to something else.
  """
  wish = environment.get(VARIABLE, "keep")
  if wish not in ("keep", "system"):
    raise ValueError(f"{VARIABLE} must be keep or system, got {wish!r}")
  if wish == "system" or "GLIBC_TUNABLES" in environment or not _has_glibc():
    return {}
  if any(glob.glob(pattern) for pattern in ACCELERATORS):
    return {}
  return {"GLIBC_TUNABLES": TUNABLES}


def start_again() -> None:
  """Replaces this process by itself under `settings`, if there are any."""
  added = settings(os.environ)
  if added and sys.orig_argv:
    sys.stdout.flush()
    os.execve(
      sys.executable,
      [sys.executable, *sys.orig_argv[1:]],
      {**os.environ, **added},
    )
