"""The `data` section of every config that reads preferences."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import NamedTuple

import jax

from jaxalign.data import batches, readers, tokens
from jaxalign.data.record import Record, expand_rankings

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Where preferences come from and how they become tokens.

  Attributes:
    train_files: sources to learn from: globs, `hub:NAME[:subset][:split]` or
      `synthetic:NAME[:split]`.
    eval_files: held-out sources; empty for no evaluation.
    tokenizer: "byte", a folder that holds a tokenizer, or None for the one of
      the model's folder.
    max_length: tokens of prompt and response together; prompts give way.
    buckets: padded lengths; one compilation each.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns beyond the schema to ignore.
    crowd_seed: seed of synthetic sources.
    prefetch: batches made ahead of the step.
  """

  train_files: tuple[str, ...]
  eval_files: tuple[str, ...]
  tokenizer: str | None
  max_length: int
  buckets: tuple[int, ...]
  on_bad_record: str
  extra_columns: tuple[str, ...]
  crowd_seed: int
  prefetch: int


class Pairs(NamedTuple):
  """Records and their tokens, row for row.

  Attributes:
    records: pairs as read.
    dataset: their tokens.
    report: what reading and tokenising dropped or cut, name -> count.
  """

  records: list[Record]
  dataset: tokens.PairDataset
  report: Mapping[str, int]


def open_tokenizer(config: DataConfig, folder: str | None) -> tokens.Tokenizer:
  """The tokenizer of the config, else of the model's folder.

  Raises:
    ValueError: neither is given.
  """
  spec = folder if config.tokenizer is None else config.tokenizer
  if spec is None:
    raise ValueError(
      "data.tokenizer must be set for a model that starts from scratch: "
      "'byte' or a folder"
    )
  return tokens.load_tokenizer(readers.expand_variables(spec))


def load_records(config: DataConfig, files: tuple[str, ...]) -> list[Record]:
  """Reads the sources `files`, logging what was dropped.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record.
  """
  return _read(config, files)[0]


def _read(
  config: DataConfig, files: tuple[str, ...]
) -> tuple[list[Record], Mapping[str, int]]:
  records, report = readers.read_records(
    files,
    on_bad_record=config.on_bad_record,
    extra_columns=config.extra_columns,
    crowd_seed=config.crowd_seed,
  )
  lost = {k: v for k, v in report.counts.items() if v}
  log.info("%s: %d records, %s", " ".join(files), len(records), lost or "all")
  return records, report.counts


def load_pairs(
  config: DataConfig, files: tuple[str, ...], tokenizer: tokens.Tokenizer
) -> Pairs:
  """Reads and tokenises the sources `files`.

  Args:
    config: token lengths and the policy for bad records.
    files: sources, see `DataConfig`.
    tokenizer: from `open_tokenizer`.

  Returns:
    The pairs; a ranking of more responses becomes all its pairs.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record.
  """
  records, lost = _read(config, files)
  pairs = _encode(config, expand_rankings(records), tokenizer, lost)
  cut = {k: v for k, v in pairs.dataset.counts.items() if v}
  if cut:
    log.info("%s", cut)
  return pairs


def each_response(
  config: DataConfig, records: list[Record], tokenizer: tokens.Tokenizer
) -> Pairs:
  """Every response beside itself: "pairs" whose first side is scored alone."""
  alone = [
    Record(prompt=record.prompt, responses=(response, response))
    for record in records
    for response in record.responses
  ]
  return _encode(config, alone, tokenizer, {})


def first(
  config: DataConfig, pairs: Pairs, number: int, tokenizer: tokens.Tokenizer
) -> Pairs:
  """The first `number` pairs, or all if there are fewer."""
  return _encode(config, pairs.records[:number], tokenizer, {})


def _encode(
  config: DataConfig,
  records: list[Record],
  tokenizer: tokens.Tokenizer,
  lost: Mapping[str, int],
) -> Pairs:
  dataset = tokens.encode_pairs(
    records, tokenizer, max_length=config.max_length
  )
  return Pairs(records, dataset, {**lost, **dataset.counts})


def make_batches(
  config: DataConfig,
  pairs: Pairs,
  tokenizer: tokens.Tokenizer,
  batch_size: int,
  *,
  seed: int,
  shuffle: bool,
) -> batches.PairBatches:
  """Batches as a pure function of (seed, step, process)."""
  return batches.PairBatches(
    pairs.dataset,
    batch_size=batch_size,
    buckets=config.buckets,
    pad_id=tokenizer.pad_id,
    seed=seed,
    shuffle=shuffle,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
