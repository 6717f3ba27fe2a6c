"""The folder of real data that JAXALIGN_DATA names; unset, skip by name."""

import os
import pathlib
import unittest


def folder(name: str) -> pathlib.Path:
  if "JAXALIGN_DATA" not in os.environ:
    raise unittest.SkipTest("JAXALIGN_DATA is not set")
  return pathlib.Path(os.environ["JAXALIGN_DATA"], name)
