"""Mutation test: breaks lines of the library, and says which tests notice.

python -m tests.broken_lines --seed=0 --number=30

Lines are drawn from a seed, as many of each floor. Each is broken alone in a
copy of the checkout, then the nearest tests run until one fails: those of the
module, those of files that import it, the whole fast tier, and only for what
has survived these, the slow tests of the module and of its importers. A row of
the table says who noticed; a line that nobody noticed lacks a test, or matters
to nobody.
"""

import argparse
import ast
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from tests import checkout

FLOORS = ("ops", "losses", "metrics", "algorithms", "data", "models", "runtime")
SWAPPED = {
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "//": "%",
  "%": "//",
  "**": "*",
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "==": "!=",
  "!=": "==",
  "is": "is not",
  "is not": "is",
  "in": "not in",
  "not in": "in",
  "and": "or",
  "or": "and",
}


class Break(NamedTuple):
  """One change of one line.

  Attributes:
    path: of the module, below the checkout.
    line: from 1.
    was: what stood there.
    now: what stands there instead.
    start: where, in characters of the text.
    end: where it ended.
  """

  path: str
  line: int
  was: str
  now: str
  start: int
  end: int

  def applied(self, text: str) -> str:
    """The module's text with the break in it."""
    return text[: self.start] + self.now + text[self.end :]


def breaks(path: str, text: str) -> list[Break]:
  """Every break of a module that this script knows.

  Args:
    path: of the module.
    text: its content.

  Returns:
    Operators swapped, numbers and truth values changed, signs and negations
    dropped; nothing inside a raised error, an annotation or a string.
  """
  starts = [0]
  for line in text.encode().splitlines(keepends=True):
    starts.append(starts[-1] + len(line))
  data = text.encode()

  def place(line: int, column: int) -> int:
    return len(data[: starts[line - 1] + column].decode())

  found = []
  for start, end, now in _changes(ast.parse(text)):
    first, last = place(*start), place(*end)
    was = text[first:last]
    if now is None:  # an operator, with the blanks and brackets around it
      stripped = was.strip(" \n()")
      if stripped not in SWAPPED:
        continue
      first += was.index(stripped)
      last = first + len(stripped)
      was, now = stripped, SWAPPED[stripped]
    line = text.count("\n", 0, first) + 1
    found.append(Break(path, line, was, now, first, last))
  return found


Place = tuple[int, int]


def _changes(tree: ast.AST) -> Iterator[tuple[Place, Place, str | None]]:
  """(start, end, new text), None for the operator that stands between."""
  match tree:
    case ast.Raise() | ast.JoinedStr() | ast.Assert():
      return
    case ast.arg():
      return
    case ast.AnnAssign(value=value):
      if value is not None:
        yield from _changes(value)
      return
    case (
      ast.BinOp(left=left, right=right)
      | ast.Compare(left=left, comparators=[right])
    ):
      yield _end(left), _start(right), None
    case ast.BoolOp(values=[first, second, *_]):
      yield _end(first), _start(second), None
    case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
      yield _start(tree), _start(operand), ""
    case ast.Constant(value=bool() as value):
      yield _start(tree), _end(tree), str(not value)
    case ast.Constant(value=int() as value):
      yield _start(tree), _end(tree), str(value + 1)
    case ast.Constant(value=float() as value):
      yield _start(tree), _end(tree), repr(1.5 * value + 0.125)
  for name, child in ast.iter_fields(tree):
    if name in ("returns", "annotation", "decorator_list"):
      continue
    for part in child if isinstance(child, list) else [child]:
      if isinstance(part, ast.AST):
        yield from _changes(part)


def _start(node: ast.AST) -> Place:
  return node.lineno, node.col_offset


def _end(node: ast.AST) -> Place:
  return node.end_lineno, node.end_col_offset


