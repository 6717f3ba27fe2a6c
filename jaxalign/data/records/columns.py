"""Column parsers: a JSON value in, a checked value out, one per kind.

Every parser takes the column's name and the value, and raises ValueError with
what was got and what is allowed.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

# A whole number as a spreadsheet or a data frame writes it beside a gap.
_WHOLE = re.compile(r"(0|-?[1-9][0-9]*)\.0+")
_LARGEST_EXACT = 2**53  # of the floats


def kind(value: Any) -> str:
  """What a value is, without quoting long text into an error."""
  if value is None:
    return "nothing"
  names = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}
  if type(value) in names:
    return names[type(value)]
  return f"{type(value).__name__} {str(value)[:40]}"


def string(name: str, value: Any) -> str:
  """Text that UTF-8 can hold."""
  if not isinstance(value, str):
    raise ValueError(f"{name} must be text, got {kind(value)}")
  try:
    value.encode("utf-8")
  except UnicodeEncodeError:
    raise ValueError(f"{name} holds a lone surrogate, not text") from None
  return value


def number(name: str, value: Any) -> float:
  """A finite number; a boolean is not one."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise ValueError(f"{name} must be a number, got {kind(value)}")
  try:
    result = float(value)
  except OverflowError:
    result = math.inf
  if not math.isfinite(result):
    raise ValueError(f"{name} must be finite, got {str(value)[:40]}")
  return result


def probability(name: str, value: Any) -> float:
  """A number in [0, 1]."""
  result = number(name, value)
  if not 0.0 <= result <= 1.0:
    raise ValueError(f"{name} must be in [0, 1], got {result}")
  return result


def spread(name: str, value: Any) -> float:
  """A number >= 0."""
  result = number(name, value)
  if result < 0.0:
    raise ValueError(f"{name} must be >= 0, got {result}")
  return result


def count(name: str, value: Any) -> int:
  """A whole number in [0, 2**31); 3.0 passes, CSV and parquet write it so."""
  result = number(name, value)
  if not result.is_integer():
    raise ValueError(f"{name} must be a whole number, got {kind(value)}")
  if not 0 <= result < 2**31:
    raise ValueError(f"{name} must be in [0, 2**31), got {str(value)[:40]}")
  return int(result)


def place(name: str, value: Any) -> int:
  """0 for shown first, 1 for shown second."""
  result = count(name, value)
  if result > 1:
    raise ValueError(f"{name} must be 0 or 1, got {result}")
  return result


def flag(name: str, value: Any) -> bool:
  """True or false."""
  if not isinstance(value, bool):
    raise ValueError(f"{name} must be true or false, got {kind(value)}")
  return value


def label(name: str, value: Any) -> str:
  """The name of a source, person or group, or an id.

  A whole number becomes text, "7" for all of 7, 7.0 and the text "7.0": tables
  turn a column of whole numbers into floats where a cell is empty.
  """
  if isinstance(value, float) and value.is_integer():
    if abs(value) > _LARGEST_EXACT:
      raise ValueError(
        f"{name} {value} is too large to be exact as a float, so it may name "
        "several; write it as text"
      )
    value = int(value)
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  if not isinstance(value, str):
    raise ValueError(
      f"{name} must be text or a whole number, got {kind(value)}"
    )
  if not value:
    raise ValueError(f"{name} must not be empty; null means absent")
  whole = _WHOLE.fullmatch(value)
  return string(name, value if whole is None else whole[1])


def ratings(value: Any, num_responses: int) -> dict[str, tuple[float, ...]]:
  """Attribute to one number per response, or one for the first alone."""
  if not isinstance(value, Mapping):
    raise ValueError(
      f"ratings must map an attribute to numbers, got {kind(value)}"
    )
  result = {}
  for attribute, given in value.items():
    name = f"ratings[{attribute!r}]"
    if given is None:
      continue
    numbers = given if isinstance(given, (list, tuple)) else [given]
    if len(numbers) not in (1, num_responses):
      raise ValueError(
        f"{name} must hold 1 number or one per response ({num_responses}), "
        f"got {len(numbers)}"
      )
    result[string("ratings", attribute)] = tuple(
      number(name, entry) for entry in numbers
    )
  return result


def labels(
  value: Any, num_responses: int, name: str = "labels"
) -> tuple[tuple[float, ...], ...]:
  """Distributions over d classes, one per response or one for the first."""
  if not isinstance(value, (list, tuple)) or not value:
    raise ValueError(f"{name} must be a list of numbers, got {kind(value)}")
  rows = tuple(value) if isinstance(value[0], (list, tuple)) else (value,)
  if len(rows) not in (1, num_responses):
    raise ValueError(
      f"{name} must hold 1 distribution or one per response "
      f"({num_responses}), got {len(rows)}"
    )
  result = []
  for row in rows:
    if not isinstance(row, (list, tuple)) or len(row) != len(rows[0]):
      raise ValueError(f"{name} must be distributions over the same classes")
    probs = tuple(probability(name, entry) for entry in row)
    # 1e-3: distributions are often written with four decimals.
    if abs(math.fsum(probs) - 1.0) > 1e-3:
      raise ValueError(f"{name} must sum to 1, got {math.fsum(probs):g}")
    result.append(probs)
  return tuple(result)


def label_prior(
  value: Any, num_responses: int
) -> tuple[tuple[float, ...], ...]:
  """What `labels` are, of the distribution before any vote."""
  return labels(value, num_responses, "label_prior")


def label_votes(value: Any, num_responses: int) -> tuple[tuple[int, ...], ...]:
  """People per class, for every response or for the first."""
  if not isinstance(value, (list, tuple)) or not value:
    raise ValueError(f"label_votes must be a list of counts, got {kind(value)}")
  rows = tuple(value) if isinstance(value[0], (list, tuple)) else (value,)
  if len(rows) not in (1, num_responses):
    raise ValueError(
      "label_votes must hold 1 row of counts or one per response "
      f"({num_responses}), got {len(rows)}"
    )
  result = []
  for row in rows:
    if not isinstance(row, (list, tuple)) or len(row) != len(rows[0]):
      raise ValueError("label_votes must be counts of the same classes")
    result.append(tuple(count("label_votes", entry) for entry in row))
    if not sum(result[-1]):
      raise ValueError("label_votes of a response are all 0")
  return tuple(result)


PARSERS: dict[str, Callable[[str, Any], Any]] = {
  "num_ranked": count,
  "chosen_prob": probability,
  "votes_chosen": count,
  "votes_rejected": count,
  "votes_tie": count,
  "n_votes": count,
  "tie": flag,
  "margin": number,
  "strength": number,
  "strength_std": spread,
  "judge_prob": probability,
  "source": label,
  "annotator": label,
  "group": label,
  "position": place,
  "id": label,
}
PER_RESPONSE: dict[str, Callable[[Any, int], Any]] = {
  "ratings": ratings,
  "labels": labels,
  "label_prior": label_prior,
  "label_votes": label_votes,
}
