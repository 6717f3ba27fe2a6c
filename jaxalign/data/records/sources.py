"""Data sources: globs, hub and synthetic names to rows, in a fixed order."""

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jaxalign.data.adapters import registry
from jaxalign.data.adapters.base import Adapter, Draw
from jaxalign.data.records import files as rows
from jaxalign.data.records import reach

# Words of a file name that say which part of a data set it is, not which one.
_PARTS = {"train", "test", "eval", "valid", "validation", "dev", "heldout"}
_PARTS |= {"pairs", "part", "shard", "of", "data"}

STORES = ("gs://", "s3://")
# The file of votes that Polis exports, whatever the folder is called.
EXPORTED = "participants-votes"


def adapted_rows(
  spec: str,
  extra_columns: frozenset[str],
  *,
  streaming: bool,
  draw: Draw | None = None,
  keep: frozenset[str] = frozenset(),
) -> Iterator[tuple[str, Mapping[str, Any] | ValueError, str]]:
  """The rows of one source, in the columns of the schema.

  A source is one of
    GLOB                        .jsonl, .csv (.gz of these too), .parquet
                                or .json,
                                local or in an object store (gs://, s3://);
                                or a folder that Polis exported
    ADAPTER:GLOB                the same through a named adapter
    hub:NAME[:subset][:split]   a Hugging Face data set, by default its train
  with environment variables expanded. Files are read in sorted order.

  Args:
    spec: the source.
    extra_columns: columns to ignore.
    streaming: read a hub data set while it arrives, without a local copy.
    draw: which pairs are made of votes on single items.
    keep: columns beyond the schema that rows keep, see `Adapter.apply`.

  Yields:
    `(where, row or error, default name of the source)`.

  Raises:
    ValueError: an unset variable; a glob without files; a broken file.
  """
  if spec.startswith("hub:"):
    name, subset, split = rows.hub_parts(spec.removeprefix("hub:"))
    adapter = registry.find("/".join(name.rstrip("/").split("/")[-2:]))
    found = rows.read_hub(name, subset, split, streaming=streaming)
    source = name.rstrip("/").rsplit("/", 1)[-1]
    if subset is not None:  # or helpful and harmless would be one source
      source = f"{source}/{subset}"
    for where, row in adapter.apply(found, extra_columns, keep=keep):
      yield where, row, source
    return
  named, pattern = _split_adapter(spec)
  for path in files_of(pattern, spec):
    adapter = named if named is not None else _adapter_of_path(path)
    source = source_of_path(path)
    tables = {name: _whole(_file_beside(path, name)) for name in adapter.beside}
    found = rows.read_file(path)
    for where, row in adapter.apply(found, extra_columns, tables, draw, keep):
      yield where, row, source


def _split_adapter(spec: str) -> tuple[Adapter | None, str]:
  """The named adapter, if any, and the glob behind it."""
  prefix, colon, rest = spec.partition(":")
  if not colon or rest.startswith("//"):
    return None, spec
  # A file on a disk may have a colon in its name.
  if "://" not in rest and matching(expand_variables(spec)):
    return None, spec
  return registry.get(prefix), rest


def _adapter_of_path(path: str) -> Adapter:
  """The adapter of a known folder's file, else the plain schema."""
  folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
  kind = _kind_and_part(path)[0]
  if kind == EXPORTED:
    return registry.get(EXPORTED)
  return registry.find(folder if kind == "pairs" else f"{folder}/{kind}")


def _kind_and_part(path: str) -> tuple[str, str]:
  """`votes_train.jsonl.gz` -> "votes", "train"; without a part ""."""
  stem = os.path.basename(path).split(".")[0]
  kind, _, part = stem.rpartition("_")
  if kind and part in _PARTS:
    return kind, part
  return ("pairs", stem) if stem.startswith("pairs_") else (stem, "")


