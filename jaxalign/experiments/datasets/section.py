"""What every `data` section has: sources, a tokenizer, batches, log lines."""

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

import jax

from jaxalign.data.batching import loader
from jaxalign.data.batching.dataset import Dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.runtime.io import filesystem, progress_bar

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
  """Files of texts, and how they are read.

  Attributes:
    train_files: sources to learn from: globs, `hub:NAME[:subset][:split]` or
      `synthetic:NAME[:split]`.
    eval_files: held-out sources; empty for none.
    tokenizer: "byte", a folder that holds a tokenizer, the id of a model on the
      hub, or None for the one of the model's folder, to which "byte" gives way.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns beyond the schema to ignore.
    crowd_seed: seed of synthetic sources.
    prefetch: batches made ahead of the step.
  """

  train_files: tuple[str, ...]
  eval_files: tuple[str, ...] = ()
  tokenizer: str | None = None
  on_bad_record: str = "error"
  extra_columns: tuple[str, ...] = ()
  crowd_seed: int = 0
  prefetch: int = 4


class Section(Protocol):
  """A `data` section: "byte", a folder that holds a tokenizer, or None."""

  @property
  def tokenizer(self) -> str | None:
    """None for the one of the model's folder."""


def open_tokenizer(data: Section, folder: str | None) -> Tokenizer:
  """The tokenizer of a config, else of the model's folder.

  Args:
    data: the `data` section.
    folder: `model.init_from`.

  Returns:
    The tokenizer. "byte" gives way to one that the folder holds: to other
    weights than new ones its ids would mean nothing.

  Raises:
    ValueError: neither is given.
  """
  spec = folder if data.tokenizer is None else data.tokenizer
  if spec is None:
    raise ValueError(
      "data.tokenizer must be set for a model that starts from scratch: "
      "'byte' or a folder"
    )
  if spec == "byte" and folder is not None and _holds_one(folder):
    log.info("data.tokenizer 'byte' gives way to the tokenizer of %s", folder)
    spec = folder
  return tokenizer_files.load_tokenizer(
    filesystem.resolved(spec, weights=False)
  )


def _holds_one(folder: str) -> bool:
  """Whether a model's folder has a tokenizer of its own."""
  path = filesystem.resolved(folder, weights=False)
  return any(
    os.path.isfile(os.path.join(path, name))
    for name in ("tokenizer.json", "vocab.json")
  )


def make_batches(
  dataset: Dataset,
  tokenizer: Tokenizer,
  *,
  batch_size: int,
  buckets: tuple[int, ...],
  seed: int,
  shuffle: bool,
  mixing: str = "proportional",
  pairs_per_source: int | None = None,
) -> loader.Batches:
  """Batches of this process, with the arguments of `loader.Batches`."""
  return loader.Batches(
    dataset,
    batch_size=batch_size,
    buckets=buckets,
    pad_id=tokenizer.pad_id,
    seed=seed,
    shuffle=shuffle,
    mixing=mixing,
    pairs_per_source=pairs_per_source,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def in_words(counts: Mapping[str, int]) -> str:
  """What was counted: "3 truncated prompts, 1 skipped", or "nothing"."""
  said = [
    f"{number:,} {name.replace('_', ' ')}"
    for name, number in counts.items()
    if number
  ]
  return ", ".join(said) if said else "nothing"


def watched(
  records: Iterable[Record], total: int | None, what: str
) -> Iterable[Record]:
  """Records with a bar for the pass over them.

  Args:
    records: to be read once by one process, again and again by several, which
      then get them as they are.
    total: how many there are, None if unknown.
    what: what is done with them.
  """
  if jax.process_count() > 1:
    return records
  return progress_bar.watched(records, total=total, what=what)
