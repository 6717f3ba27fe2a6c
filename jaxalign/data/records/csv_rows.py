"""Rows of CSV files: text cells, some of which hold JSON values."""

import csv
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from jaxalign.data.records import column_hints
from jaxalign.data.records.lines import BrokenFile, Lines, parse_json

# CSV cells are text; these columns hold JSON values.
JSON_COLUMNS = (
  "responses",
  "num_ranked",
  "chosen_prob",
  "votes_chosen",
  "votes_rejected",
  "votes_tie",
  "n_votes",
  "tie",
  "margin",
  "strength",
  "strength_std",
  "judge_prob",
  "position",
  "ratings",
  "labels",
  "label_prior",
  "label_votes",
)


def read_csv(path: str) -> Iterator[tuple[str, Mapping[str, Any] | ValueError]]:
  """A header and one record per row; an empty cell is null.

  Args:
    path: a .csv or .csv.gz file.

  Yields:
    `(FILE:LINE, row or error)`, the line a row begins at.

  Raises:
    BrokenFile: a bad header, or an open quote that hides where rows end.
  """
  # Long prompts exceed the default cell limit of 128 KiB.
  csv.field_size_limit(sys.maxsize)
  with Lines(path) as lines:
    reader = csv.reader(lines, strict=True)
    try:
      header = _header(next(reader, None))
    except BrokenFile:
      raise
    except (csv.Error, ValueError) as error:
      raise BrokenFile(f"{path}:1: {error}") from None
    while True:
      first = lines.number + 1
      row: Mapping[str, Any] | ValueError
      try:
        cells = next(reader)
      except StopIteration:
        return
      except BrokenFile:
        raise
      except (csv.Error, ValueError) as error:
        if lines.number > first or lines.raw.count(b'"') % 2:
          # Where a quote is open, no later line can be told from a cell.
          raise BrokenFile(
            f"{path}:{first}: {error}; a quoted cell does not end here, so "
            "nothing behind it can be read"
          ) from None
        yield f"{path}:{first}", ValueError(str(error))
        continue
      if not cells:
        continue
      try:
        row = _cells(header, cells)
      except ValueError as error:
        row = error
      yield f"{path}:{first}", row


def _header(cells: list[str] | None) -> list[str]:
  if not cells:
    raise ValueError("the first line must hold the column names")
  if len(cells) == 1:
    column_hints.check_separator(cells[0])
  for name in cells:
    if cells.count(name) > 1:
      raise ValueError(f"column {name!r} appears twice in the header")
  return cells


def _cells(header: list[str], cells: list[str]) -> dict[str, Any]:
  if len(cells) != len(header):
    raise ValueError(
      f"a row must have {len(header)} cells like the header, got {len(cells)}"
    )
  row: dict[str, Any] = {}
  for name, cell in zip(header, cells, strict=True):
    if not cell:
      row[name] = None
    elif name in JSON_COLUMNS:
      try:
        row[name] = parse_json(cell.lower() if name == "tie" else cell)
      except ValueError:
        raise ValueError(
          f"{name} must be a number, true, false or JSON, got {cell[:40]!r}"
        ) from None
    else:
      row[name] = cell
  return row
