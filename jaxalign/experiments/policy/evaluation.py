"""Policy evaluation: utility of held-out answers for each group."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms.ppo_batch import PolicyState
from jaxalign.data.batching import loader, prompt_dataset
from jaxalign.data.records import chat
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import prompts
from jaxalign.experiments.policy import (
  answer_statistics,
  label_shares,
  rollout,
)
from jaxalign.experiments.policy import config as policy_config
from jaxalign.experiments.policy import stage as policy_programs
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import progress_bar
from jaxalign.runtime.reward_sources import base
from jaxalign.runtime.reward_sources import labels as source_labels

Measure = Callable[[PolicyState, int], dict[str, float]]
ANSWERS = "answers.json"  # of the first held-out prompts, at start and end
NUM_SHOWN = 3


def make_measure(
  config: policy_config.Config,
  stage: policy_programs.PolicyStage,
  held_out: prompt_dataset.PromptDataset,
  tokenizer: Tokenizer,
  source: base.RewardSource,
  judge: base.RewardSource | None,
  frozen: Any,
  key: jax.Array,
  workdir: epath.Path,
) -> Measure:
  """`(state, iteration) -> metrics` on held-out prompts, with the same keys.

  Args:
    config: number of prompts per batch, and of tokens.
    stage: gives sampling and the KL to the reference.
    held_out: prompts.
    tokenizer: turns tokens into texts.
    source: says what they are worth to the policy that is trained.
    judge: says what they are worth in truth, or None.
    frozen: the reference's parameters.
    key: of all samples.
    workdir: gets answers.json, for the page: the answers to the first prompts
      at the start and at the last evaluation.

  Returns:
    The function. It gives `eval/utility/NAME` per output, their least and mean,
    `eval/judge/NAME` per output of the judge, `eval/label/NAME` and
    `eval/judge_label/NAME` per label of either that predicts them, with
    `eval/label_worth` and `eval/judge_label_worth` of all, `eval/kl` per
    response in nats, `eval/perplexity` under the reference, a mean over
    responses, `eval/self_bleu` between them and how long they are.
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
  named_of = {
    "label": source_labels.labels_of(source),
    "judge_label": source_labels.labels_of(judge),
  }

  def measure(state: PolicyState, iteration: int) -> dict[str, float]:
    scores, judged, kls, nlls, lengths, ended = [], [], [], [], [], []
    shares: dict[str, list[np.ndarray]] = {"label": [], "judge_label": []}
    texts: list[tuple[str, str]] = []
    answers: list[str] = []
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
      compared, mask, ends = multihost.fetch(
        (
          stage.compare(state.actor.params, frozen, read),
          found.batch["mask"][..., -width:],
          found.batch["ended"],
        )
      )
      scores.append(found.scores[found.where])
      if found.label_probs is not None:
        shares["label"].append(found.label_probs[found.where])
      if judge is not None:
        said = source_labels.score(
          judge, found.prompts, found.responses, found.columns
        )
        counted = lambda rows, found=found: rows.reshape(
          *found.scores.shape[:2], -1
        )[found.where]
        judged.append(counted(said.rewards).reshape(-1, len(judge.names)))
        if said.label_probs is not None:
          shares["judge_label"].append(counted(said.label_probs))
      if len(texts) < NUM_SHOWN:
        texts += _first_answers(found)
      answers += _answers(found)
      kls.append(compared.kl[found.where].reshape(-1))
      nlls.append(compared.nll[found.where].reshape(-1))
      lengths.append(mask[found.where].sum(axis=-1).reshape(-1))
      ended.append(ends[found.where].reshape(-1))
    columns = lambda parts: (
      np.concatenate(parts).astype(np.float64).mean(axis=0)
    )
    rewards = np.concatenate(scores)  # [P, G, K]
    flat = rewards.reshape(-1, len(names))
    utilities = columns([flat])
    statistics = answer_statistics.describe(
      answers, np.concatenate(nlls), np.concatenate(lengths), rewards, names
    )
    truths = {}
    if judge is not None:
      truths = dict(zip(judge.names, columns(judged), strict=True))
    labels = {
      kind: label_shares.summarise(
        label_shares.by_prompt(np.concatenate(parts), len(held_out)), named
      )
      for kind, parts in shares.items()
      if parts and (named := named_of[kind]) is not None
    }
    if multihost.is_main():
      truth = None if judge is None else (np.concatenate(judged), judge.names)
      about = describe(texts[:NUM_SHOWN], (flat, names), truth, len(held_out))
      about["statistics"] = statistics
      about["labels"] = labels
      keep(workdir / ANSWERS, iteration, about)
    mean = lambda parts: float(np.concatenate(parts).astype(np.float64).mean())
    repeats = statistics["self_bleu"]
    return {
      **{
        f"eval/utility/{name}": float(value)
        for name, value in zip(names, utilities, strict=True)
      },
      **{f"eval/judge/{name}": float(v) for name, v in truths.items()},
      **{
        f"eval/{kind}/{name}": share["value"]
        for kind, found in labels.items()
        for name, share in zip(found["names"], found["shares"], strict=True)
      },
      **{f"eval/{k}_worth": v["worth"]["value"] for k, v in labels.items()},
      "eval/worst_utility": float(utilities.min()),
      "eval/mean_utility": float(utilities.mean()),
      "eval/kl": mean(kls),
      "eval/perplexity": statistics["perplexity"]["mean"],
      **({} if repeats is None else {"eval/self_bleu": repeats}),
      "eval/response_tokens": mean(lengths),
      "eval/ended": mean(ended),
    }

  return measure


