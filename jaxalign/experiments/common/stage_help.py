"""Help of a stage: its flags and the keys of its config, from a table.

`--help` of the command reads the table, `stage_help.json`, and imports nothing
of what the stage does. `python docs/tabulate_config.py` makes it of the flags
and the dataclasses.
"""

import ast
import json
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

WIDTH = 80
REQUIRED = "required"
ASKED = ("--help", "-help", "-h", "-?", "--helpshort")
TABLE = pathlib.Path(__file__).with_suffix(".json")


class Key(NamedTuple):
  """A key of a config.

  Attributes:
    name: without its section.
    type: its annotation, as a reader of Python writes it.
    default: what it has where a config leaves it out; "required" where it must
      not, "" for a section, whose keys have defaults of their own.
    meaning: one sentence or more, without a full stop at the end.
    sections: dataclasses that it may hold, or their names; none for a value.
  """

  name: str
  type: str
  default: str
  meaning: str
  sections: tuple[Any, ...]


class Section(NamedTuple):
  """A section of a config.

  Attributes:
    summary: what it is, in one line.
    choice: its key `name`, where that chooses it among several; else None.
    keys: in the order of the fields.
  """

  summary: str
  choice: str | None
  keys: tuple[Key, ...]


Find = Callable[[Any], Section]  # of what stands in `Key.sections`
Flag = tuple[str, str]  # name, and what it does


def page(doc: str, flags: Iterable[Flag], keys: str | None) -> str:
  """What --help prints: the program, its flags, and the keys of its config.

  Args:
    doc: of the stage's module.
    flags: of the stage.
    keys: from `keys_text`, or None without a config.
  """
  said = [doc, "", "Flags:"]
  for name, meaning in flags:
    said += [f"--{name}", _indented(meaning)]
  if keys is not None:
    said += ["", keys]
  return "\n".join(said) + "\n"


def keys_text(section: Section, find: Find) -> str:
  """All keys of a stage's config for a terminal.

  Args:
    section: the whole config.
    find: gives the sections in it.
  """
  head = (
    "Keys of the config with type and default, set by --config.KEY=VALUE; the "
    "config file sets at least what is required."
  )
  lines = _lines(section, "", find)
  return "\n".join([textwrap.fill(head, WIDTH), "", *lines])


def _lines(section: Section, prefix: str, find: Find) -> Iterator[str]:
  for key in section.keys:
    path = f"{prefix}{key.name}"
    default = f" = {key.default}" if key.default else ""
    if key.default == REQUIRED:
      default = f", {REQUIRED}"
    of = "" if key.sections else f": {key.type}"
    yield f"{path}{of}{default}"
    yield _indented(key.meaning)
    for inner in map(find, key.sections):
      if len(key.sections) > 1:
        yield f"{path}, with name={inner.choice!r}"
        yield f"    {inner.summary}"
      yield from _lines(inner, f"{path}.", find)


def _indented(text: str) -> str:
  return textwrap.fill(
    text, WIDTH, initial_indent="    ", subsequent_indent="    "
  )


def of_stage(file: pathlib.Path) -> str | None:
  """What --help of a stage prints, from the table.

  Args:
    file: of the stage's module.

  Returns:
    The text; None for a stage that is not in the table, as its keys depend on
    another argument.
  """
  table = json.loads(TABLE.read_text("utf-8"))
  stage = table["stages"].get(file.stem)
  if stage is None:
    return None

  def find(name: str) -> Section:
    summary, choice, keys = table["sections"][name]
    return Section(summary, choice, tuple(Key(*key) for key in keys))

  doc = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
  keys = keys_text(find(stage["config"]), find)
  return page(doc, stage["flags"], keys)
