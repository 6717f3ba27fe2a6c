"""Adapter base: a small table that names every column of a data set."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxalign.data.records import column_hints, columns
from jaxalign.data.records.files import Row

Tables = Mapping[str, list[Any]]
EXTRA = "\0extra"  # key of the columns that are kept beside the schema's
Convert = Callable[[Mapping[str, Any]], dict[str, Any] | list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Draw:
  """Which pairs are made of one person's votes on single items.

  Attributes:
    per_person: at most how many, on each side of a split.
    seed: of the draw.
    side: the side of a split that an item is on, by its text; both items of a
      pair are on one side. By default there is one side.
  """

  per_person: int = 20
  seed: int = 0
  side: Callable[[str], int] = lambda text: 0

  def __post_init__(self) -> None:
    """Raises ValueError unless some pair may be drawn."""
    if self.per_person < 1:
      raise ValueError(f"pairs_per_person must be >= 1, got {self.per_person}")


@dataclasses.dataclass(frozen=True)
class Adapter:
  """Adapter: how one data set's rows become preference records.

  Attributes:
    ignore: columns left out; any other unknown column stays an error.
    rename: its column -> the schema's.
    reads: columns that `row` or `stream` turn into the schema's.
    ignore_prefixes: beginnings of columns left out.
    row: one row of `reads` -> one row of the schema, or several.
    stream: the same over all rows, to join those of one prompt.
    beside: names of files that lie beside a file and are read whole.
    join: their rows, by name -> a function such as `row`.
    votes: makes pairs of all rows, each a vote on one item, of the rows of the
      files beside them and of a draw.
  """

  ignore: tuple[str, ...] = ()
  rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
  reads: tuple[str, ...] = ()
  ignore_prefixes: tuple[str, ...] = ()
  row: Convert | None = None
  stream: Callable[[Iterable[Row]], Iterator[Row]] | None = None
  beside: tuple[str, ...] = ()
  join: Callable[[Tables], Convert] | None = None
  votes: Callable[[Iterable[Row], Tables, Draw], Iterator[Row]] | None = None

  def apply(
    self,
    found: Iterable[Row],
    extra_columns: frozenset[str] = frozenset(),
    tables: Tables | None = None,
    draw: Draw | None = None,
    keep: frozenset[str] = frozenset(),
  ) -> Iterator[Row]:
    """Rows in the schema's columns.

    Args:
      found: rows in the data set's columns.
      extra_columns: more columns to leave out.
      tables: the rows of every file in `beside`.
      draw: which pairs are made of votes on single items.
      keep: columns beyond the schema that a row has under `EXTRA`.

    Yields:
      `(where, row)`.

    Raises:
      ValueError: `tables` lacks what is joined, or columns are to be kept of
        rows that are made of others.
    """
    if keep and (self.stream or self.row or self.join or self.votes):
      raise ValueError(
        f"the columns {', '.join(sorted(keep))} can be kept of rows that are "
        "records already, not of a data set that an adapter converts"
      )
    kept = self._kept(found, extra_columns.union(self.ignore), keep)
    if self.stream is not None:
      yield from self.stream(kept)
      return
    beside = {name: need_list(tables or {}, name) for name in self.beside}
    if self.votes is not None:
      yield from self.votes(kept, beside, Draw() if draw is None else draw)
      return
    convert = self.row
    if self.join is not None:
      convert = self.join(beside)
    for where, row in kept:
      if convert is None or isinstance(row, ValueError):
        yield where, row
        continue
      try:
        made = convert(row)
      except ValueError as error:
        yield where, error
        continue
      for one in made if isinstance(made, list) else [made]:
        yield where, one

  def _kept(
    self,
    found: Iterable[Row],
    ignored: frozenset[str],
    keep: frozenset[str] = frozenset(),
  ) -> Iterator[Row]:
    """Rows without ignored columns; a column nobody reads is an error."""
    for where, row in found:
      if isinstance(row, ValueError):
        yield where, row
        continue
      names = [
        name
        for name in row
        if name not in ignored
        and name not in keep
        and not name.startswith(self.ignore_prefixes)
      ]
      unknown = [
        name for name in names if self.reads and name not in self.reads
      ]
      if unknown:
        yield (
          where,
          ValueError(
            f"unknown column {unknown[0]!r}"
            f"{column_hints.hint(unknown[0], row, self.reads)}; the adapter "
            f"reads {', '.join(self.reads)}; data.extra_columns names columns "
            "to ignore"
          ),
        )
        continue
      made = {self.rename.get(name, name): row[name] for name in names}
      if keep:
        made[EXTRA] = {name: row[name] for name in row if name in keep}
      yield where, made


def need(row: Mapping[str, Any], name: str) -> Any:
  """`row[name]`; ValueError where it is missing or null."""
  if not isinstance(row, Mapping):
    raise ValueError(
      f"the object that holds {name!r} must be one, got {columns.kind(row)}"
    )
  if row.get(name) is None:
    raise ValueError(f"missing field {name!r}")
  return row[name]


def need_text(row: Mapping[str, Any], name: str) -> str:
  """`row[name]`, which must be text."""
  return columns.string(name, need(row, name))


def need_label(row: Mapping[str, Any], name: str) -> str:
  """`row[name]`, which must name something; a whole number becomes text."""
  return columns.label(name, need(row, name))


def need_number(row: Mapping[str, Any], name: str) -> float:
  """`row[name]`, which must be a finite number."""
  return columns.number(name, need(row, name))


def index_of(name: str, value: Any, size: int) -> int:
  """A whole number from 0 and less than `size`; 1.0 passes, as tables have it.

  Raises:
    ValueError: it is something else, such as a boolean.
  """
  if isinstance(value, bool) or value not in range(size):
    raise ValueError(
      f"{name} must be in 0..{size - 1}, got {columns.kind(value)}"
    )
  return int(value)


def need_object(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  """`row[name]`, which must be an object."""
  value = need(row, name)
  if not isinstance(value, Mapping):
    raise ValueError(f"{name} must be an object, got {columns.kind(value)}")
  return value


def need_list(row: Mapping[str, Any], name: str) -> list[Any]:
  """`row[name]`, which must be a list."""
  value = need(row, name)
  if not isinstance(value, (list, tuple)):
    raise ValueError(f"{name} must be a list, got {columns.kind(value)}")
  return list(value)
