"""The folder of temporary files of one session of tests, gone when it ends."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

PREFIX = "jaxalign-tests-"


@contextlib.contextmanager
def folder() -> Iterator[str]:
  """Where this process and those it starts put their temporary files.

  So nobody has to clean up: not a test that makes a folder with `mkdtemp`, nor
  a run that a test kills, nor a worker of pytest-xdist, whose folder is within.
  """
  before = tempfile.tempdir, os.environ.get("TMPDIR")
  path = tempfile.mkdtemp(prefix=PREFIX)
  tempfile.tempdir = os.environ["TMPDIR"] = path
  try:
    yield path
  finally:
    tempfile.tempdir = before[0]
    if before[1] is None:
      del os.environ["TMPDIR"]
    else:
      os.environ["TMPDIR"] = before[1]
    shutil.rmtree(path, ignore_errors=True)
