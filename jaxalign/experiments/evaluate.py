r"""Evaluation of reward models on held-out preferences: tables and a page.

python -m jaxalign.experiments.evaluate --config=configs/evaluate.py \
      --config.models="('runs/rm_bt_crowd/model',)" --workdir=runs/eval
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import reward_readout
from jaxalign.data.stats import baselines
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.datasets import warnings as data_warnings
from jaxalign.experiments.reports import label_scores, reward_model
from jaxalign.experiments.reward_model import (
  fitting,
  group_intervals,
  group_metrics,
  mixture_scores,
  pair_scores,
  personal_scores,
  scoring,
)
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact
from jaxalign.runtime.plots import html_report

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `evaluate` reads.

  Attributes:
    seed: of resampling.
    data: `eval_files` are scored; `train_files`, if any, train the bag-of-words
      baseline; the tokenizer is each model's own.
    models: `model/` folders.
    average: score the mean of all models' rewards as one more model.
    dtype: compute type, "float32" or "bfloat16".
    eval: batch, bins and resamples.
    mesh: devices.
  """

  seed: int = 0
  data: preferences.DataConfig
  models: tuple[str, ...]
  average: bool = False
  dtype: str = "float32"
  eval: pair_scores.EvalConfig = pair_scores.EvalConfig()
  mesh: meshes.MeshConfig = meshes.MeshConfig()


def build(config: Config, mesh: jax.sharding.Mesh) -> scoring.Stage:
  """The compiled half of the stage for the first of `config.models`."""
  path = config.models[0]
  return _build(_fitted(config, path), path, mesh)


def _fitted(config: Config, path: str) -> Config:
  """The config with lengths that one of its models can take."""
  return dataclasses.replace(config, data=scoring.fitted(config.data, path))


def _build(config: Config, path: str, mesh: jax.sharding.Mesh) -> scoring.Stage:
  return scoring.build(
    scoring.load_network(path, config.dtype),
    mesh,
    config.mesh.rules,
    config.eval.batch_size,
    max(config.data.buckets),
  )


def _subsets(pairs: preferences.Pairs) -> dict[str, np.ndarray]:
  """Row numbers of all pairs and, where there are several, of each source."""
  dataset = pairs.dataset
  subsets = {"all": np.arange(len(dataset))}
  if len(dataset.source_names) > 1:
    for k, name in enumerate(dataset.source_names):
      subsets[name] = np.flatnonzero(dataset.source == k)
  return subsets


def baseline_scores(
  pairs: preferences.Pairs, train_pairs: preferences.Pairs | None
) -> dict[str, dict[str, float]]:
  """Accuracy of chance, of always-longer and of a bag of words, per source.

  Args:
    pairs: the held-out pairs.
    train_pairs: pairs that train the bag of words, or None to leave it out.

  Returns:
    {"all" or source: {baseline: accuracy}}.
  """
  bag = None
  if train_pairs is not None:
    bag = baselines.BagOfWords.fit(train_pairs.records)
  scores = {}
  held_out = list(pairs.records)  # which may be a stream
  for name, rows in _subsets(pairs).items():
    records = [held_out[i] for i in rows]
    scores[name] = {
      "chance": 0.5,
      "always_longer": baselines.always_longer_accuracy(records),
    }
    if bag is not None:
      scores[name]["bag_of_words"] = bag.accuracy(records)
  return scores


def write_evaluation(
  workdir: epath.Path,
  rewards: Mapping[str, np.ndarray],
  pairs: preferences.Pairs,
  train_pairs: preferences.Pairs | None,
  config: pair_scores.EvalConfig,
  seed: int,
  sections: Sequence[html_report.Figure] = (),
  labels: Mapping[str, label_scores.Scores | None] | None = None,
  mixture_weights: Mapping[str, Sequence[float] | None] | None = None,
  personal: Mapping[str, Mapping[str, Any]] | None = None,
  warnings: Sequence[str] = (),
) -> None:
  """Writes eval.json and report.html; safe to repeat.

  Args:
    workdir: where to.
    rewards: float32 [N, 2, K] per model name.
    pairs: the held-out pairs.
    train_pairs: for the bag-of-words baseline, or None.
    config: bins and resamples.
    seed: of resampling.
    sections: further ones of the page.
    labels: scores of label models beside those of rewards, by model name.
    mixture_weights: share of each head per model name; equal ones by default;
      a model with several heads is scored as a mixture, and head by head.
    personal: what `personal_scores.summarise` gives, by model name; of models
      whose reward is that of somebody unknown.
    warnings: what to mind about the data, for the page.
  """
  subsets, sets = _subsets(pairs), pair_scores.label_sets(pairs.records)
  people = pair_scores.clusters_of(pairs.dataset.annotator)
  scored = functools.partial(
    pair_scores.summarise, config=config, seed=seed, people=people
  )
  log.info(
    "bootstrapping intervals of %d held-out pairs over %s, %d resamples",
    len(pairs.dataset),
    "pairs" if people is None else "people",
    config.num_samples,
  )
  mixtures = mixture_scores.of_models(
    rewards, pairs.dataset, mixture_weights, beta=config.beta
  )
  rewards = mixture_scores.by_head(rewards)
  result = {
    "mixtures": mixtures,
    "models": {
      name: pair_scores.summarise_sets(
        scored, values[:, 0, 0] - values[:, 1, 0], subsets, sets
      )
      for name, values in rewards.items()
    },
    "breakdown": group_metrics.of_models(rewards, pairs.dataset),
    "groups": group_intervals.of_models(
      rewards,
      pairs.dataset,
      people,
      num_samples=config.num_samples,
      seed=seed,
    ),
    "baselines": baseline_scores(pairs, train_pairs),
    "intervals_over": "pairs" if people is None else "people",
    "lost": {k: v for k, v in pairs.report.items() if v},
    "warnings": list(warnings),
  }
  found = {k: v for k, v in (labels or {}).items() if v is not None}
  if found:
    result["labels"] = {name: scores.result for name, scores in found.items()}
  if personal:
    result["personal"] = dict(personal)
  more = [part for name, v in found.items() for part in v.sections(name)]
  if multihost.is_main():
    configuration.write_json(workdir / "eval.json", result)
    log.info("drawing the page")
    reward_model.write(
      workdir,
      result,
      rewards,
      config.num_bins,
      [*sections, *more],
      pairs.records,
    )
    summary.say(reward_model.findings(result), report=workdir / "report.html")


