"""Policy evaluation: utility of held-out answers for each group."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxalign.algorithms.ppo_batch import PolicyState
from jaxalign.data.batching import loader, prompt_dataset
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import prompts
from jaxalign.experiments.policy import config as policy_config
from jaxalign.experiments.policy import rollout
from jaxalign.experiments.policy import stage as policy_programs
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import progress_bar
from jaxalign.runtime.reward_sources import base

Measure = Callable[[PolicyState], dict[str, float]]


def make_measure(
  config: policy_config.Config,
  stage: policy_programs.PolicyStage,
  held_out: prompt_dataset.PromptDataset,
  tokenizer: Tokenizer,
  source: base.RewardSource,
  judge: base.RewardSource | None,
  frozen: Any,
  key: jax.Array,
) -> Measure:
  """`state -> metrics` on held-out prompts, answered with the same keys always.

  Args:
    config: number of prompts per batch, and of tokens.
    stage: gives sampling and the KL to the reference.
    held_out: prompts.
    tokenizer: turns tokens into texts.
    source: says what they are worth to the policy that is trained.
    judge: says what they are worth in truth, or None.
    frozen: the reference's parameters.
    key: of all samples.

  Returns:
    The function. It gives `eval/utility/NAME` per output, their least and mean,
    `eval/judge/NAME` per output of the judge, `eval/kl` per response in nats,
    and how long responses are.
  """
  source_of = prompts.make_batches(
    config.data,
    held_out,
    tokenizer,
    config.train.num_prompts,
    seed=0,
    shuffle=False,
  )
  rollout_of = rollout.make_rollout(stage, held_out, tokenizer, source)
  names = config.source.names

  def measure(state: PolicyState) -> dict[str, float]:
    scores, judged, kls, lengths, ended = [], [], [], [], []
    stream = loader.batch_iterator(
      source_of, start_step=0, num_steps=len(source_of), prefetch=0
    )
    passing = progress_bar.watched(
      stream, total=len(source_of), what="answering held-out prompts"
    )
    for number, batch in enumerate(passing):
      found = rollout_of(
        state.actor.params, frozen, batch, jax.random.fold_in(key, number)
      )
      read = {k: found.batch[k] for k in ("tokens", "mask")}
      width = config.sampling.max_new_tokens
      kl, mask, ends = multihost.fetch(
        (
          stage.compare(state.actor.params, frozen, read),
          found.batch["mask"][..., -width:],
          found.batch["ended"],
        )
      )
      scores.append(found.scores[found.where].reshape(-1, len(names)))
      if judge is not None:
        truth = judge(found.prompts, found.responses)
        truth = truth.reshape(*found.scores.shape[:2], -1)[found.where]
        judged.append(truth.reshape(-1, len(judge.names)))
      kls.append(kl[found.where].reshape(-1))
      lengths.append(mask[found.where].sum(axis=-1).reshape(-1))
      ended.append(ends[found.where].reshape(-1))
    columns = lambda parts: (
      np.concatenate(parts).astype(np.float64).mean(axis=0)
    )
    utilities = columns(scores)
    truths = {}
    if judge is not None:
      truths = dict(zip(judge.names, columns(judged), strict=True))
    mean = lambda parts: float(np.concatenate(parts).astype(np.float64).mean())
    return {
      **{
        f"eval/utility/{name}": float(value)
        for name, value in zip(names, utilities, strict=True)
      },
      **{f"eval/judge/{name}": float(v) for name, v in truths.items()},
      "eval/worst_utility": float(utilities.min()),
      "eval/mean_utility": float(utilities.mean()),
      "eval/kl": mean(kls),
      "eval/response_tokens": mean(lengths),
      "eval/ended": mean(ended),
    }

  return measure
