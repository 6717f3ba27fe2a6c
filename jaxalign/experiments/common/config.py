"""From an ml_collections config to frozen dataclasses, checked by name."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
from etils import epath

from jaxalign.experiments.common import key_names
from jaxalign.runtime.io import filesystem

T = TypeVar("T")


def to_dataclass(
  kind: type[T], config: Mapping[str, Any], path: str = "config"
) -> T:
  """A frozen dataclass of a config; a key that is left out has its default.

  Args:
    kind: a dataclass; nested dataclasses take nested configs.
    config: a mapping, e.g. an ml_collections ConfigDict.
    path: name of the mapping, for errors.

  Returns:
    An instance of `kind`.

  Raises:
    ValueError: unknown keys, keys left out that have no default, or a value
      its dataclass refuses.
    TypeError: a value of the wrong type.
  """
  key_names.check(kind, config, path)
  return _made(kind, config, path)


def completed(
  kind: type[Any], config: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """A config with the defaults of its stage, each key open to its own type.

  Whoever parses an override of a key sees what type it has, also where the
  file leaves it out. What is wrong stays as it is, for `to_dataclass` to name.

  Args:
    kind: a dataclass; nested dataclasses take nested configs.
    config: the config of a file.

  Returns:
    Another ConfigDict. Keys without a default that are left out stay so.
  """
  hints = typing.get_type_hints(kind)
  defaults = {
    field.name: field.default
    for field in dataclasses.fields(kind)
    if field.default is not dataclasses.MISSING
  }
  values = {**defaults, **key_names.left_out(kind, config), **config}
  made = ml_collections.ConfigDict()
  for name, value in values.items():
    made[name] = _open(hints.get(name), value)
  return made


def _open(hint: Any, value: Any) -> Any:
  """A value that takes others of its annotation, None among them if allowed."""
  sections = key_names.sections_of(hint)
  if dataclasses.is_dataclass(value):
    # Not asdict, which would go all the way down.
    fields = dataclasses.fields(value)
    value = {field.name: getattr(value, field.name) for field in fields}
  if key_names.is_mapping(value):
    if len(sections) > 1:
      name = value.get("name")
      sections = [one for one in sections if name in key_names.names(one)]
    return completed(sections[0], value) if sections else value
  inner = [a for a in typing.get_args(hint) if a is not type(None)]
  optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
  allowed = inner[0] if optional and len(inner) == 1 else hint
  allowed = typing.get_origin(allowed) or allowed
  if sections and value is None:
    allowed = dict
  if allowed is float and type(value) is int:
    value = float(value)
  if optional and (value is None or isinstance(value, allowed)):
    return ml_collections.FieldReference(value, field_type=allowed)
  return value


def _made(kind: type[T], config: Mapping[str, Any], path: str) -> T:
  """The dataclass of a section whose keys are known to be right."""
  hints = typing.get_type_hints(kind)
  given = {**key_names.left_out(kind, config), **config}
  values = {
    name: _convert(hints[name], value, f"{path}.{name}")
    for name, value in given.items()
  }
  try:
    return kind(**values)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _convert(hint: Any, value: Any, path: str) -> Any:
  """`value` as the annotated type; whole numbers pass as floats, not bools."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    # The command line has no other way to unset a text.
    if type(None) in arguments and (value is None or value == "None"):
      return None
    inner = [a for a in arguments if a is not type(None)]
    return _convert(key_names.named(inner, value, path), value, path)
  if origin is typing.Literal:
    if value not in arguments:
      raise ValueError(
        f"{path} must be one of {', '.join(map(repr, arguments))}, got "
        f"{value!r}"
      )
    return value
  if dataclasses.is_dataclass(hint):
    if not key_names.is_mapping(value):
      raise TypeError(f"{path} must be a mapping, got {value!r}")
    return _made(hint, value, path)  # type: ignore[arg-type]
  if origin is tuple:
    if isinstance(value, str) or not isinstance(value, Sequence):
      raise TypeError(f"{path} must be a tuple, got {value!r}")
    if arguments[-1] is Ellipsis:
      inner = [arguments[0]] * len(value)
    elif len(arguments) == len(value):
      inner = list(arguments)
    else:
      raise TypeError(
        f"{path} must have {len(arguments)} entries, got {value!r}"
      )
    return tuple(
      _convert(kind, entry, f"{path}[{i}]")
      for i, (kind, entry) in enumerate(zip(inner, value, strict=True))
    )
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, hint) or (
    isinstance(value, bool) and hint is not bool
  ):
    got = "" if value is None else f"{type(value).__name__} "
    raise TypeError(f"{path} must be {hint.__name__}, got {got}{value!r}")
  return value


def write_json(path: epath.PathLike, content: Any) -> None:
  """Writes a JSON file that is whole at any moment.

  Args:
    path: the file.
    content: JSON values; JSON has no NaN and no infinity, so that what is
      undefined becomes null.
  """
  text = json.dumps(_finite(content), indent=2, sort_keys=True, allow_nan=False)
  filesystem.write_atomically(path, f"{text}\n".encode())


def _finite(value: Any) -> Any:
  """The same with null in place of what JSON has no word for."""
  if isinstance(value, Mapping):
    return {name: _finite(entry) for name, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(entry) for entry in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