def write_trained(
  config: fitting.RewardConfig,
  loaded: fitting.Loaded,
  trained: fitting.Trained,
  workdir: epath.Path,
) -> None:
  """Evaluates what `train_reward` has trained, if any pairs are held out.

  Args:
    config: of `train_reward`.
    loaded: its pairs.
    trained: its model.
    workdir: gets eval.json, where pairs are held out, and report.html.
  """
  held_out = loaded.held_out
  if held_out is None:
    if multihost.is_main():
      reward_model.write_unevaluated(workdir, loaded.pairs.warnings)
    return
  outputs = trained.outputs_of(trained.params, held_out)
  read = config.made().readout
  write_evaluation(
    workdir,
    {"model": np.asarray(read(outputs))},
    held_out,
    # A bag of words would hold all texts in memory.
    None if config.data.streaming else loaded.pairs,
    config.eval,
    config.seed,
    mixture_weights={"model": trained.description.mixture_weights},
    personal={
      "model": personal_scores.summarise(outputs, held_out.dataset, read)
    }
    if read.kind in reward_readout.PERSONAL
    else None,
    warnings=loaded.pairs.warnings,
    sections=trained.sections,
    labels={
      "model": label_scores.score(
        trained.description,
        outputs,
        held_out.records,
        config.eval,
        config.seed,
      )
    },
  )


def run(config: Config, workdir: epath.Path) -> None:
  """Scores every model on `data.eval_files` and writes the page.

  Args:
    config: the resolved config.
    workdir: gets eval.json and report.html.
  """
  data = config.data
  if not config.models or not data.eval_files:
    raise ValueError(
      "models and data.eval_files must name at least one each, got "
      f"{config.models} and {data.eval_files}"
    )
  mesh = meshes.make_mesh(config.mesh)
  rewards, labels, shares, personal, bare = {}, {}, {}, {}, None
  for path in config.models:
    fitted = _fitted(config, path)
    tokenizer = preferences.open_tokenizer(data, path)
    stage = _build(fitted, path, mesh)
    tokenizer.check_embedded(stage.network.vocab_size, path)
    if bare is None or tokenizer.fast.chat_template is None:
      bare = tokenizer  # warns of chats if any model's does
    pairs = preferences.load_pairs(fitted.data, data.eval_files, tokenizer)
    params = scoring.load_params(stage, path)
    outputs = scoring.rewards_of(stage, params, pairs, fitted.data, tokenizer)
    read = scoring.load_readout(path)
    read.num_rewards(outputs.shape[-1])
    rewards[path] = np.asarray(read(outputs))
    if read.kind == "labels":
      labels[path] = label_scores.score(
        artifact.load_description(path),
        outputs,
        pairs.records,
        config.eval,
        config.seed,
      )
    if read.kind in reward_readout.PERSONAL:
      personal[path] = personal_scores.summarise(outputs, pairs.dataset, read)
    shares[path] = scoring.load_mixture_weights(path)
  if config.average:
    rewards["average"], shares["average"] = _average(rewards), None
  train_pairs = None
  if data.train_files:
    train_pairs = preferences.load_pairs(data, data.train_files, tokenizer)
  write_evaluation(
    workdir,
    rewards,
    pairs,
    train_pairs,
    config.eval,
    config.seed,
    labels=labels,
    mixture_weights=shares,
    personal=personal,
    warnings=(
      ()
      if data.streaming
      else data_warnings.of_records(
        bare, () if train_pairs is None else train_pairs.records, pairs.records
      )
    ),
  )
  summary.say(
    then=summary.command(
      "serve", "serve", f"--config.source.models={config.models}"
    )
  )


def _average(rewards: Mapping[str, np.ndarray]) -> np.ndarray:
  """The mean reward of several models; the baseline that needs no λ."""
  shapes = {values.shape for values in rewards.values()}
  if len(shapes) > 1:
    raise ValueError(
      f"average needs models with as many rewards, got {sorted(shapes)}"
    )
  return np.mean([*rewards.values()], axis=0)


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
