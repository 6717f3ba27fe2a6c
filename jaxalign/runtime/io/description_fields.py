"""Fields of jaxalign.json: types, lengths and numbers, checked on reading.

A folder goes from hand to hand, and a share or a deviation that is wrong gives
rewards that look right. So each field is checked before anything uses it, and
the error names the file.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from jaxalign.models.config import (
  HEAD_ACTIVATIONS,
  LAYERS,
  LOG_LENGTHS,
  POOLINGS,
  is_layers,
)

KINDS = ("reward", "policy")


def check(
  content: Mapping[str, Any], file: str, *, known: Collection[str]
) -> None:
  """Checks the content of a jaxalign.json.

  Args:
    content: its fields.
    file: its name, for errors.
    known: all fields that there are.

  Raises:
    ValueError: a field is missing, unknown, has the wrong type or length, or a
      number is not finite.
  """
  unknown = sorted(set(content) - set(known))
  if unknown:
    raise ValueError(
      f"{file}: unknown field {unknown[0]}; known are {', '.join(known)}"
    )
  for name, (words, holds) in FIELDS.items():
    if name not in content and name in REQUIRED:
      raise ValueError(f"{file}: {name} is missing")
    if name in content and not holds(content[name]):
      raise ValueError(
        f"{file}: {name} must be {words}, got {str(content[name])[:80]}"
      )
  _check_lengths(content, file)


def _check_lengths(content: Mapping[str, Any], file: str) -> None:
  """Checks that lists with one entry per head have equal lengths."""
  heads = content["heads"]
  rewards = len(heads) if _reads_rewards(content) else 1
  fit, cost = content["calibration"] or {}, content.get("label_cost")
  for name, values, wanted in (
    ("calibration", fit.get("mean"), rewards),
    ("calibration", fit.get("std"), rewards),
    ("utilities", content["utilities"], len(heads)),
    ("mixture_weights", content["mixture_weights"], len(heads)),
    ("label_cost", cost, len(heads)),
    *(("label_cost", row, len(heads)) for row in cost or ()),
  ):
    if values is not None and len(values) != wanted:
      raise ValueError(
        f"{file}: {name} must hold {wanted} numbers for the heads "
        f"{', '.join(heads)}, got {len(values)}"
      )


def _reads_rewards(content: Mapping[str, Any]) -> bool:
  """Whether each output is a reward; a distribution's are one together."""
  return content.get("readout", "rewards") == "rewards"


def _is_number(value: Any) -> bool:
  """Whether a value is a finite number that a float can hold."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return False
  return abs(value) < 1e300 and math.isfinite(value)


def _is_list(value: Any) -> bool:
  return isinstance(value, (list, tuple)) and all(map(_is_number, value))


def _is_fit(value: Any) -> bool:
  if not isinstance(value, dict) or set(value) != {"mean", "std"}:
    return False
  return (
    all(map(_is_list, value.values())) and min(value["std"], default=0) >= 0
  )


def _is_shares(value: Any) -> bool:
  return _is_list(value) and all(0 <= share <= 1 for share in value)


def _is_heads(value: Any) -> bool:
  return isinstance(value, (list, tuple)) and all(
    isinstance(name, str) for name in value
  )


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_cost(value: Any) -> bool:
  return isinstance(value, (list, tuple)) and all(map(_is_list, value))


# Field -> what it must be, in words and as a question.
FIELDS = {
  "kind": (" or ".join(map(repr, KINDS)), lambda v: v in KINDS),
  "heads": ("a list of names", _is_heads),
  "max_length": ("an int >= 1", _is_count),
  "calibration": (
    'null or {"mean": numbers, "std": numbers >= 0}, all finite',
    lambda v: v is None or _is_fit(v),
  ),
  "utilities": (
    "null or a list of finite numbers",
    lambda v: v is None or _is_list(v),
  ),
  "mixture_weights": (
    "null or a list of shares in [0, 1]",
    lambda v: v is None or _is_shares(v),
  ),
  "provenance": ("an object", lambda v: isinstance(v, dict)),
  "texts": ("null or an object", lambda v: v is None or isinstance(v, dict)),
  "readout": ("a word", lambda v: isinstance(v, str)),
  "log_length": (
    "null or " + " or ".join(map(repr, LOG_LENGTHS)),
    lambda v: v in (None, *LOG_LENGTHS),
  ),
  "pooling": (" or ".join(map(repr, POOLINGS)), lambda v: v in POOLINGS),
  "mixed_layers": (
    f"null or {LAYERS}",
    lambda v: v is None or (isinstance(v, list) and is_layers(tuple(v))),
  ),
  "head_units": (
    "null or an int >= 2",
    lambda v: v is None or (_is_count(v) and v >= 2),
  ),
  "head_activation": (
    " or ".join(map(repr, HEAD_ACTIVATIONS)),
    lambda v: v in HEAD_ACTIVATIONS,
  ),
  "risk": ("a word", lambda v: isinstance(v, str)),
  "alpha": ("null or a finite number", lambda v: v is None or _is_number(v)),
  "kappa": ("null or a finite number", lambda v: v is None or _is_number(v)),
  "label_cost": (
    "null or lists of finite numbers",
    lambda v: v is None or _is_cost(v),
  ),
}
REQUIRED = (
  "kind",
  "heads",
  "max_length",
  "calibration",
  "utilities",
  "mixture_weights",
  "provenance",
)
