"""Rollout on the host: sampled responses as texts, and their scores."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxalign.data.batching import prompt_dataset
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.policy import stage as policy_programs
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.reward_sources import base
from jaxalign.runtime.reward_sources import labels as label_shares


class Rollout(NamedTuple):
  """One answer round, scored.

  Attributes:
    batch: arrays over all devices, what the learning program takes.
    prompts: what was asked, R · G, a prompt as often as it was answered.
    responses: texts, R · G, those of a prompt one after another.
    scores: float32 [R, G, K], of all processes.
    label_probs: shares of the source's labels, float32 [R, G, d], or None.
    columns: what else is known of each, name -> R · G values.
    where: prompts that count, bool [R], of all processes.
    seconds: "sampling" and "scoring".
    num_tokens: response tokens of all processes.
  """

  batch: dict[str, jax.Array]
  prompts: list[Any]
  responses: list[str]
  scores: np.ndarray
  label_probs: np.ndarray | None
  columns: dict[str, list[Any]]
  where: np.ndarray
  seconds: dict[str, float]
  num_tokens: int


def make_rollout(
  stage: policy_programs.PolicyStage,
  dataset: prompt_dataset.PromptDataset,
  tokenizer: Tokenizer,
  source: base.RewardSource,
) -> Callable[[Any, Any, dict[str, np.ndarray], jax.Array], Rollout]:
  """`(actor params, frozen, batch of prompts, key) -> Rollout`.

  Every process hands all texts to the source, which answers them all alike.

  Args:
    stage: gives the sampling program.
    dataset: where the batch's prompts are from.
    tokenizer: turns tokens into texts.
    source: turns texts into rewards.

  Returns:
    The function; it raises RewardError if the source does, having changed
    nothing.
  """
  rows = stage.prompts["where"].sharding

  def rollout(
    params: Any, frozen: Any, batch: dict[str, np.ndarray], key: jax.Array
  ) -> Rollout:
    begun = time.perf_counter()
    prompts_of = multihost.global_batch(batch, rows)
    sampled = stage.sample(params, frozen, prompts_of, key)
    ids, mask, index, where = multihost.fetch(
      (
        sampled["tokens"],
        sampled["mask"],
        prompts_of["index"],
        prompts_of["where"],
      )
    )
    sampled_at = time.perf_counter()
    asked = [dataset.texts[i] for i in index for _ in range(ids.shape[1])]
    new = sampled["sampler_log_probs"].shape[-1]
    texts = [
      tokenizer.decode_response(
        prompt,
        row[:-new][counts[:-new]].tolist(),
        row[-new:][counts[-new:]].tolist(),
      )
      for prompt, row, counts in zip(
        asked,
        ids.reshape(-1, ids.shape[-1]),
        mask.reshape(-1, ids.shape[-1]),
        strict=True,
      )
    ]
    columns = {
      name: [values[i] for i in index for _ in range(ids.shape[1])]
      for name, values in dataset.columns.items()
    }
    shape = ids.shape[:2]
    found = label_shares.score(source, asked, texts, columns)
    probs = found.label_probs
    learned = {"scores": found.rewards.reshape(*shape, -1)}
    if "label_probs" in stage.batch:
      learned |= label_outcomes(source, found, shape)
    scored_at = time.perf_counter()
    local = multihost.global_batch(
      {name: values[batch["row"]] for name, values in learned.items()}, rows
    )
    return Rollout(
      batch={
        **sampled,
        **local,
        **{k: prompts_of[k] for k in ("group", "where", "row")},
      },
      prompts=asked,
      responses=texts,
      scores=learned["scores"],
      label_probs=None if probs is None else probs.reshape(*shape, -1),
      columns=columns,
      where=where,
      seconds={
        "sampling": sampled_at - begun,
        "scoring": scored_at - sampled_at,
      },
      num_tokens=int(mask[..., -new:].sum()),
    )

  return rollout


def label_outcomes(
  source: base.RewardSource,
  found: label_shares.Scored,
  shape: tuple[int, ...],
) -> dict[str, np.ndarray]:
  """What a distributional critic learns of labels.

  Args:
    source: that gave them.
    found: its rewards and label shares of R · G responses.
    shape: R and G.

  Returns:
    `label_probs` and `label_gaps`, what each label is worth beyond the reward,
    float32 [R, G, d].

  Raises:
    ValueError: the reward is not the mean of the labels' values.
  """
  named, probs = label_shares.labels_of(source), label_shares.shares(found)
  if named is None or found.rewards.shape[1] != 1:
    raise ValueError("a critic of labels needs a source of one labelled output")
  values = np.asarray(named.values)
  far = np.abs(probs.astype(np.float64) @ values - found.rewards[:, 0])
  if far.max(initial=0.0) > 1e-3 * max(1.0, float(np.abs(values).max())):
    raise ValueError(
      "a critic of labels needs rewards that are the mean of the labels' "
      f"values, and one is {far.max():.3g} off: source.risk must be 'mean'"
    )
  gaps = values - found.rewards
  return {
    name: array.astype(np.float32).reshape(*shape, -1)
    for name, array in (("label_probs", probs), ("label_gaps", gaps))
  }


def speed(found: Rollout, learning: float) -> dict[str, float]:
  """How long an iteration took, in parts.

  Args:
    found: what was learned from.
    learning: seconds that learning took.

  Returns:
    `speed/PART_seconds` per part and `speed/response_tokens_per_second`.
  """
  seconds = {**found.seconds, "learning": learning}
  return {
    **{f"speed/{part}_seconds": value for part, value in seconds.items()},
    "speed/response_tokens_per_second": (
      found.num_tokens / sum(seconds.values())
    ),
  }


def measured(
  step: int, metrics: dict[str, float]
) -> tuple[int, dict[str, float]]:
  """What an iteration logs: not the KL on prompts of a group that had none."""
  return step, {
    name: value
    for name, value in metrics.items()
    if not (name.startswith("train/kl/") and np.isnan(value))
  }
