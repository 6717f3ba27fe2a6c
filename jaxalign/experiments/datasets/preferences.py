"""The `data` section of every config that reads preferences."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath

from jaxalign.data.adapters import base
from jaxalign.data.batching import loader, pair_dataset, sharded_tokens
from jaxalign.data.batching.dataset import Dataset
from jaxalign.data.records import reader, refusals, sources, splits
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.encoding import Tokenise
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import section
from jaxalign.experiments.datasets import warnings as data_warnings
from jaxalign.ops import checks
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import progress_bar

log = logging.getLogger("jaxalign")

Change = Callable[[Iterable[Record]], Iterable[Record]]


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Preference files, and how they become tokens and batches.

  Attributes:
    train_files: sources to learn from: globs, `hub:NAME[:subset][:split]` or
      `synthetic:NAME[:split]`.
    eval_files: held-out sources; empty for none.
    split_by: "pair", "prompt", "annotator", "item" (each response by itself)
      or "annotator_and_item", what training and held-out records may not
      share; None for no check.
    eval_fraction: share of the units of `split_by` held out of `train_files`
      where `eval_files` is empty; None for none. Records with units of both
      kinds are left out.
    only_sources: names of the sources to keep; empty for all.
    pairs_per_person: of votes on single items, at most how many pairs are made
      of one person's, on each side of a split by item.
    pairs_seed: of the draw of these pairs.
    tokenizer: "byte", a folder that holds a tokenizer, the id of a model on the
      hub, or None for the one of the model's folder, to which "byte" gives way.
    chat_template: file with a Jinja template of chat turns instead of the
      tokenizer's own; None keeps that.
    max_length: tokens of prompt and response together; prompts give way.
    buckets: padded lengths; one compilation each.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns beyond the schema to ignore.
    crowd_seed: seed of synthetic sources.
    streaming: hub data sets are read while they arrive, records are read again
      where they are needed and tokens lie on disk, so that memory does not
      grow with the text.
    mixing: how sources share an epoch: "proportional", "stratified" (the same
      number of each in every batch) or "sequential".
    pairs_per_source: pairs of each source in a stratified epoch, resampled;
      None takes those of the largest source.
    prefetch: batches made ahead of the step.
  """

  train_files: tuple[str, ...]
  eval_files: tuple[str, ...] = ()
  split_by: str | None = None
  eval_fraction: float | None = None
  only_sources: tuple[str, ...] = ()
  pairs_per_person: int = 20
  pairs_seed: int = 0
  tokenizer: str | None = None
  chat_template: str | None = None
  max_length: int = 512
  buckets: tuple[int, ...] = (256, 512)
  on_bad_record: str = "error"
  extra_columns: tuple[str, ...] = ()
  crowd_seed: int = 0
  streaming: bool = False
  mixing: str = "proportional"
  pairs_per_source: int | None = None
  prefetch: int = 4

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    if self.split_by is not None:
      checks.one_of(splits.UNITS, split_by=self.split_by)
    checks.one_of(loader.MIXINGS, mixing=self.mixing)
    self.draw()
    if self.eval_fraction is None:
      return
    if self.split_by is None or self.eval_files:
      raise ValueError(
        "eval_fraction needs split_by and no eval_files, got "
        f"{self.eval_fraction}, {self.split_by} and {self.eval_files}"
      )
    if not 0.0 < self.eval_fraction < 1.0:
      raise ValueError(
        f"eval_fraction must be in (0, 1), got {self.eval_fraction}"
      )

  def draw(self) -> base.Draw:
    """Which pairs are made of votes on single items.

    Raises:
      ValueError: there would be none.
    """
    side = functools.partial(
      splits.item_side, by=self.split_by, fraction=self.eval_fraction
    )
    return base.Draw(self.pairs_per_person, self.pairs_seed, side)

  @property
  def holds_out(self) -> bool:
    """Whether there are held-out records."""
    return bool(self.eval_files) or self.eval_fraction is not None


class Pairs(NamedTuple):
  """Records and their tokens, row for row.

  Attributes:
    records: pairs as read; a stream reads them again.
    dataset: their tokens.
    report: what reading and tokenising dropped or cut, name -> count.
    warnings: of training pairs, what to mind about them and the held-out ones.
  """

  records: Iterable[Record]
  dataset: pair_dataset.PairDataset
  report: Mapping[str, int]
  warnings: tuple[str, ...] = ()


