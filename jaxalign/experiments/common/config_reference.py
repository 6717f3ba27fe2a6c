"""Reference of config keys: type, default and meaning, from the dataclasses.

A field says what it means under `Attributes:` of its class; the text of
`--help` and of docs/config.md is made of that.
"""

import dataclasses
import functools
import inspect
import re
import types
import typing
from typing import Any

from jaxalign.experiments.common import config, stage_help
from jaxalign.experiments.common.stage_help import REQUIRED, Key


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


def section(kind: Any) -> stage_help.Section:
  """Summary and keys of a section, and the name that chooses it, if any."""
  hints = typing.get_type_hints(kind)
  names = config.names(kind) if "name" in hints else ()
  choice = names[0] if names else None
  return stage_help.Section(summary(kind), choice, tuple(keys(kind)))


def help_text(kind: Any) -> str:
  """All keys of a stage's config for a terminal.

  Args:
    kind: the stage's config dataclass.
  """
  return stage_help.keys_text(section(kind), functools.cache(section))


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
