"""Personalized Soups adapter: pairs that one model judged as eight groups.

A file has the pairs of one group, P1A to P3D. The authors of MaxMin-RLHF deal
each file out to 40 people, of whom the first 20 train.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxalign.data.adapters import base
from jaxalign.data.records.files import Row

# What each group was told to want; a prompt may end in it.
INSTRUCTIONS = {
  "P1A": (
    "Generate a response that can be easily understood by an elementary school "
    "student."
  ),
  "P1B": (
    "Generate a response that only a PhD Student in that specific field could "
    "understand."
  ),
  "P2A": (
    "Generate a response that is concise and to the point, without being "
    "verbose."
  ),
  "P2B": (
    "Generate a response that is very informative, without missing any "
    "background information."
  ),
  "P3A": (
    "Generate a response that is friendly, witty, funny, and humorous, like a "
    "close friend."
  ),
  "P3B": "Generate a response in an unfriendly manner.",
  "P3C": "Generate a response in a sassy manner.",
  "P3D": "Generate a response in a sarcastic manner.",
}
PEOPLE, TRAINING_PEOPLE, FIRST_ROWS = 40, 20, 3000


def prompt_of(asked: str) -> str:
  """A question without any group's instruction, in the form Tulu has learned.

  Args:
    asked: `user_input` of a row.

  Returns:
    The prompt, which ends where the answer begins.
  """
  for sentence in INSTRUCTIONS.values():
    asked = asked.replace(sentence, "")
  return f"<|user|>\n{asked.strip()} \n<|assistant|>\n"


def _record(row: Mapping[str, Any], group: str, number: int) -> dict[str, Any]:
  """One pair; the group preferred `completion_a`."""
  return {
    "prompt": prompt_of(base.need_text(row, "user_input")),
    "chosen": base.need_text(row, "completion_a"),
    "rejected": base.need_text(row, "completion_b"),
    "source": "personalized_soups",
    "group": group,
    "annotator": f"{group}-{number % PEOPLE:02d}",
    "id": f"{group}-{number:06d}",
  }


def _pairs(
  found: Iterable[Row], *, people: range, limit: int | None
) -> Iterator[Row]:
  """Pairs of some of the people, row n being of person n mod 40."""
  for number, (where, row) in enumerate(found):
    if limit is not None and number >= limit:
      return
    if isinstance(row, ValueError):
      yield where, row
      continue
    if number % PEOPLE not in people:
      continue
    group = os.path.basename(where.rpartition(":")[0]).split(".")[0]
    try:
      yield where, _record(row, group, number)
    except ValueError as error:
      yield where, error


def _adapter(people: range, limit: int | None) -> base.Adapter:
  return base.Adapter(
    reads=("user_input", "completion_a", "completion_b"),
    stream=functools.partial(_pairs, people=people, limit=limit),
  )


ADAPTERS: dict[str, base.Adapter] = {
  "personalized_soups": _adapter(range(PEOPLE), None),
  # As in MaxMin-RLHF, which takes the first rows of each file.
  "personalized_soups/train": _adapter(range(TRAINING_PEOPLE), FIRST_ROWS),
  "personalized_soups/eval": _adapter(
    range(TRAINING_PEOPLE, PEOPLE), FIRST_ROWS
  ),
}
