"""Record reader: names of sources to records, all at once or streamed."""

import collections
import dataclasses
from collections.abc import (
  Callable,
  Generator,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any

from jaxalign.data.adapters.base import EXTRA, Draw
from jaxalign.data.records import sources, unpaired
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import (
  FIELDS,
  Record,
  pairs_of,
  parse_record,
)
from jaxalign.data.synthetic import crowd
from jaxalign.ops import checks

NUM_MESSAGES = 10
REASONS = ("empty_response", "identical_responses")
OTHER_SOURCE = "other_source"


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


@dataclasses.dataclass(eq=False)
class RecordStream:
  """Preferences of some sources, read again each time it is iterated.

  Holds one row at a time, however long the sources are, except where an
  adapter joins rows that are far apart and for the synthetic crowd.

  A source is one of those of `sources.adapted_rows`, or
  `synthetic:NAME[:split]`, a preset of `crowd`. A record without a `source`
  column is given one: the file's name without its extension and words such as
  train or pairs, or else its folder's name.

  Attributes:
    specs: the sources, one or more.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns to ignore.
    crowd_seed: seed of synthetic sources.
    streaming: read hub data sets while they arrive, without a local copy.
    need_responses: whether a prompt without responses is an error; False where
      a policy answers the prompts.
    draw: which pairs are made of votes on single items; None for the defaults.
    only_sources: names of the sources to keep; empty for all.
    check: raises ValueError for a record that whoever asks cannot use, which
      is a bad record then. None takes all.
    drop_unusable: whether records that are no preference, for an empty
      response or two that are the same, are dropped (counted); False where
      answers are judged as they are.
    keep_columns: columns that records keep, of the schema or beyond it; those
      beyond are no error then, and are in `Record.extra`.
    unpaired: whether TRL's `completion` and `label` are a rated response.
    report: what was lost on the last whole pass; None before.
  """

  specs: Sequence[str]
  on_bad_record: str = "error"
  extra_columns: Sequence[str] = ()
  crowd_seed: int = 0
  streaming: bool = False
  need_responses: bool = True
  drop_unusable: bool = True
  draw: Draw | None = None
  only_sources: Sequence[str] = ()
  check: Callable[[Record], None] | None = None
  keep_columns: Sequence[str] = ()
  unpaired: bool = False
  report: ReadReport | None = dataclasses.field(default=None, init=False)

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(("error", "skip"), on_bad_record=self.on_bad_record)
    if isinstance(self.specs, str) or not self.specs:
      raise ValueError(
        f"sources must be a tuple of sources, got {self.specs!r}"
      )

  def __iter__(self) -> Iterator[Record]:
    """The records, source after source.

    Raises:
      ValueError: a bad record, beginning `FILE:LINE: `; an unset variable; a
        glob without files; a source of which nothing is left.
    """
    reports = []
    for spec in self.specs:
      reports.append((yield from self._source(spec)))
    self.report = ReadReport(tuple(reports))

  def whole_report(self) -> ReadReport:
    """The report of the last whole pass; ValueError before the first one."""
    if self.report is None:
      raise ValueError("a stream reports after a whole pass, none was made")
    return self.report

  def _source(self, spec: str) -> Generator[Record, None, SourceReport]:
    """The records of one source; returns its report."""
    if spec.startswith("synthetic:"):
      records = crowd.records_of(
        spec.removeprefix("synthetic:"), seed=self.crowd_seed
      )
      if self.only_sources:
        records = [r for r in records if r.source in self.only_sources]
      yield from records
      return SourceReport(spec, len(records), dict.fromkeys(REASONS, 0), 0, ())
    lost: collections.Counter[str] = collections.Counter()
    messages: list[str] = []
    read = skipped = 0
    found = sources.adapted_rows(
      spec,
      frozenset(self.extra_columns),
      streaming=self.streaming,
      draw=self.draw,
      keep=frozenset(self.keep_columns) - {*FIELDS},
    )
    for where, row, source in found:
      read += 1
      try:
        if isinstance(row, ValueError):
          raise ValueError(f"{where}: {row}")
        extra = row.get(EXTRA)
        if extra is not None:
          row = {name: row[name] for name in row if name != EXTRA}
        if self.unpaired:
          row = _rated_row(row, where)
        record = parse_record(
          row, where=where, need_responses=self.need_responses
        )
        if extra is not None:
          record = dataclasses.replace(record, extra=extra)
        if record.source is None:
          record = dataclasses.replace(record, source=source)
        reason = _unusable(record) if self.drop_unusable else None
        if self.only_sources and record.source not in self.only_sources:
          reason = OTHER_SOURCE
        if reason is None and self.check is not None:
          self.check(record)
      except ValueError as error:
        if self.on_bad_record == "error":
          raise
        skipped += 1
        if len(messages) < NUM_MESSAGES:
          messages.append(str(error))
        continue
      if reason is not None:
        lost[reason] += 1
        continue
      yield record
    reasons = (*REASONS, OTHER_SOURCE) if self.only_sources else REASONS
    dropped = {reason: lost[reason] for reason in reasons}
    report = SourceReport(spec, read, dropped, skipped, tuple(messages))
    if not read:
      raise ValueError(f"source {spec} is empty: there is no row in it")
    if not report.kept:
      counts = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
      first = f"; first error: {messages[0]}" if messages else ""
      raise ValueError(
        f"source {spec} has no rows left: {read} read, {skipped} skipped, "
        f"{counts}{first}"
      )
    return report


@dataclasses.dataclass(eq=False)
class PairStream:
  """The pairs of a stream, rankings taken apart, read again each time.

  Attributes:
    records: what is read.
    keep: takes the records that it is true of; None takes all.
    expand: whether rankings are taken apart.
  """

  records: Iterable[Record]
  keep: Callable[[Record], bool] | None = None
  expand: bool = True

  def __iter__(self) -> Iterator[Record]:
    """The pairs, in the order of the records."""
    for record in self.records:
      if self.keep is None or self.keep(record):
        yield from pairs_of(record) if self.expand else (record,)


def read_records(
  specs: Sequence[str],
  *,
  on_bad_record: str = "error",
  extra_columns: Sequence[str] = (),
  crowd_seed: int = 0,
) -> tuple[list[Record], ReadReport]:
  """All records of some sources; `RecordStream` says what a source is.

  Args:
    specs: one or more sources.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns to ignore.
    crowd_seed: seed of synthetic sources.

  Returns:
    The records and what was lost on the way.

  Raises:
    ValueError: as `RecordStream`.
  """
  stream = RecordStream(specs, on_bad_record, extra_columns, crowd_seed)
  records = list(stream)
  return records, stream.whole_report()


def check_columns(found: Mapping[str, Sequence[Any]]) -> None:
  """Raises ValueError for a column that is to be kept and no record has."""
  for name, values in found.items():
    if all(value is None for value in values):
      raise ValueError(
        f"reward_columns names {name!r}, a column that no record has"
      )


def _rated_row(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
  try:
    return unpaired.of_completion(row)
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from None


def _unusable(record: Record) -> str | None:
  """Why a well-formed record cannot be a preference, or None."""
  texts = [text_of(response) for response in record.responses]
  if len(set(texts)) < len(texts):
    return "identical_responses"
  if not all(text.strip() for text in texts):
    return "empty_response"
  return None
