"""Reference of config keys: type, default and meaning, from the dataclasses.

A field says what it means under `Attributes:` of its class; the text of
`--help` and of docs/config.md is made of that.
"""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxalign.experiments.common import config

WIDTH = 80
REQUIRED = "required"


class Key(NamedTuple):
  """A key of a config.

  Attributes:
    name: without its section.
    type: its annotation, as a reader of Python writes it.
    default: what it has where a config leaves it out; "required" where it must
      not, "" for a section, whose keys have defaults of their own.
    meaning: one sentence or more, without a full stop at the end.
    sections: dataclasses that it may hold; none for a value.
  """

  name: str
  type: str
  default: str
  meaning: str
  sections: tuple[Any, ...]


def keys(kind: Any) -> list[Key]:
  """The keys of one section, in the order of its fields."""
  said, hints = meanings(kind), typing.get_type_hints(kind)
  return [
    Key(
      field.name,
      written(hints[field.name]),
      _default(field, hints[field.name]),
      said[field.name].removesuffix("."),
      tuple(config.sections_of(hints[field.name])),
    )
    for field in dataclasses.fields(kind)
  ]


def meanings(kind: Any) -> dict[str, str]:
  """What the docstring of a dataclass, or of one above it, says of each field.

  Args:
    kind: the dataclass.

  Returns:
    Text by name of the field.
  """
  found: dict[str, str] = {}
  for one in reversed(kind.__mro__):
    if dataclasses.is_dataclass(one):
      _, _, block = inspect.cleandoc(one.__doc__ or "").partition(
        "Attributes:\n"
      )
      for name, text in re.findall(
        r"^  (\w+): (.*(?:\n    .*)*)", block.partition("\n\n")[0], re.M
      ):
        found[name] = " ".join(text.split())
  return found


def summary(kind: Any) -> str:
  """The first line of a dataclass's docstring."""
  return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def written(hint: Any) -> str:
  """An annotation without the modules of its names."""
  if hint is type(None):
    return "None"
  if typing.get_origin(hint) is typing.Literal:
    return " | ".join(map(repr, typing.get_args(hint)))
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return " | ".join(map(written, typing.get_args(hint)))
  if typing.get_origin(hint) is tuple:
    inner = ["..." if a is ... else written(a) for a in typing.get_args(hint)]
    return f"tuple[{', '.join(inner)}]"
  return str(hint.__name__)


def _default(field: "dataclasses.Field[Any]", hint: Any) -> str:
  if dataclasses.is_dataclass(hint):
    return ""
  if field.default is dataclasses.MISSING:
    return REQUIRED
  return repr(field.default).replace("'", '"')


def help_text(kind: Any) -> str:
  """All keys of a stage's config for a terminal.

  Args:
    kind: the stage's config dataclass.
  """
  head = (
    "Keys of the config with type and default, set by --config.KEY=VALUE; the "
    "config file sets at least what is required."
  )
  return "\n".join([textwrap.fill(head, WIDTH), "", *_lines(kind, "")])


def _lines(kind: Any, prefix: str) -> Iterator[str]:
  for key in keys(kind):
    path = f"{prefix}{key.name}"
    default = f" = {key.default}" if key.default else ""
    if key.default == REQUIRED:
      default = f", {REQUIRED}"
    of = "" if key.sections else f": {key.type}"
    yield f"{path}{of}{default}"
    yield textwrap.fill(
      key.meaning, WIDTH, initial_indent="    ", subsequent_indent="    "
    )
    for section in key.sections:
      if len(key.sections) > 1:
        yield f"{path}, with name={config.names(section)[0]!r}"
        yield f"    {summary(section)}"
      yield from _lines(section, f"{path}.")
