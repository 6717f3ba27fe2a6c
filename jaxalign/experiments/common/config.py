"""From an ml_collections config to frozen dataclasses, checked by name."""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
from etils import epath

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
  check(kind, config, path)
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
  values = {**defaults, **left_out(kind, config), **config}
  made = ml_collections.ConfigDict()
  for name, value in values.items():
    made[name] = _open(hints.get(name), value)
  return made


def _open(hint: Any, value: Any) -> Any:
  """A value that takes others of its annotation, None among them if allowed."""
  sections = sections_of(hint)
  if dataclasses.is_dataclass(value):
    # Not asdict, which would go all the way down.
    fields = dataclasses.fields(value)
    value = {field.name: getattr(value, field.name) for field in fields}
  if is_mapping(value):
    if len(sections) > 1:
      name = value.get("name")
      sections = [one for one in sections if name in names(one)]
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
  given = {**left_out(kind, config), **config}
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
    return _convert(named(inner, value, path), value, path)
  if origin is typing.Literal:
    if value not in arguments:
      raise ValueError(
        f"{path} must be one of {', '.join(map(repr, arguments))}, got "
        f"{value!r}"
      )
    return value
  if dataclasses.is_dataclass(hint):
    if not is_mapping(value):
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


NUM_NEAREST = 3


def is_mapping(value: Any) -> bool:
  """Whether a value of a config is a section."""
  return isinstance(value, (Mapping, ml_collections.ConfigDict))


def sections_of(hint: Any) -> list[Any]:
  """The dataclasses that an annotation allows; more than one have a `name`."""
  if dataclasses.is_dataclass(hint):
    return [hint]
  if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
    return [k for k in typing.get_args(hint) if dataclasses.is_dataclass(k)]
  return []


def names(kind: Any) -> tuple[str, ...]:
  """What the literal `name` of a dataclass may be."""
  return typing.get_args(typing.get_type_hints(kind)["name"])


def named(kinds: Sequence[Any], value: Any, path: str) -> Any:
  """The one of several dataclasses whose literal `name` a section gives.

  Args:
    kinds: the dataclasses.
    value: the section.
    path: its name, for errors.

  Returns:
    The dataclass.

  Raises:
    TypeError: no section.
    ValueError: it has no `name`, or one of none of them.
  """
  if len(kinds) == 1:
    return kinds[0]
  if not is_mapping(value):
    raise TypeError(f"{path} must be a mapping, got {value!r}")
  by_name = {name: kind for kind in kinds for name in names(kind)}
  allowed = ", ".join(map(repr, sorted(by_name)))
  if "name" not in value:
    raise ValueError(f"missing key {path}.name, one of {allowed}")
  if value["name"] not in by_name:
    raise ValueError(
      f"{path}.name must be one of {allowed}, got {value['name']!r}"
    )
  return by_name[value["name"]]


def check(kind: Any, config: Any, path: str) -> None:
  """Refuses keys too many or too few, all of them at once.

  Args:
    kind: a dataclass, possibly of dataclasses.
    config: its section of a config.
    path: name of the section, for errors.

  Raises:
    TypeError: a section that is none.
    ValueError: unknown keys, with the nearest names; else all missing keys that
      have no default.
  """
  unknown: list[str] = []
  missing: list[str] = []
  for at, section, found in _sections(kind, config, path):
    fields = {field.name: field for field in dataclasses.fields(section)}
    unknown += _unknown(kind, [*fields], at, [*found], path)
    given = {*found, *left_out(section, found)}
    missing += [
      f"{at}.{name}"
      for name, field in fields.items()
      if name not in given and _has_no_default(field)
    ]
  if unknown:
    raise ValueError("; ".join(unknown))
  if missing:
    keys = "key" if len(missing) == 1 else "keys"
    raise ValueError(f"missing {keys} {', '.join(missing)}")


def _sections(
  kind: Any, config: Any, path: str
) -> Iterator[tuple[str, Any, Any]]:
  """Path, dataclass and content of a section and of all sections in it."""
  yield path, kind, config
  hints = typing.get_type_hints(kind)
  given = {**left_out(kind, config), **config}
  for key, value in given.items():
    kinds, at = sections_of(hints.get(key)), f"{path}.{key}"
    if kinds and is_mapping(value):
      yield from _sections(named(kinds, value, at), value, at)
    elif kinds and isinstance(value, (list, tuple)):
      for i, entry in enumerate(value):
        if is_mapping(entry):
          yield from _sections(kinds[0], entry, f"{at}[{i}]")


def left_out(kind: Any, config: Any) -> dict[str, Any]:
  """Empty sections for those that a config leaves out and that must be there.

  Their keys may all have defaults; those that have none are named one by one.

  Args:
    kind: a dataclass.
    config: its section of a config.
  """
  hints = typing.get_type_hints(kind)
  return {
    field.name: {}
    for field in dataclasses.fields(kind)
    if field.name not in config
    and _has_no_default(field)
    and dataclasses.is_dataclass(hints[field.name])
  }


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
  return field.default is dataclasses.MISSING


def _unknown(
  kind: Any, allowed: list[str], section: str, keys: list[str], path: str
) -> list[str]:
  """What to say of the keys of a section that its dataclass does not have."""
  said, strange = [], []
  for key in keys:
    if key in allowed:
      continue
    whole = f"{section}.{key}".removeprefix(f"{path}.")
    near = nearest(kind, whole)
    # A key of the same section under another `name` is no slip of the fingers.
    if near and whole not in near:
      meant = " or ".join(near)
      said.append(f"unknown key {section}.{key}; did you mean {meant}?")
    else:
      strange.append(f"{section}.{key}")
  if strange:
    words = "key" if len(strange) == 1 else "keys"
    takes = ", ".join(sorted(allowed))
    said.append(
      f"unknown {words} {', '.join(strange)}; {section} takes {takes}"
    )
  return said


def nearest(kind: Any, key: str) -> list[str]:
  """The keys of a dataclass that a mistyped one may stand for, best first.

  Args:
    kind: the dataclass of the whole config.
    key: dotted, without the name of the config.

  Returns:
    Dotted keys, at most `NUM_NEAREST`.
  """
  last = key.rpartition(".")[2]
  likeness = {}
  for path in paths(kind):
    name = path.rpartition(".")[2]
    initials = "".join(word[:1] for word in name.split("_"))
    same = 1.0 if last in (name, initials) else _likeness(last, name)
    # Of names as like, the one in the section that was meant.
    likeness[path] = (same, _likeness(key, path))
  best = sorted(likeness, key=likeness.__getitem__, reverse=True)
  return [
    path
    for path in best[:NUM_NEAREST]
    if likeness[path][0] >= max(0.75, likeness[best[0]][0] - 0.1)
  ]


def _likeness(a: str, b: str) -> float:
  return difflib.SequenceMatcher(None, a, b).ratio()


def paths(kind: Any, prefix: str = "") -> Iterator[str]:
  """All dotted keys of a dataclass, sections before what is in them."""
  for path, hint in _children(kind, prefix).items():
    yield path
    for section in sections_of(hint):
      yield from paths(section, f"{path}.")


def _children(kind: Any, prefix: str) -> dict[str, Any]:
  """Annotation by dotted key, of the keys of one section."""
  hints = typing.get_type_hints(kind)
  return {f"{prefix}{f.name}": hints[f.name] for f in dataclasses.fields(kind)}