def open_tokenizer(config: DataConfig, folder: str | None) -> Tokenizer:
  """As `section.open_tokenizer`, with the config's chat template.

  Raises:
    ValueError: no tokenizer is given, or the template is not a file.
  """
  tokenizer = section.open_tokenizer(config, folder)
  if config.chat_template is not None:
    path = epath.Path(sources.expand_variables(config.chat_template))
    if not path.is_file():
      raise ValueError(f"data.chat_template: {path} is not a file")
    return tokenizer.with_template(path.read_text("utf-8"))
  return tokenizer


def load_records(
  config: DataConfig,
  files: tuple[str, ...],
  tokenizer: Tokenizer | None = None,
) -> list[Record]:
  """Reads the sources `files`, logging what was dropped.

  Args:
    config: the policy for bad records.
    files: sources, see `DataConfig`.
    tokenizer: what the responses will be encoded with; None for nothing.

  Returns:
    The records.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record.
  """
  check = None
  if tokenizer is not None:
    check = refusals.refuses_if_skipping(
      config.on_bad_record, tokenizer, least=1
    )
  stream = _stream(config, files, check)
  records = list(
    progress_bar.watched(stream, total=None, what="reading records")
  )
  _log(stream)
  return records


def _stream(
  config: DataConfig,
  files: tuple[str, ...],
  check: Callable[[Record], None] | None,
  *,
  unpaired: bool = False,
) -> reader.RecordStream:
  return reader.RecordStream(
    files,
    config.on_bad_record,
    config.extra_columns,
    config.crowd_seed,
    config.streaming,
    draw=config.draw(),
    only_sources=config.only_sources,
    check=check,
    unpaired=unpaired,
  )


def record_stream(
  config: DataConfig, files: tuple[str, ...]
) -> reader.RecordStream:
  """The records of the sources `files`, read whenever they are iterated."""
  return _stream(config, files, None)


def _log(stream: reader.RecordStream) -> None:
  """Logs what was read and what was lost on the way."""
  for source in stream.whole_report().sources:
    lost = {k: v for k, v in source.dropped.items() if v}
    if source.skipped:
      lost["skipped"] = source.skipped
    log.info(
      "%s: %s records; lost: %s",
      source.spec,
      f"{source.kept:,}",
      section.in_words(lost),
    )


def load_pairs(
  config: DataConfig,
  files: tuple[str, ...],
  tokenizer: Tokenizer,
  *,
  keep: Callable[[Record], bool] | None = None,
  tokenise: Tokenise | None = None,
  share: bool = True,
  change: Change | None = None,
) -> Pairs:
  """Reads and tokenises the sources `files`.

  Args:
    config: token lengths and the policy for bad records.
    files: sources, see `DataConfig`.
    tokenizer: from `open_tokenizer`.
    keep: takes only the records that it is true of; None takes all.
    tokenise: as of `token_store.encode`.
    share: whether each process tokenises and holds a share of them.
    change: makes pairs of all records, which may be single responses; None
      takes rankings apart.

  Returns:
    The pairs; a ranking of more responses becomes all its pairs.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record.
  """
  least = 2 if change is None else 1
  check = refusals.refuses_if_skipping(
    config.on_bad_record, tokenizer, least=least
  )
  stream = _stream(config, files, check, unpaired=change is not None)
  found: Iterable[Record] = reader.PairStream(
    stream, keep, expand=change is None
  )
  if change is not None:
    found = change(found)
  records = found if config.streaming else list(found)
  number = None if config.streaming else len(records)
  dataset = pair_dataset.encode_pairs(
    section.watched(records, number, "tokenising pairs"),
    tokenizer,
    max_length=config.max_length,
    on_disk=config.streaming,
    processes=multihost.sharing() if share else None,
    tokenise=tokenise,
  )
  _log(stream)
  log.info(
    "%s pairs; cut to %d tokens: %s",
    f"{len(dataset):,}",
    config.max_length,
    section.in_words(dataset.counts),
  )
  lost = stream.whole_report().counts
  return Pairs(records, dataset, {**lost, **dataset.counts})


