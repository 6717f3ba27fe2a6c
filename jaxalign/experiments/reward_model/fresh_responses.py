"""MetaRM's recipe: unlabelled responses beside the pairs of a batch."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxalign.algorithms import bradley_terry, metarm
from jaxalign.data.batching import loader, ranking_dataset
from jaxalign.data.records import reader, refusals
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import pair_recipes, recipe
from jaxalign.runtime.distributed import multihost

KEYS = ("tokens", "mask", "prompt_lengths", "where")


def make(
  config: metarm.MetaRmConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """Bradley-Terry whose gradient is taken where rewards of responses differ.

  Args:
    config: the `recipe` section.
    loss: the `loss` section.
    coupling: how pairs are weighed, None for their mean.

  Returns:
    The recipe.
  """
  pairs = pair_recipes.make(config, loss, coupling)
  return dataclasses.replace(
    pairs,
    take=lambda model, optimizer: metarm.lookahead(
      model.apply, config, optimizer
    ),
    passes=metarm.passes(config),
    batch_shapes=lambda batch_size, length: (
      loader.pair_shapes(batch_size, length) | shapes(config, length)
    ),
    extra_batches=functools.partial(join, config),
  )


@dataclasses.dataclass(frozen=True)
class _First:
  """Records with their first responses alone, read again each time."""

  records: Iterable[Record]
  number: int

  def __iter__(self) -> Iterator[Record]:
    for i, record in enumerate(self.records):
      if len(record.responses) < self.number:
        raise ValueError(
          f"{record.place(i)}: {len(record.responses)} responses, "
          f"recipe.num_responses is {self.number}"
        )
      yield Record(
        record.prompt,
        record.responses[: self.number],
        id=record.id,
        where=record.where,
      )


class Joined:
  """Pairs with fresh responses beside them, indexed by step.

  Attributes:
    pairs: the batches that are learned from.
    fresh: batches of responses, under keys that begin with `meta_`.
  """

  def __init__(self, pairs: loader.Batches, fresh: loader.Batches) -> None:
    self.pairs = pairs
    self.fresh = fresh

  def over(
    self, change: Callable[[loader.Batches], loader.Batches]
  ) -> "Joined":
    """The same of both, changed."""
    return Joined(change(self.pairs), change(self.fresh))

  def __len__(self) -> int:
    """Steps per epoch of the pairs."""
    return len(self.pairs)

  @property
  def members(self) -> tuple[loader.Batches, ...]:
    """Both sources of rows."""
    return self.pairs, self.fresh

  def hold(self, steps: Iterable[int]) -> None:
    """Brings in what this process shows in some steps; see `Batches.hold`."""
    self.pairs.hold(steps)
    self.fresh.hold(steps)

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """Both batches of `step`, this process's rows."""
    fresh = self.fresh[step]
    return self.pairs[step] | {metarm.PREFIX + key: fresh[key] for key in KEYS}


def shapes(
  config: metarm.MetaRmConfig, length: int
) -> dict[str, loader.ArraySpec]:
  """Shapes and dtypes of what is beside the pairs, at `length` tokens."""
  rows = (config.num_prompts, config.num_responses)
  specs = {
    "tokens": ((*rows, length), np.int32),
    "mask": ((*rows, length), np.bool_),
    "prompt_lengths": (rows, np.int32),
    "where": (rows[:1], np.bool_),
  }
  return {
    metarm.PREFIX + key: loader.ArraySpec(shape, np.dtype(dtype))
    for key, (shape, dtype) in specs.items()
  }


def join(
  config: metarm.MetaRmConfig,
  pairs: loader.Batches,
  data: preferences.DataConfig,
  tokenizer: Tokenizer,
  seed: int,
) -> Joined:
  """The pairs' batches with responses of `config.files` beside them.

  Args:
    config: sources, and how many records and responses of each.
    pairs: batches of pairs.
    data: token lengths and the policy for bad records.
    tokenizer: from `preferences.open_tokenizer`.
    seed: of the order.

  Returns:
    Batches of both. All fresh responses are padded to one of `data.buckets`,
    so that a step is compiled once for each bucket of the pairs.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record; a record has too few
      responses, or there are too few records.
  """
  # Answers that are all equal are what a collapsed policy gives: they stay.
  stream = reader.RecordStream(
    config.files,
    data.on_bad_record,
    data.extra_columns,
    data.crowd_seed,
    check=refusals.refuses_if_skipping(
      data.on_bad_record, tokenizer, least=config.num_responses
    ),
    drop_unusable=False,
  )
  found = _First(stream, config.num_responses)
  dataset = ranking_dataset.encode_responses(
    found if data.streaming else list(found),
    tokenizer,
    max_length=data.max_length,
    on_disk=data.streaming,
    processes=multihost.sharing(),
  )
  if len(dataset) < config.num_prompts:
    raise ValueError(
      f"recipe.files holds {len(dataset)} records, recipe.num_prompts is "
      f"{config.num_prompts}"
    )
  width = dataset.widths.max()
  fresh = loader.Batches(
    dataset,
    batch_size=config.num_prompts,
    buckets=(min(length for length in data.buckets if length >= width),),
    pad_id=tokenizer.pad_id,
    seed=seed + 1,  # not the order of pairs that come from the same file
    shuffle=True,
    process_index=pairs.process_index,
    process_count=pairs.process_count,
  )
  return Joined(pairs, fresh)
