"""From the names of sources to records, in the same order every time."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from jaxalign.data import adapters, crowd, rows
from jaxalign.data.record import Record, parse_record
from jaxalign.data.transcripts import text_of
from jaxalign.ops import checks

NUM_MESSAGES = 10

# Words of a file name that say which part of a data set it is, not which one.
_PARTS = {"train", "test", "eval", "valid", "validation", "dev", "heldout"}
_PARTS |= {"pairs", "part", "shard", "of", "data"}


@dataclasses.dataclass(frozen=True)
class SourceReport:
  """What became of one source's rows.

  Attributes:
    spec: the source as named.
    read: rows seen, good or bad.
    dropped: reason -> rows that cannot be a preference.
    skipped: rows in error under on_bad_record="skip".
    messages: the first of those errors.
  """

  spec: str
  read: int
  dropped: Mapping[str, int]
  skipped: int
  messages: tuple[str, ...]

  @property
  def kept(self) -> int:
    """Rows that became records."""
    return self.read - self.skipped - sum(self.dropped.values())


@dataclasses.dataclass(frozen=True)
class ReadReport:
  """One SourceReport per source, in the order given."""

  sources: tuple[SourceReport, ...]

  @property
  def counts(self) -> dict[str, int]:
    """Rows lost over all sources: `dropped_REASON` and `skipped`."""
    counts: dict[str, int] = {}
    for source in self.sources:
      for reason, number in source.dropped.items():
        name = f"dropped_{reason}"
        counts[name] = counts.get(name, 0) + number
      counts["skipped"] = counts.get("skipped", 0) + source.skipped
    return counts


def read_records(
  sources: Sequence[str],
  *,
  on_bad_record: str = "error",
  extra_columns: Sequence[str] = (),
  crowd_seed: int = 0,
) -> tuple[list[Record], ReadReport]:
  """Reads preferences from files, the hub and the synthetic crowd.

  A source is one of
    GLOB                        local .jsonl, .csv (or .gz of these), .parquet
    ADAPTER:GLOB                the same through a named adapter
    hub:NAME[:subset][:split]   a Hugging Face data set, by default its train
    synthetic:NAME[:split]      a preset of `crowd`, train or test
  with environment variables expanded. Files are read in sorted order. A record
  without a `source` column is given one: the file's name without its extension
  and words such as train or pairs, or else its folder's name.

  Args:
    sources: one or more.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns to ignore.
    crowd_seed: seed of synthetic sources.

  Returns:
    The records and what was lost on the way.

  Raises:
    ValueError: a bad record, beginning `FILE:LINE: `; an unset variable; a glob
      without files; a source of which nothing is left.
  """
  checks.one_of(("error", "skip"), on_bad_record=on_bad_record)
  if isinstance(sources, str) or not sources:
    raise ValueError(f"sources must be a tuple of sources, got {sources!r}")
  records: list[Record] = []
  reports = []
  for spec in sources:
    found, report = _read_source(
      spec, on_bad_record == "skip", frozenset(extra_columns), crowd_seed
    )
    records.extend(found)
    reports.append(report)
  return records, ReadReport(tuple(reports))


def _read_source(
  spec: str, skip: bool, extra_columns: frozenset[str], crowd_seed: int
) -> tuple[list[Record], SourceReport]:
  records: list[Record] = []
  dropped = {"empty_response": 0, "identical_responses": 0}
  read = skipped = 0
  messages: list[str] = []
  if spec.startswith("synthetic:"):
    records = crowd.records_of(spec.removeprefix("synthetic:"), seed=crowd_seed)
    return records, SourceReport(spec, len(records), dropped, 0, ())
  for where, row, source in _adapted_rows(spec, extra_columns):
    read += 1
    try:
      if isinstance(row, ValueError):
        raise ValueError(f"{where}: {row}")
      record = parse_record(row, where=where)
    except ValueError as error:
      if not skip:
        raise
      skipped += 1
      if len(messages) < NUM_MESSAGES:
        messages.append(str(error))
      continue
    reason = _unusable(record)
    if reason is not None:
      dropped[reason] += 1
      continue
    if record.source is None:
      record = dataclasses.replace(record, source=source)
    records.append(record)
  report = SourceReport(spec, read, dropped, skipped, tuple(messages))
  if not records:
    lost = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
    first = f"; first error: {messages[0]}" if messages else ""
    raise ValueError(
      f"source {spec} has no rows left: {read} read, {skipped} skipped, {lost}"
      f"{first}"
    )
  return records, report


def _adapted_rows(
  spec: str, extra_columns: frozenset[str]
) -> Iterator[tuple[str, Mapping[str, object] | ValueError, str]]:
  """`(where, row in the schema, default source)` of one source."""
  if spec.startswith("hub:"):
    name, subset, split = rows.hub_parts(spec.removeprefix("hub:"))
    adapter = adapters.find("/".join(name.rstrip("/").split("/")[-2:]))
    found = rows.read_hub(name, subset, split)
    for where, row in adapter.apply(found, extra_columns):
      yield where, row, _base_name(name)
    return
  named, pattern = _split_adapter(spec)
  for path in local_files(pattern, spec):
    adapter = named if named is not None else _adapter_of_path(path)
    source = source_of_path(path)
    for where, row in adapter.apply(rows.read_file(path), extra_columns):
      yield where, row, source


def _split_adapter(spec: str) -> tuple[adapters.Adapter | None, str]:
  """The named adapter, if any, and the glob behind it."""
  prefix, colon, rest = spec.partition(":")
  if not colon or glob.glob(expand_variables(spec)):
    return None, spec
  return adapters.get(prefix), rest


def _adapter_of_path(path: str) -> adapters.Adapter:
  """The adapter of a data folder's pairs, else the plain schema."""
  folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
  if re.match(r"pairs_.*\.jsonl", os.path.basename(path)):
    return adapters.find(folder)
  return adapters.PLAIN


def expand_variables(text: str) -> str:
  """`text` with $VAR and ${VAR} replaced, `~` too; unset is an error."""
  expanded = os.path.expandvars(os.path.expanduser(text))
  unset = re.search(r"\$(\w+|\{\w+\})", expanded)
  if unset is not None:
    name = unset.group(1).strip("{}")
    raise ValueError(f"source {text}: environment variable {name} is not set")
  return expanded


def local_files(pattern: str, spec: str) -> list[str]:
  """The files of a glob, sorted; none is an error that names `spec`."""
  found = sorted(glob.glob(expand_variables(pattern), recursive=True))
  files = [path for path in found if os.path.isfile(path)]
  if not files:
    raise ValueError(f"source {spec}: no file matches {pattern}")
  return files


def source_of_path(path: str) -> str:
  """A data set's name from a file's: `shp_train.jsonl.gz` -> `shp`."""
  stem = os.path.basename(path).split(".")[0]
  words = re.split(r"[_\-]+", stem)
  kept = [w for w in words if w.lower() not in _PARTS and not w.isdigit()]
  folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
  return "_".join(kept) or folder or stem


def _base_name(name: str) -> str:
  return name.rstrip("/").rsplit("/", 1)[-1]


def _unusable(record: Record) -> str | None:
  """Why a well-formed record cannot be a preference, or None."""
  texts = [text_of(response) for response in record.responses]
  if len(set(texts)) < len(texts):
    return "identical_responses"
  if not all(text.strip() for text in texts):
    return "empty_response"
  return None
