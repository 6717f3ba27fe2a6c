"""Config files by path, or by the name of one that jaxalign ships.

What a config is for and which variants it has is read off its text, so that
nothing has to be installed or run.
"""

import ast
import os
import pathlib
import re

COMMAND = re.compile(r"python -m jaxalign\.experiments\.(\w+)")
PACKAGE = pathlib.Path(__file__).resolve().parents[2]
# Inside the package in a wheel, beside it in a checkout: what lies beside an
# installed package is somebody else's.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")


def folder() -> pathlib.Path | None:
  """Where the shipped configs are, None in an installation without them."""
  return next((path for path in FOLDERS if path.is_dir()), None)


def find(path: str) -> str:
  """A config file, or another file beside the shipped ones, from any folder.

  Args:
    path: FILE as seen from here, else configs/NAME.py, NAME.py or NAME of a
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
  candidate = shipped / (name if os.path.splitext(name)[1] else f"{name}.py")
  return os.fspath(candidate) if candidate.is_file() else path


def variants(path: pathlib.Path) -> list[str]:
  """The variants of a shipped config, as they stand after the colon.

  Args:
    path: the file, with the constants VARIANTS and, where one file holds
      several sizes of a model, SIZES.

  Returns:
    Variants, then sizes, then both as SIZE,VARIANT.
  """
  constants = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in _parsed(path).body
    if isinstance(node, ast.Assign)
    and isinstance(node.targets[0], ast.Name)
    and node.targets[0].id in ("VARIANTS", "SIZES")
  }
  alone, sizes = constants.get("VARIANTS", ()), constants.get("SIZES", ())
  both = [f"{size},{variant}" for size in sizes for variant in alone]
  return [*alone, *sizes, *both]


def question(path: pathlib.Path) -> str:
  """The first line of a config's docstring."""
  return (ast.get_docstring(_parsed(path)) or "").partition("\n")[0]


def stage(path: pathlib.Path) -> str | None:
  """The stage whose command a config's docstring gives, None without one."""
  found = COMMAND.search(ast.get_docstring(_parsed(path)) or "")
  return None if found is None else found.group(1)


def _parsed(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text("utf-8"))