def load_splits(
  config: DataConfig,
  tokenizer: Tokenizer,
  tokenise: Tokenise | None = None,
  *,
  share: bool = True,
  change: Change | None = None,
) -> tuple[Pairs, Pairs | None]:
  """Training pairs and held-out pairs, if the config holds any out.

  Args:
    config: sources and what training and held-out records may not share.
    tokenizer: from `open_tokenizer`.
    tokenise: as of `token_store.encode`; `encoding.answered` for a policy.
    share: see `load_pairs`.
    change: see `load_pairs`, of training records; held-out ones are pairs.

  Returns:
    Both; the training pairs with `warnings`, for which records of a stream are
    not read again.

  Raises:
    ValueError: as `load_pairs`; records of both sides share a unit of
      `split_by`; a source or group is left without training pairs.
  """
  load = functools.partial(
    load_pairs, config, tokenizer=tokenizer, tokenise=tokenise, share=share
  )
  train, held_out = _load_splits(config, load, change)
  warnings = data_warnings.of_records(
    tokenizer,
    () if config.streaming else train.records,
    () if config.streaming or held_out is None else held_out.records,
    holds_out=config.holds_out,
    fraction=True,
  )
  return train._replace(warnings=warnings), held_out


def _load_splits(
  config: DataConfig, load: Callable[..., Pairs], change: Change | None
) -> tuple[Pairs, Pairs | None]:
  by, fraction = config.split_by, config.eval_fraction
  if by is None or fraction is None:
    train = load(config.train_files, change=change)
    if not config.eval_files:
      return train, None
    held_out = load(config.eval_files)
    if by is not None:
      splits.check_leaks(train.records, held_out.records, by)
    return train, held_out
  files = config.train_files
  train, held_out = (
    load(
      files,
      keep=lambda record, side=side: (
        splits.side_of(record, by, fraction) is side
      ),
      change=None if side else change,
    )
    for side in (False, True)
  )
  for what in ("source", "group"):
    names = f"{what}_names"
    missing = sorted(
      {*held_out.dataset.__getattribute__(names)}
      - {*train.dataset.__getattribute__(names)}
    )
    if missing:
      raise ValueError(
        f"split by {by} leaves no training pair of {what} {missing[0]!r}"
      )
  return train, held_out


def each_response(
  config: DataConfig, records: list[Record], tokenizer: Tokenizer
) -> Pairs:
  """Every response beside itself: "pairs" whose first side is scored alone."""
  alone = [
    Record(
      record.prompt,
      (response, response),
      id=record.id,
      where=record.where,
    )
    for record in records
    for response in record.responses
  ]
  return _encode(config, alone, tokenizer)


def first(
  config: DataConfig,
  pairs: Pairs,
  number: int,
  tokenizer: Tokenizer,
) -> Pairs:
  """The first `number` pairs, or all if there are fewer."""
  records = list(itertools.islice(pairs.records, number))
  if not isinstance(pairs.dataset.sequences, sharded_tokens.SharedSequences):
    return Pairs(records, pairs.dataset.first(number), {})
  # Of what several processes have tokenised each holds a part.
  return _encode(config, records, tokenizer)


def _encode(
  config: DataConfig, records: list[Record], tokenizer: Tokenizer
) -> Pairs:
  dataset = pair_dataset.encode_pairs(
    section.watched(records, len(records), "tokenising responses"),
    tokenizer,
    max_length=config.max_length,
  )
  return Pairs(records, dataset, dataset.counts)


def make_batches(
  config: DataConfig,
  pairs: Pairs,
  tokenizer: Tokenizer,
  batch_size: int,
  *,
  seed: int,
  shuffle: bool,
  rows: np.ndarray | None = None,
) -> loader.Batches:
  """Batches as a pure function of (seed, step, process), of `rows` or all."""
  dataset: Dataset = pairs.dataset
  if rows is not None:
    dataset = loader.Selection(dataset, rows)
  return section.make_batches(
    dataset,
    tokenizer,
    batch_size=batch_size,
    buckets=config.buckets,
    seed=seed,
    shuffle=shuffle,
    mixing=config.mixing,
    pairs_per_source=config.pairs_per_source,
  )
