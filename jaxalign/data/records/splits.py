"""Train and held-out splits: what they may not share, and how to make them."""

import hashlib
from collections.abc import Iterable

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.ops import checks

UNITS = ("pair", "prompt", "annotator")


def key_of(record: Record, by: str) -> str:
  """What records of one unit have in common.

  Args:
    record: any record.
    by: "pair" (prompt and responses in any order, so that all votes on a pair
      stay together), "prompt" or "annotator".

  Returns:
    A text, equal for records of one unit only.

  Raises:
    ValueError: another unit; by "annotator" where the record has none.
  """
  checks.one_of(UNITS, by=by)
  if by == "annotator":
    if record.annotator is None:
      raise ValueError(
        f"{record.place()}: split by annotator needs one in every record, this "
        f"one of source {record.source} has none"
      )
    return record.annotator
  prompt = text_of(record.prompt)
  if by == "prompt":
    return prompt
  return "\0".join([prompt, *sorted(map(text_of, record.responses))])


def _number(key: str) -> int:
  """64 bits that depend on nothing but the key."""
  return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])


def number_of(record: Record, by: str) -> int:
  """A record's unit as 64 bits, equal for records of one unit only."""
  return _number(key_of(record, by))


def is_held_out(record: Record, by: str, fraction: float) -> bool:
  """Whether a record's unit is among the held-out share of all units.

  A function of the record alone: neither other records nor their order, nor a
  random state, decide where it goes.

  Args:
    record: any record.
    by: the unit, see `key_of`.
    fraction: expected share of held-out units, in (0, 1).

  Returns:
    True for held-out records.
  """
  if not 0.0 < fraction < 1.0:
    raise ValueError(f"fraction must be in (0, 1), got {fraction}")
  return _number(f"{by}|{key_of(record, by)}") < fraction * 2**64


def split_records(
  records: Iterable[Record], by: str, fraction: float
) -> tuple[list[Record], list[Record]]:
  """Training and held-out records that share no unit.

  Args:
    records: read once.
    by: the unit, see `key_of`.
    fraction: expected share of held-out units, in (0, 1).

  Returns:
    Both, in the order given.

  Raises:
    ValueError: nothing is left on one side.
  """
  parts: tuple[list[Record], list[Record]] = ([], [])
  for record in records:
    parts[is_held_out(record, by, fraction)].append(record)
  for name, part in zip(("training", "held-out"), parts, strict=True):
    if not part:
      raise ValueError(
        f"split by {by} with fraction {fraction} leaves no {name} record of "
        f"{sum(map(len, parts))}"
      )
  return parts


def check_leaks(
  train: Iterable[Record], held_out: Iterable[Record], by: str
) -> None:
  """Raises ValueError if training and held-out records share a unit.

  Args:
    train: read once; eight bytes of each unit are kept.
    held_out: read once.
    by: the unit, see `key_of`.
  """
  seen = {number_of(record, by) for record in train}
  shared = [r for r in held_out if number_of(r, by) in seen]
  if shared:
    first = shared[0]
    raise ValueError(
      f"{len(shared)} held-out records share their {by} with training, the "
      f"first is {first.id} of source {first.source}"
    )
