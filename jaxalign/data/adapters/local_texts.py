"""Local adapters, texts: files of demonstrations or of prompts alone."""

import functools
from collections.abc import Mapping
from typing import Any

from jaxalign.data.adapters import base
from jaxalign.data.records import splits
from jaxalign.data.records.record import Record

Row = Mapping[str, Any]

HELD_OUT = 0.2


def _story(row: Row) -> dict[str, Any]:
  """The opening of a story, a demonstration without a prompt."""
  return {
    "prompt": "",
    "responses": [base.need_text(row, "text")],
    "source": "stories260k_lm",
    "id": row.get("id"),
  }


def _opening(row: Row, *, held_out: bool) -> list[dict[str, Any]]:
  """The same as a prompt, if it is on this side of the split by its text."""
  text = base.need_text(row, "text")
  record = Record(prompt=text, responses=())
  if splits.is_held_out(record, "prompt", HELD_OUT) != held_out:
    return []
  return [{"prompt": text, "source": "stories260k_lm", "id": row.get("id")}]


def _stories(convert: base.Convert) -> base.Adapter:
  return base.Adapter(ignore=("ids",), reads=("id", "text"), row=convert)


ADAPTERS: dict[str, base.Adapter] = {
  "stories260k_lm/story_prompts": _stories(_story),
  "stories260k_lm/prompts_train": _stories(
    functools.partial(_opening, held_out=False)
  ),
  "stories260k_lm/prompts_test": _stories(
    functools.partial(_opening, held_out=True)
  ),
}