def files_read(spec: str) -> list[str]:
  """Every file that `adapted_rows` reads of a source that is not on the hub.

  Args:
    spec: GLOB or ADAPTER:GLOB.

  Raises:
    ValueError: as `adapted_rows`.
  """
  named, pattern = _split_adapter(spec)
  files = []
  for path in files_of(pattern, spec):
    adapter = named if named is not None else _adapter_of_path(path)
    files += [path, *(_file_beside(path, name) for name in adapter.beside)]
  return files


def _file_beside(path: str, name: str) -> str:
  """The file `name` beside `path`, of the same part if it has any.

  Raises:
    ValueError: no such file.
  """
  folder, part = os.path.dirname(path), _kind_and_part(path)[1]
  for stem in (f"{name}_{part}", name):
    pattern = os.path.join(glob.escape(folder), f"{stem}.*")
    for found in matching(pattern):
      return found
  raise ValueError(f"{path} needs a file {name} beside it, which is missing")


def _whole(path: str) -> list[Mapping[str, Any]]:
  """All rows of a file, of a JSON list, or of an object by their `key`.

  Raises:
    ValueError: a bad row.
  """
  if path.endswith(".json"):
    content = json.loads(epath.Path(path).read_text(encoding="utf-8"))
    if isinstance(content, dict):
      return [{"key": key, **value} for key, value in content.items()]
    return list(content)
  table = []
  for where, row in rows.read_file(path):
    if isinstance(row, ValueError):
      raise ValueError(f"{where}: {row}")
    table.append(row)
  return table


def expand_variables(text: str) -> str:
  """`text` with $VAR and ${VAR} replaced, `~` too; unset is an error."""
  expanded = os.path.expandvars(os.path.expanduser(text))
  unset = re.search(r"\$(\w+|\{\w+\})", expanded)
  if unset is not None:
    name = unset.group(1).strip("{}")
    raise ValueError(f"source {text}: environment variable {name} is not set")
  return expanded


def matching(pattern: str) -> list[str]:
  """What matches a glob on a disk or in an object store, sorted."""
  if "://" not in pattern:
    return sorted(glob.glob(pattern, recursive=True))
  parts = pattern.split("/")
  # The store, its bucket and the folders before the first wildcard.
  fixed = next((i for i, p in enumerate(parts) if glob.has_magic(p)), None)
  if fixed is None:
    # Not `exists`, to which a store that is not reached holds nothing.
    try:
      epath.Path(pattern).stat()
    except FileNotFoundError:
      return []
    return [pattern]
  root = epath.Path("/".join(parts[:fixed]))
  return sorted(os.fspath(path) for path in root.glob("/".join(parts[fixed:])))


def files_of(pattern: str, spec: str) -> list[str]:
  """The files of a glob, sorted; none is an error that names `spec`."""
  expanded = expand_variables(pattern)
  if "://" in expanded and not expanded.startswith(STORES):
    raise ValueError(
      f"source {spec}: files lie on a disk or in {' or '.join(STORES)}; "
      "download what lies elsewhere"
    )
  try:
    found = [_exported(path) for path in matching(expanded)]
    files = [path for path in found if epath.Path(path).is_file()]
  except Exception as error:  # every client has exceptions of its own
    raise ValueError(reach.why(f"source {spec}", error)) from error
  if not files:
    raise ValueError(f"source {spec}: no file matches {pattern}")
  return files


def _exported(path: str) -> str:
  """The votes in a folder that Polis exported; any other path as it is."""
  file = os.path.join(path, f"{EXPORTED}.csv")
  return file if "://" not in path and os.path.isfile(file) else path


def source_of_path(path: str) -> str:
  """A data set's name from a file's: `shp_train.jsonl.gz` -> `shp`."""
  stem = os.path.basename(path).split(".")[0]
  words = re.split(r"[_\-]+", stem)
  kept = [w for w in words if w.lower() not in _PARTS and not w.isdigit()]
  folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
  return "_".join(kept) or folder or stem
