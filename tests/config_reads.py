"""Which fields of a config are read while a stage runs.

A key that nothing reads is a lie in every config that sets it. Copies do not
count as reading, nor does a dataclass that checks itself.
"""

import contextlib
import dataclasses
import sys
import typing
from collections.abc import Iterator
from typing import Any

_COPIES = ("dataclasses", "copy", __name__)
_OWN = ("__post_init__", "__eq__", "__hash__", "__repr__")
# Read where a config is made, and by nobody after: it sets other fields.
_MADE = {"model.shape"}


def kinds(config: Any) -> dict[str, type]:
  """The dataclasses a config is made of, by dotted path ("" for the root)."""
  found = {"": type(config)}
  for field in dataclasses.fields(config):
    value = config.__dict__[field.name]
    if dataclasses.is_dataclass(value):
      for path, kind in kinds(value).items():
        found[f"{field.name}.{path}".rstrip(".")] = kind
  return found


@contextlib.contextmanager
def recorded(config: Any) -> Iterator[set[str]]:
  """Records reads of a config and of the dataclasses in it.

  Args:
    config: a frozen dataclass, possibly of dataclasses.

  Yields:
    The dotted names that nobody has read so far; it shrinks as they are.
  """
  paths = {kind: path for path, kind in kinds(config).items()}
  unread = {
    f"{path}.{field.name}".lstrip(".")
    for kind, path in paths.items()
    for field in dataclasses.fields(kind)
    # What tells one dataclass from its siblings is read where they are made.
    if typing.get_origin(field.type) is not typing.Literal
  } - _MADE

  def read(instance: Any, name: str) -> Any:
    caller = sys._getframe(1)
    if (
      caller.f_globals["__name__"] not in _COPIES
      and caller.f_code.co_name not in _OWN
    ):
      unread.discard(f"{paths[type(instance)]}.{name}".lstrip("."))
    return object.__getattribute__(instance, name)

  for kind in paths:
    kind.__getattribute__ = read
  try:
    yield unread
  finally:
    for kind in paths:
      del kind.__getattribute__
