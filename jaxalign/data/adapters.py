"""From other people's columns to the schema, one small table per data set."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxalign.data.rows import Row

RowFunction = Callable[[dict[str, Any]], dict[str, Any]]
StreamFunction = Callable[[Iterable[Row]], Iterator[Row]]


@dataclasses.dataclass(frozen=True)
class Adapter:
  """How one data set's rows become rows of the schema.

  Attributes:
    ignore: columns left out; any other unknown column stays an error.
    rename: its column -> the schema's.
    row: what renaming cannot do, on one row at a time.
    stream: what one row cannot do, e.g. joining the rows of one prompt; runs
      first, on rows that can be read.
  """

  ignore: tuple[str, ...] = ()
  rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
  row: RowFunction | None = None
  stream: StreamFunction | None = None

  def apply(
    self, found: Iterable[Row], extra_columns: frozenset[str]
  ) -> Iterator[Row]:
    """Rows in the schema's columns.

    Args:
      found: rows in the data set's columns.
      extra_columns: more columns to leave out.

    Yields:
      `(where, row)`.
    """
    if self.stream is not None:
      found = self.stream(found)
    for where, row in found:
      if isinstance(row, ValueError):
        yield where, row
        continue
      try:
        yield where, self._convert(row, extra_columns)
      except ValueError as error:
        yield where, error

  def _convert(
    self, row: Mapping[str, Any], extra_columns: frozenset[str]
  ) -> dict[str, Any]:
    ignored = extra_columns.union(self.ignore)
    kept = {
      self.rename.get(name, name): value
      for name, value in row.items()
      if name not in ignored
    }
    return kept if self.row is None else self.row(kept)


# The vote share of the data folders is no gap in reward units.
_SHARE = {"margin": "strength"}
_MODELS = ("chosen_model", "rejected_model")
_TURNS = ("n_turns", "multi_turn_divergence")

PLAIN = Adapter()

ADAPTERS: dict[str, Adapter] = {
  "plain": PLAIN,
  "hh_helpful": Adapter(ignore=_TURNS, rename=_SHARE),
  "hh_harmless": Adapter(ignore=_TURNS, rename=_SHARE),
  "hhh_alignment": Adapter(rename=_SHARE),
  "llmbar": Adapter(rename=_SHARE),
  "humour": Adapter(ignore=("chosen_item", "rejected_item"), rename=_SHARE),
  "convarg": Adapter(ignore=("gold",), rename=_SHARE),
  "pandalm": Adapter(rename=_SHARE),
  "qa_feedback": Adapter(rename=_SHARE),
  "mt_bench": Adapter(ignore=(*_MODELS, "turn", "gpt4_prefers"), rename=_SHARE),
  "cnndm_summaries": Adapter(ignore=(*_MODELS, "margins"), rename=_SHARE),
}


def find(name: str) -> Adapter:
  """The adapter of a folder or hub name, else the plain schema."""
  return ADAPTERS.get(name, PLAIN)


def get(name: str) -> Adapter:
  """The adapter called `name`; ValueError lists the names there are."""
  if name not in ADAPTERS:
    raise ValueError(
      f"unknown adapter {name!r}; allowed: {', '.join(sorted(ADAPTERS))}"
    )
  return ADAPTERS[name]
