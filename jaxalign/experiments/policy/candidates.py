"""Candidates: several answers to each prompt, with utilities per group."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.records import chat, reader
from jaxalign.data.records.record import Record
from jaxalign.experiments.policy import answers
from jaxalign.runtime.reward_sources import base


@dataclasses.dataclass(frozen=True)
class PromptsConfig:
  """Where prompts come from.

  Attributes:
    files: sources, one prompt per record: globs, `hub:NAME[:subset][:split]` or
      `synthetic:NAME[:split]`; prompts alone will do where a policy answers.
    limit: prompts taken, from the first on; None for all.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns beyond the schema to ignore.
    reward_columns: columns that the reward function asks for, of the schema,
      such as `group`, or beyond it, such as `answer`.
    crowd_seed: seed of synthetic sources.
  """

  files: tuple[str, ...]
  limit: int | None = None
  on_bad_record: str = "error"
  extra_columns: tuple[str, ...] = ()
  reward_columns: tuple[str, ...] = ()
  crowd_seed: int = 0


class Scored(NamedTuple):
  """One prompt with its N answers and their rewards and utilities.

  Attributes:
    prompt: text or chat turns.
    responses: N answers.
    proxy: [N, K] rewards by which the best is picked.
    oracle: [N, J] their true utility, J = 0 where it is unknown.
  """

  prompt: chat.Text
  responses: list[str]
  proxy: list[list[float]]
  oracle: list[list[float]]


def load_prompts(
  data: PromptsConfig,
  *,
  num_responses: int,
  check: Callable[[Record], None] | None = None,
) -> list[Record]:
  """The records whose prompts are answered, in order.

  Args:
    data: the section.
    num_responses: that each record must hold; 0 where a policy answers.
    check: raises ValueError for a record that the policy cannot read.

  Raises:
    ValueError: no record, or one with too few responses.
  """
  records = list(
    reader.RecordStream(
      data.files,
      data.on_bad_record,
      data.extra_columns,
      data.crowd_seed,
      need_responses=num_responses > 0,
      check=check,
      # Answers are judged as they are, and a prompt is one without them.
      drop_unusable=False,
      keep_columns=data.reward_columns,
    )
  )[: data.limit]
  if not records:
    raise ValueError(f"data.files must hold one prompt or more: {data.files}")
  reader.check_columns(
    {
      name: [record.column(name) for record in records]
      for name in data.reward_columns
    }
  )
  for number, record in enumerate(records):
    if len(record.responses) < num_responses:
      raise ValueError(
        f"{record.place(number)}: policy must be set, as there are "
        f"{len(record.responses)} responses for num_samples = {num_responses}"
      )
  return records


def rated_by(records: Sequence[Record]) -> tuple[str, ...]:
  """Attributes that rate every response of every record."""
  shared: set[str] | None = None
  for record in records:
    full = {
      name
      for name, values in (record.ratings or {}).items()
      if len(values) == len(record.responses)
    }
    shared = full if shared is None else shared & full
  return tuple(sorted(shared or ()))


def score_chunk(
  records: Sequence[Record],
  first: int,
  size: int,
  answerer: answers.Answerer | None,
  source: base.RewardSource,
  oracle: base.RewardSource | None,
  rated: Sequence[str],
  reward_columns: Sequence[str] = (),
) -> list[Scored]:
  """Answers and rewards of some records.

  Args:
    records: whose prompts are answered.
    first: number of the first among all.
    size: N, answers per prompt.
    answerer: the policy; None takes the first responses of each record.
    source: the proxy.
    oracle: says what answers are truly worth, or None.
    rated: attributes of the records' ratings that say so in its place.
    reward_columns: of the records, that the source may ask for.

  Returns:
    One per record.
  """
  prompts = [record.prompt for record in records for _ in range(size)]
  if answerer is None:
    texts = [
      chat.text_of(text)
      for record in records
      for text in record.responses[:size]
    ]
  else:
    begin = first * size
    texts = answerer(prompts, range(begin, begin + len(prompts)))
  columns = {
    name: [record.column(name) for record in records for _ in range(size)]
    for name in reward_columns
  }
  proxy = source(prompts, texts, columns)
  if oracle is not None:
    truth = oracle(prompts, texts, columns)
  elif rated and answerer is None:
    truth = np.concatenate(
      [
        np.array([(record.ratings or {})[name][:size] for name in rated]).T
        for record in records
      ]
    )
  else:
    truth = np.zeros((len(texts), 0))
  return [
    Scored(
      record.prompt,
      texts[i * size : (i + 1) * size],
      proxy[i * size : (i + 1) * size].astype(float).tolist(),
      truth[i * size : (i + 1) * size].astype(float).tolist(),
    )
    for i, record in enumerate(records)
  ]
