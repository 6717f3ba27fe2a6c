"""Differences of two configs, and which of them a resumed run may have."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxalign.experiments.common import config

# Keys of an earlier version -> their names now, both dotted.
RENAMED: dict[str, str] = {}

# Sections and keys that decide when something is done, how long it is kept and
# on which devices, not what comes out; docs/reliability.md lists them.
MAY_CHANGE = frozenset(
  {
    "coupling.num_groups",
    "coupling.num_sources",
    "data.prefetch",
    "data.streaming",
    "ensemble.at_once",
    "ensemble.batch_size",
    "ensemble.fraction",
    "ensemble.num_shown",
    "eval",
    "judge.batch_size",
    "judge.budget",
    "judge.connection",
    "judge.judge.budget",
    "judge.url",
    "mesh",
    "model.attention",
    "model.remat",
    "model.unroll",
    # Counted where they are None; a number that is not the data's is refused.
    "recipe.num_groups",
    "recipe.num_sources",
    "recipe.num_users",
    "source.batch_size",
    "source.connection",
    "source.judge.budget",
    "source.url",
    "train.accumulation",
    "train.checkpoint_every",
    "train.digests",
    "train.eval_every",
    "train.export",
    "train.keep_best",
    "train.keep_last",
    "train.max_bad_steps",
    "train.trackers",
    "train.num_reference",
    "train.parallel",
  }
)
# The same of `sample`, whose keys stand in no section.
MAY_CHANGE_AT_TOP = frozenset({"batch_size"})
MAY_GROW = frozenset({"train.num_steps", "train.num_iterations", "limit"})


class Change(NamedTuple):
  """A key whose value is not the one that the run began with.

  Attributes:
    key: dotted.
    old: value then.
    new: value now.
  """

  key: str
  old: Any
  new: Any


def resolved(kind: type[Any], content: dict[str, Any]) -> dict[str, Any]:
  """A stored config with its keys renamed and defaults filled in.

  Args:
    kind: the stage's config dataclass.
    content: as it was stored.

  Returns:
    Nested dicts.

  Raises:
    ValueError, TypeError: it is not of that kind.
  """
  for old, new in RENAMED.items():
    *sections, name = old.split(".")
    at: Any = content
    for section in sections:
      at = at.get(section) if isinstance(at, dict) else None
    if isinstance(at, dict) and name in at:
      value = at.pop(name)
      *sections, name = new.split(".")
      to = content
      for section in sections:
        to = to.setdefault(section, {})
      to[name] = value
  made = config.to_dataclass(kind, content, "config.json")
  return dataclasses.asdict(made)


def differences(old: Any, new: Any, path: str = "") -> list[Change]:
  """Every key in which two configs differ, sorted.

  Args:
    old: nested dicts.
    new: nested dicts.
    path: dotted key of both.
  """
  return [*_differences(old, new, path)]


def _differences(old: Any, new: Any, path: str) -> Iterator[Change]:
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted({*old, *new}):
      inner = f"{path}.{key}" if path else key
      yield from _differences(old.get(key), new.get(key), inner)
  elif old != new:
    yield Change(path, old, new)


def may(change: Change) -> bool:
  """Whether a run goes on with the change."""
  if change.key in MAY_GROW:
    as_number = lambda value: math.inf if value is None else value
    return as_number(change.new) >= as_number(change.old)
  parts = change.key.split(".")
  allowed = MAY_CHANGE if len(parts) > 1 else MAY_CHANGE | MAY_CHANGE_AT_TOP
  return any(".".join(parts[:i]) in allowed for i in range(1, len(parts) + 1))
