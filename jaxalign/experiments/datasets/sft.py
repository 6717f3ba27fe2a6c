"""The `data` section of a config that reads prompts with their answers."""

import dataclasses
import logging
from collections.abc import Iterable

import numpy as np

from jaxalign.data.batching import loader, packing, sft_dataset
from jaxalign.data.records import reader, refusals
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import section, warnings
from jaxalign.ops import checks
from jaxalign.runtime.distributed import multihost

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(section.SourceConfig):
  """Files of prompts with answers, and how they become tokens and batches.

  Attributes:
    train_files: sources to learn from: globs, `hub:NAME[:subset][:split]` or
      `synthetic:NAME[:split]`; the first response of a record is its answer.
    length: tokens per row; longer texts lose the beginning of their prompt.
    layout: how texts share rows: "best_fit", "best_fit_split" or "wrapped".
  """

  length: int
  layout: str = "best_fit"

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(packing.LAYOUTS, layout=self.layout)
    checks.at_least(2, length=self.length)


def load_texts(
  config: TextConfig,
  files: tuple[str, ...],
  tokenizer: Tokenizer,
  *,
  noted: warnings.Cautions | None = None,
  held_out: bool = False,
) -> sft_dataset.PackedDataset:
  """Reads, tokenises and packs the sources `files`.

  Args:
    config: length and the policy for bad records.
    files: sources, see `TextConfig`.
    tokenizer: from `tokenizer.open_tokenizer`.
    noted: sees the records pass, or None.
    held_out: whether they are, for `noted`.

  Returns:
    The packed texts.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record.
  """
  stream = reader.RecordStream(
    files,
    config.on_bad_record,
    config.extra_columns,
    config.crowd_seed,
    check=refusals.refuses_if_skipping(
      config.on_bad_record, tokenizer, least=1
    ),
  )
  records: Iterable[Record] = stream
  if noted is not None:
    records = noted.passing(stream, held_out=held_out)
  dataset = sft_dataset.pack_records(
    section.watched(records, None, "tokenising texts"),
    tokenizer,
    length=config.length,
    layout=config.layout,
    processes=multihost.sharing(),
  )
  filled = int(dataset.sequences.lengths.sum()) / (len(dataset) * config.length)
  log.info(
    "%s: %s texts in %s rows of %d tokens, %.0f %% filled",
    " ".join(files),
    f"{len(dataset.sequences):,}",
    f"{len(dataset):,}",
    config.length,
    100 * filled,
  )
  return dataset


def make_batches(
  config: TextConfig,
  dataset: sft_dataset.PackedDataset,
  tokenizer: Tokenizer,
  batch_size: int,
  *,
  seed: int,
  shuffle: bool,
) -> loader.Batches:
  """Batches as a pure function of (seed, step, process)."""
  return section.make_batches(
    dataset,
    tokenizer,
    batch_size=batch_size,
    buckets=(config.length,),
    seed=seed,
    shuffle=shuffle,
  )


def text_shapes(batch_size: int, length: int) -> dict[str, loader.ArraySpec]:
  """Shapes and dtypes of a batch of `batch_size` rows of `length` tokens."""
  rows = lambda dtype: loader.ArraySpec((batch_size,), np.dtype(dtype))
  wide = lambda dtype: loader.ArraySpec((batch_size, length), np.dtype(dtype))
  return {
    "tokens": wide(np.int32),
    "segment_ids": wide(np.int32),
    "positions": wide(np.int32),
    "mask": wide(np.bool_),
    "loss_mask": wide(np.bool_),
    "where": rows(np.bool_),
    "row": rows(np.int32),
    "index": rows(np.int32),
  }
