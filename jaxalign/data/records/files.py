"""File readers: rows of JSONL, CSV, parquet and hub data, with their place.

Every function yields `(where, row)`: `where` is FILE:LINE (FILE:ROW for lists,
parquet and the hub) and `row` maps columns to JSON values, or is the ValueError
that says why the row cannot be read. JSONL and CSV are parsed here, because a
general loader turns a missing field into None and a number into text.
"""

import csv
import gzip
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, cast

from etils import epath

from jaxalign.data.records import column_hints, reach

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
          # Behind an open quote, a later line may be part of a cell.
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


Row = tuple[str, Mapping[str, Any] | ValueError]


def read_file(path: str) -> Iterator[Row]:
  """The rows of one local file, by its extension.

  Args:
    path: a .jsonl, .jsonl.gz, .json, .csv, .csv.gz or .parquet file.

  Yields:
    `(where, row)`.

  Raises:
    ValueError: another extension, or a file that breaks off midway.
  """
  for extension, read in _READERS.items():
    if path.endswith(extension):
      yield from read(path)
      return
  raise ValueError(f"{path}: extension must be one of {', '.join(_READERS)}")


def read_jsonl(path: str) -> Iterator[Row]:
  """One JSON object per line; blank lines are allowed."""
  with Lines(path) as lines:
    while True:
      row: Mapping[str, Any] | ValueError
      try:
        line = next(lines)
        if not line.strip():
          continue
        row = parse_json(line)
        if not isinstance(row, dict):
          raise ValueError("the line must hold a JSON object")
      except StopIteration:
        return
      except BrokenFile:
        raise
      except ValueError as error:
        row = error
      yield f"{path}:{lines.number}", row


def read_json(path: str) -> Iterator[Row]:
  """A list of JSON objects, read whole, or one object per line as in JSONL."""
  try:
    text = epath.Path(path).read_bytes().decode("utf-8-sig")
    listed = text.lstrip().startswith("[")
    content = parse_json(text) if listed else []
  except ValueError as error:
    raise BrokenFile(f"{path}: {error}") from None
  if not listed:
    yield from read_jsonl(path)
  for number, row in enumerate(content, start=1):
    if not isinstance(row, dict):
      row = ValueError("an entry of the list must be a JSON object")
    yield f"{path}:{number}", row


def read_parquet(path: str) -> Iterator[Row]:
  """The rows of one parquet file, streamed by `datasets`."""
  import datasets

  return _numbered(
    path,
    lambda: datasets.load_dataset(
      "parquet", data_files=[path], split="train", streaming=True
    ),
  )


def read_hub(
  name: str, subset: str | None, split: str, *, streaming: bool = False
) -> Iterator[Row]:
  """The rows of a data set on the Hugging Face hub or in a local folder.

  Args:
    name: OWNER/NAME, or a folder.
    subset: configuration, None for the default one.
    split: e.g. "train".
    streaming: read while rows arrive, without a copy in the cache.

  Returns:
    An iterator over `(where, row)`; it raises ValueError, beginning with the
    name, if the data set cannot be loaded.
  """
  import datasets

  return _numbered(
    f"hub:{name}",
    lambda: datasets.load_dataset(
      name, subset, split=split, streaming=streaming
    ),
  )


def _numbered(
  name: str, load: Callable[[], Iterable[Mapping[str, Any]]]
) -> Iterator[Row]:
  import datasets

  number = 0
  try:
    for number, row in enumerate(load(), start=1):
      yield f"{name}:{number}", row
  except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
    raise BrokenFile(reach.why(f"{name}:{number + 1}", error)) from error


def hub_parts(spec: str) -> tuple[str, str | None, str]:
  """NAME, subset and split of NAME[:subset][:split].

  A single part behind NAME is a configuration if there is one, else a split.

  Args:
    spec: what follows `hub:`.

  Returns:
    The name, the subset or None, and the split, by default "train".
  """
  import datasets

  name, *parts = os.path.expandvars(spec).split(":")
  if len(parts) > 2 or not name:
    raise ValueError(f"hub:{spec}: expected hub:NAME[:subset][:split]")
  if len(parts) == 2:
    return name, parts[0] or None, parts[1] or "train"
  if not parts:
    return name, None, "train"
  try:
    subsets = datasets.get_dataset_config_names(name)
  except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
    raise ValueError(reach.why(f"hub:{name}", error)) from error
  if parts[0] in subsets:
    return name, parts[0], "train"
  return name, None, parts[0]


_READERS: dict[str, Callable[[str], Iterator[Row]]] = {
  ".jsonl": read_jsonl,
  ".jsonl.gz": read_jsonl,
  ".csv": read_csv,
  ".csv.gz": read_csv,
  ".parquet": read_parquet,
  ".json": read_json,
}


class Lines:
  """Decoded lines of a file, plain or gzip, that know their number.

  A line that is not UTF-8 raises and the next call goes on behind it, so that
  bad lines can be skipped.

  Attributes:
    path: the file, on a disk or in an object store.
    number: of the last line, from 1.
    raw: bytes of the last line.
    file: what is read, unpacked.
    stored: the file itself.
  """

  def __init__(self, path: str) -> None:
    self.path = path
    self.number = 0
    self.raw = b""
    self.stored: IO[bytes] = epath.Path(path).open("rb")
    self.file = self.stored
    if path.endswith(".gz"):
      self.file = cast(IO[bytes], gzip.GzipFile(fileobj=self.stored))

  def __enter__(self) -> "Lines":
    return self

  def __exit__(self, *error: object) -> None:
    self.file.close()
    self.stored.close()  # which a gzip file leaves open

  def __iter__(self) -> Iterator[str]:
    return self

  def __next__(self) -> str:
    try:
      line = self.file.readline()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise BrokenFile(
        f"{self.path}:{self.number + 1}: broken gzip file: {error}"
      ) from None
    if not line:
      raise StopIteration
    self.number += 1
    self.raw = line
    try:
      # A byte order mark begins files written by spreadsheets.
      return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      raise ValueError(
        f"not UTF-8 at byte {error.start + 1} of the line"
      ) from None


class BrokenFile(ValueError):
  """Nothing behind this point of a file can be read, so nothing is skipped."""


def parse_json(text: str) -> Any:
  """JSON without what a general parser lets pass.

  Raises:
    ValueError: malformed, nested too deeply, a key twice, NaN or infinity.
  """
  try:
    return _DECODER.decode(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"malformed JSON at column {error.colno}: {error.msg}"
    ) from None
  except RecursionError:
    raise ValueError("malformed JSON: nested too deeply") from None


def _no_constant(name: str) -> None:
  raise ValueError(f"numbers must be finite, got {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  row = dict(pairs)
  if len(row) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"key {twice!r} appears twice in one object")
  return row


_DECODER = json.JSONDecoder(
  parse_constant=_no_constant, object_pairs_hook=_unique
)
