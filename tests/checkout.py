"""The checkout as the rule tests see it: its files and what they import."""

import ast
import pathlib
import subprocess
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "jaxalign"


def files(*patterns: str) -> list[pathlib.Path]:
  """Files that git tracks or would track, so that no build output counts.

  Args:
    *patterns: git pathspecs such as `*.py` (any depth) or `launch/*.sh`; none
      for all files.

  Returns:
    Absolute paths of files that exist, sorted.
  """
  listed = subprocess.run(
    [
      "git",
      "ls-files",
      "-z",
      "--cached",
      "--others",
      "--exclude-standard",
      "--",
      *patterns,
    ],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  paths = {ROOT / name for name in listed.split("\0") if name}
  return sorted(path for path in paths if path.is_file())


def library_files() -> list[pathlib.Path]:
  """Every Python file of the package."""
  return files("jaxalign/*.py")


def relative(path: pathlib.Path) -> str:
  """A path as the reader of a failure would type it."""
  return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
  """(line, dotted name) of all that a module imports, in functions too.

  `from a import b` gives `a.b`; a relative import keeps its leading dots.
  """
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
      module = "." * node.level + (node.module or "")
      for alias in node.names:
        yield node.lineno, f"{module}.{alias.name}"
