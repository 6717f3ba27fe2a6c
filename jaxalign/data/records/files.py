"""Rows of local files and hub data sets, each with the place it came from.

Every function yields `(where, row)`: `where` is FILE:LINE (FILE:ROW for
parquet and the hub) and `row` maps columns to JSON values, or is the ValueError
that says why the row cannot be read. JSONL and CSV are parsed here, because a
general loader turns a missing field into None and a number into text.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxalign.data.records import reach
from jaxalign.data.records.csv_rows import read_csv
from jaxalign.data.records.lines import BrokenFile, Lines, parse_json

Row = tuple[str, Mapping[str, Any] | ValueError]


def read_file(path: str) -> Iterator[Row]:
  """The rows of one local file, by its extension.

  Args:
    path: a .jsonl, .jsonl.gz, .csv, .csv.gz or .parquet file.

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
}