def _answers(found: rollout.Rollout) -> list[str]:
  """All answers to the prompts of a batch that count."""
  per_prompt = len(found.responses) // len(found.where)
  return [
    found.responses[i * per_prompt + j]
    for i in np.flatnonzero(found.where)
    for j in range(per_prompt)
  ]


def _first_answers(found: rollout.Rollout) -> list[tuple[str, str]]:
  """Each prompt of a batch that counts, with the first of its answers."""
  per_prompt = len(found.responses) // len(found.where)
  return [
    (
      chat.text_of(found.prompts[i * per_prompt]),
      found.responses[i * per_prompt],
    )
    for i in np.flatnonzero(found.where)
  ]


def describe(
  texts: Sequence[tuple[str, str]],
  rewards: tuple[np.ndarray, Sequence[str]],
  truth: tuple[np.ndarray, Sequence[str]] | None,
  num_prompts: int,
) -> dict[str, Any]:
  """Sample answers with what they are worth, and how sure the means are.

  Args:
    texts: the first prompts and answers.
    rewards: of all answers, [P * N, K], and their K names.
    truth: the same from the judge, or None.
    num_prompts: P.

  Returns:
    `prompts`, `answers` and `utilities` of the texts; `standard_error` of each
    mean utility over prompts; and in `closest` the judge's output that each
    output of another name correlates with most.
  """
  values, names = rewards if truth is None else truth
  per_prompt = values.reshape(num_prompts, -1, len(names)).mean(axis=1)
  error = per_prompt.std(axis=0) / np.sqrt(max(num_prompts - 1, 1))
  step = len(values) // num_prompts
  return {
    "num_prompts": num_prompts,
    "prompts": [prompt for prompt, _ in texts],
    "answers": [answer for _, answer in texts],
    "utilities": [
      dict(zip(names, map(float, values[i * step]), strict=True))
      for i in range(len(texts))
    ],
    "standard_error": dict(zip(names, map(float, error), strict=True)),
    "closest": {} if truth is None else closest(rewards, truth),
  }


def closest(
  rewards: tuple[np.ndarray, Sequence[str]],
  truth: tuple[np.ndarray, Sequence[str]],
) -> dict[str, dict[str, Any]]:
  """Per output of the source the judge's output that it correlates with most.

  Outputs that go by a name of the judge's, and constant ones, are left out.
  """
  names, known = rewards[1], truth[1]
  moving = truth[0].std(axis=0) > 0
  found = {}
  for k, name in enumerate(names):
    column = rewards[0][:, k]
    if name in known or len(names) < 2 or not column.std() or not moving.any():
      continue
    r = [
      float(np.corrcoef(column, truth[0][:, g])[0, 1]) if moving[g] else -1.0
      for g in range(len(known))
    ]
    best = int(np.argmax(r))
    found[name] = {"group": known[best], "correlation": r[best]}
  return found


def keep(path: epath.Path, iteration: int, about: Mapping[str, Any]) -> None:
  """Writes what the answers are at the end, and at the start if it is that."""
  now = {"iteration": iteration, **about}
  kept = {"start": now} if not iteration else {}
  if iteration and path.exists():
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k != "end"}
  kept["end"] = now
  configuration.write_json(path, kept)
