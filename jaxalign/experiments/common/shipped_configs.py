"""Config files by path, or by the name of one that jaxalign ships."""

import os
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[2]
# Beside the package in a checkout, inside it in a wheel.
FOLDERS = (PACKAGE.parent / "configs", PACKAGE / "configs")


def folder() -> pathlib.Path | None:
  """Where the shipped configs are, None in an installation without them."""
  return next((path for path in FOLDERS if path.is_dir()), None)


def find(path: str) -> str:
  """A config file from any folder.

  Args:
    path: FILE.py as seen from here, else configs/NAME.py, NAME.py or NAME of a
      shipped one; without a variant.

  Returns:
    `path` itself where it is a file, or where no shipped config is meant; else
    the shipped one.
  """
  if os.path.isfile(path):
    return path
  shipped = folder()
  parent, name = os.path.split(path)
  if shipped is None or parent not in ("", "configs"):
    return path
  candidate = shipped / (name if name.endswith(".py") else f"{name}.py")
  return os.fspath(candidate) if candidate.is_file() else path
