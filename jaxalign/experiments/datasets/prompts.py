"""The `data` section of a config that reads prompts for a policy."""

import dataclasses
import logging

from jaxalign.data.batching import loader, prompt_dataset
from jaxalign.data.records import reader, refusals
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import section, warnings
from jaxalign.ops import checks
from jaxalign.runtime.distributed import multihost

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig(section.SourceConfig):
  """Prompt files, and how they become tokens and batches.

  Attributes:
    train_files: sources whose prompts are answered and learned from: globs,
      `hub:NAME[:subset][:split]` or `synthetic:NAME[:split]`; one prompt per
      record, whatever responses it has, if any.
    max_prompt_length: tokens of a prompt; longer ones lose their beginning.
    reward_columns: columns that the reward function asks for, of the schema,
      such as `group`, or beyond it, such as `answer`.
    crowd_seed: seed of synthetic sources and of the synthetic crowd's oracle.
    prefetch: batches made ahead of the iteration.
  """

  max_prompt_length: int
  reward_columns: tuple[str, ...] = ()
  prefetch: int = 2

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(1, max_prompt_length=self.max_prompt_length)


def load_prompts(
  config: PromptConfig,
  files: tuple[str, ...],
  tokenizer: Tokenizer,
  *,
  group_names: tuple[str, ...],
  limit: int | None = None,
  noted: warnings.Cautions | None = None,
  held_out: bool = False,
) -> prompt_dataset.PromptDataset:
  """The prompts of the sources `files`.

  Args:
    config: length and the policy for bad records.
    files: sources, see `PromptConfig`.
    tokenizer: from `tokenizer.open_tokenizer`.
    group_names: groups of prompts that have numbers of their own.
    limit: number of prompts, spread evenly over the sources; None for all.
    noted: sees the prompts, or None.
    held_out: whether they are, for `noted`.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record.
  """
  stream = reader.RecordStream(
    files,
    config.on_bad_record,
    config.extra_columns,
    config.crowd_seed,
    need_responses=False,
    check=refusals.refuses_if_skipping(
      config.on_bad_record, tokenizer, least=0
    ),
    drop_unusable=False,  # a prompt is one whatever was answered before
    keep_columns=config.reward_columns,
  )
  # Without the responses, which may be many times as long.
  records = [
    Record(
      record.prompt,
      responses=(),
      group=record.group,
      source=record.source,
      id=record.id,
      where=record.where,
      extra={name: record.column(name) for name in config.reward_columns},
    )
    for record in stream
  ]
  if limit is not None and limit < len(records):
    records = [records[i * len(records) // limit] for i in range(limit)]
  if noted is not None:
    noted.note(records, held_out=held_out)
  dataset = prompt_dataset.encode_prompts(
    records,
    tokenizer,
    max_length=config.max_prompt_length,
    group_names=group_names,
    processes=multihost.sharing(),
  )
  kept = [record.extra or {} for record in records]
  columns = {
    name: [each[name] for each in kept] for name in config.reward_columns
  }
  reader.check_columns(columns)
  dataset = dataclasses.replace(dataset, columns=columns)
  log.info(
    "%s: %s prompts; cut to %d tokens: %s",
    " ".join(files),
    f"{len(dataset):,}",
    config.max_prompt_length,
    section.in_words(dataset.counts),
  )
  return dataset


def make_batches(
  config: PromptConfig,
  dataset: prompt_dataset.PromptDataset,
  tokenizer: Tokenizer,
  num_prompts: int,
  *,
  seed: int,
  shuffle: bool,
) -> loader.Batches:
  """Batches of prompts as a pure function of (seed, iteration, process)."""
  return section.make_batches(
    dataset,
    tokenizer,
    batch_size=num_prompts,
    buckets=(config.max_prompt_length,),
    seed=seed,
    shuffle=shuffle,
  )