def drawn(seed: int, number: int) -> list[Break]:
  """As many breaks of each floor, at most one of a line."""
  draw = random.Random(seed)
  chosen = []
  for place, floor in enumerate(FLOORS):
    every: dict[tuple[str, int], list[Break]] = {}
    for path in checkout.files(f"jaxalign/{floor}/*.py"):
      name = checkout.relative(path)
      for one in breaks(name, path.read_text(encoding="utf-8")):
        every.setdefault((name, one.line), []).append(one)
    wanted = len(range(place, number, len(FLOORS)))
    for key in draw.sample(sorted(every), wanted):
      chosen.append(draw.choice(every[key]))
  return chosen


def importers(module: str) -> list[str]:
  """Test files that import a module of the library, by path."""
  found = []
  floor, _, name = module.rpartition(".")
  for path in checkout.files("tests/*_test.py"):
    text = path.read_text(encoding="utf-8")
    names = {name for _, name in checkout.imports(ast.parse(text))}
    # A floor's package gives out what its modules define.
    if module in names or (
      floor in names and f"{floor.split('.')[-1]}." in text
    ):
      found.append(checkout.relative(path))
  return found


def rounds(path: str, *, nearest: bool) -> list[tuple[str, list[str]]]:
  """(who notices, pytest arguments), the nearest first, or these alone."""
  own = path.replace("jaxalign/", "tests/").removesuffix(".py") + "_test.py"
  module = path.removesuffix(".py").replace("/", ".")
  mirror = [own] if (checkout.ROOT / own).exists() else []
  near = [name for name in importers(module) if name != own]
  found = [("its own tests", mirror), ("tests that import it", near)]
  found = [(who, ["--tier=fast", *files]) for who, files in found if files]
  if nearest:
    return found
  found.append(("the fast tier", ["--tier=fast"]))
  if mirror or near:
    found.append(("slow tests alone", ["--tier=slow", *mirror, *near]))
  return found


def notice(
  one: Break, copy: pathlib.Path, workers: int, *, nearest: bool
) -> str:
  """Who notices a break in a copy of the checkout; "nobody" where none does."""
  file = copy / one.path
  text = file.read_text(encoding="utf-8")
  file.write_text(one.applied(text), encoding="utf-8")
  try:
    for who, arguments in rounds(one.path, nearest=nearest):
      done = subprocess.run(
        [
          sys.executable,
          *("-m", "pytest", "-x", "-q", "-n", str(workers), "--dist=loadfile"),
          *arguments,
        ],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
      )
      if done.returncode not in (0, 5):  # 5: no test was selected
        failed = [
          line.split(" - ")[0]
          for line in done.stdout.splitlines()
          if line.startswith(("FAILED", "ERROR"))
        ]
        return f"{who}: {failed[0] if failed else done.stdout[-200:]}"
  finally:
    file.write_text(text, encoding="utf-8")
  return "nobody"


def main() -> None:
  """Breaks lines and prints a table; a line of JSON each with --log."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--number", type=int, default=30)
  parser.add_argument("--workers", type=int, default=os.cpu_count())
  parser.add_argument(
    "--nearest",
    action="store_true",
    help="ask no tier as a whole, which takes longest",
  )
  parser.add_argument("--log", help="file that gets a line of JSON per break")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder, "checkout")
    for path in checkout.files():
      target = copy / checkout.relative(path)
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(path, target)
    # Rule tests ask git for the files; compiled programs are shared.
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    programs = checkout.ROOT / ".pytest_cache"
    programs.mkdir(exist_ok=True)
    (copy / ".pytest_cache").symlink_to(programs)
    for one in drawn(options.seed, options.number):
      who = notice(one, copy, options.workers, nearest=options.nearest)
      print(
        f"| `{one.path}:{one.line}` | `{one.was}` → `{one.now}` | {who} |",
        flush=True,
      )
      if options.log:
        with open(options.log, "a", encoding="utf-8") as log:
          log.write(json.dumps(one._asdict() | {"noticed": who}) + "\n")


if __name__ == "__main__":
  main()
