"""Train and held-out splits: what they may not share, and how to make them."""

import hashlib
from collections.abc import Iterable

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.ops import checks

WHOLE = ("pair", "prompt", "annotator")  # a record has one of each
ITEMS = ("item", "annotator_and_item")  # a record has several
UNITS = (*WHOLE, *ITEMS)


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
  checks.one_of(WHOLE, by=by)
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


def item_key(text: str) -> str:
  """What a response is known by as an item of its own."""
  return text.strip()


def keys_of(record: Record, by: str) -> dict[str, list[str]]:
  """All that a record must not share with the other side of a split.

  Args:
    record: any record.
    by: a unit of `key_of`; "item", each response whatever it is compared with;
      or "annotator_and_item", both.

  Returns:
    Keys by the unit that each is one of.

  Raises:
    ValueError: as `key_of`.
  """
  checks.one_of(UNITS, by=by)
  if by not in ITEMS:
    return {by: [key_of(record, by)]}
  keys = {"item": [item_key(text_of(text)) for text in record.responses]}
  if by == "annotator_and_item":
    keys["annotator"] = [key_of(record, "annotator")]
  return keys


def _number(key: str) -> int:
  """64 bits that depend on nothing but the key."""
  return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])


def _is_beyond(unit: str, key: str, fraction: float) -> bool:
  """Whether one key is among the held-out share of its unit."""
  if not 0.0 < fraction < 1.0:
    raise ValueError(f"fraction must be in (0, 1), got {fraction}")
  return _number(f"{unit}|{key}") < fraction * 2**64


def number_of(record: Record, by: str) -> int:
  """A record's unit as 64 bits, equal for records of one unit only."""
  return _number(key_of(record, by))


def numbers_of(record: Record, by: str) -> list[int]:
  """A record's keys as 64 bits each, equal for the same key only."""
  return [
    _number(f"{unit}|{key}")
    for unit, keys in keys_of(record, by).items()
    for key in keys
  ]


def item_side(text: str, by: str | None, fraction: float | None) -> int:
  """The side of a split that an item is on: 1 for held out.

  Args:
    text: of a response.
    by: the unit of the split, None for no split.
    fraction: expected share of held-out units, None for no split.

  Returns:
    0 or 1; 0 for every item unless the split is one of items.
  """
  if by not in ITEMS or fraction is None:
    return 0
  return int(_is_beyond("item", item_key(text), fraction))


def side_of(record: Record, by: str, fraction: float) -> bool | None:
  """Whether a record is held out, trains, or would be on both sides.

  A function of the record alone: neither other records nor their order, nor a
  random state, decide where it goes.

  Args:
    record: any record.
    by: the unit, see `keys_of`.
    fraction: expected share of held-out units, in (0, 1).

  Returns:
    True for held-out records, False for training ones. None where some keys
    are held out and others are not: a response of each side, or, by
    "annotator_and_item", a new person on known items. Such a record would leak
    on either side.
  """
  sides = {
    _is_beyond(unit, key, fraction)
    for unit, keys in keys_of(record, by).items()
    for key in keys
  }
  return sides.pop() if len(sides) == 1 else None


def is_held_out(record: Record, by: str, fraction: float) -> bool:
  """Whether a record is on the held-out side; see `side_of`."""
  return side_of(record, by, fraction) is True


def split_records(
  records: Iterable[Record], by: str, fraction: float
) -> tuple[list[Record], list[Record]]:
  """Training and held-out records that share no unit.

  Args:
    records: read once.
    by: the unit, see `keys_of`.
    fraction: expected share of held-out units, in (0, 1).

  Returns:
    Both, in the order given, without records that would be on both sides.

  Raises:
    ValueError: nothing is left on one side.
  """
  parts: tuple[list[Record], list[Record]] = ([], [])
  read = 0
  for record in records:
    read += 1
    side = side_of(record, by, fraction)
    if side is not None:
      parts[side].append(record)
  for name, part in zip(("training", "held-out"), parts, strict=True):
    if not part:
      raise ValueError(
        f"split by {by} with fraction {fraction} leaves no {name} record of "
        f"{read}"
      )
  return parts


def check_leaks(
  train: Iterable[Record], held_out: Iterable[Record], by: str
) -> None:
  """Raises ValueError if training and held-out records share a unit.

  Args:
    train: read once; eight bytes of each unit are kept.
    held_out: read once.
    by: the unit, see `keys_of`.
  """
  seen = {number for record in train for number in numbers_of(record, by)}
  shared = [r for r in held_out if not seen.isdisjoint(numbers_of(r, by))]
  if shared:
    first = shared[0]
    raise ValueError(
      f"{len(shared)} held-out records share their {' '.join(by.split('_'))} "
      f"with training, the first is {first.id} of source {first.source}"
    )
