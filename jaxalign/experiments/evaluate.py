r"""Reward models and held-out preferences in, tables and one page out.

python -m jaxalign.experiments.evaluate --config=configs/evaluate.py \
      --config.models="('runs/rm_bt_crowd/model',)" --workdir=runs/eval
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.data import baselines
from jaxalign.experiments import (
  configuration,
  label_sets,
  pages,
  preferences,
  program,
  scoring,
)
from jaxalign.runtime import hosts
from jaxalign.runtime import mesh as meshes

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How held-out pairs are scored.

  Attributes:
    batch_size: pairs per forward over all devices.
    num_bins: equal-width bins of the calibration error.
    num_samples: resamples of the bootstrap and of the noise floor.
  """

  batch_size: int
  num_bins: int
  num_samples: int

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `evaluate` reads.

  Attributes:
    seed: of resampling.
    data: `eval_files` are scored; `train_files`, if any, train the bag-of-words
      baseline; the tokenizer is each model's own.
    models: `model/` folders.
    dtype: compute type, "float32" or "bfloat16".
    eval: batch, bins and resamples.
    mesh: devices.
  """

  seed: int
  data: preferences.DataConfig
  models: tuple[str, ...]
  dtype: str
  eval: EvalConfig
  mesh: meshes.MeshConfig


def build(config: Config, mesh: jax.sharding.Mesh) -> scoring.Stage:
  """The compiled half of the stage for the first of `config.models`."""
  return _build(config, config.models[0], mesh)


def _build(config: Config, path: str, mesh: jax.sharding.Mesh) -> scoring.Stage:
  return scoring.build(
    scoring.load_network(path, config.dtype),
    mesh,
    config.mesh.rules,
    config.eval.batch_size,
    max(config.data.buckets),
    scoring.load_readout(path),
  )


SCORES = ("accuracy", "nll", "brier", "ece")


@functools.partial(jax.jit, static_argnames=("num_bins", "num_samples"))
def _score_gaps(
  gaps: jax.Array,
  members: jax.Array,
  key: jax.Array,
  num_bins: int,
  num_samples: int,
) -> tuple[jax.Array, metrics.Interval, metrics.NoiseFloor]:
  """SCORES of S subsets of [N] gaps, their intervals, the ECE noise floors.

  All subsets ride on one resampling of the pairs, so one program serves them.
  """

  def scores(gaps: jax.Array, where: jax.Array) -> jax.Array:
    sums = (
      metrics.preference_accuracy(gaps, jnp.zeros_like(gaps), where=where),
      metrics.negative_log_likelihood(gaps, where=where),
      metrics.brier_score(gaps, where=where),
    )
    ece = metrics.expected_calibration_error(
      gaps, num_bins=num_bins, where=where
    )
    means = [total / jnp.maximum(count, 1) for total, count in sums]
    return jnp.stack([*means, ece])

  # Rows of `members` are drawn with their pairs, so they lead.
  of_all = jax.vmap(scores, (None, 1))
  boot_key, floor_key = jax.random.split(key)
  interval = metrics.bootstrap_interval(
    of_all, gaps, members.T, key=boot_key, num_samples=num_samples
  )
  floor = jax.lax.map(
    lambda one: metrics.calibration_noise_floor(
      gaps, key=one[1], num_bins=num_bins, num_samples=num_samples, where=one[0]
    ),
    (members, jax.random.split(floor_key, len(members))),
  )
  return of_all(gaps, members.T), interval, floor


def summarise(
  gaps: np.ndarray,
  subsets: Mapping[str, np.ndarray],
  config: EvalConfig,
  seed: int,
) -> dict[str, Any]:
  """All scores of subsets of the pairs, with 95 % intervals.

  Args:
    gaps: chosen minus rejected rewards, float32 [N].
    subsets: row numbers by name.
    config: bins and resamples.
    seed: of resampling.

  Returns:
    Per subset `num_pairs` and per score `value`, `low`, `high`; `ece` also has
    the `noise_floor` a perfectly calibrated model would show at this n: `mean`,
    and the 5 % and 95 % quantiles `low` and `high`.
  """
  members = np.zeros((len(subsets), len(gaps)), bool)
  for row, indices in zip(members, subsets.values(), strict=True):
    row[indices] = True
  values, interval, floor = jax.device_get(
    _score_gaps(
      gaps,
      members,
      jax.random.key(seed),
      num_bins=config.num_bins,
      num_samples=config.num_samples,
    )
  )
  summary: dict[str, Any] = {}
  for k, (subset, indices) in enumerate(subsets.items()):
    summary[subset] = {"num_pairs": len(indices)}
    for i, name in enumerate(SCORES):
      summary[subset][name] = {
        "value": float(values[k, i]),
        "low": float(interval.low[k, i]),
        "high": float(interval.high[k, i]),
      }
    summary[subset]["ece"]["noise_floor"] = {
      name: float(value[k]) for name, value in floor._asdict().items()
    }
  return summary


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
  config: EvalConfig,
  seed: int,
) -> None:
  """Writes eval.json and report.html; safe to repeat.

  Args:
    workdir: where to.
    rewards: float32 [N, 2, K] per model name.
    pairs: the held-out pairs.
    train_pairs: for the bag-of-words baseline, or None.
    config: bins and resamples.
    seed: of resampling.
  """
  subsets, sets = _subsets(pairs), label_sets.label_sets(pairs.records)
  scored = functools.partial(summarise, config=config, seed=seed)
  result = {
    "models": {
      name: label_sets.summarise(
        scored, values[:, 0, 0] - values[:, 1, 0], subsets, sets
      )
      for name, values in rewards.items()
    },
    "baselines": baseline_scores(pairs, train_pairs),
    "lost": {k: v for k, v in pairs.report.items() if v},
  }
  if hosts.is_main():
    configuration.write_json(workdir / "eval.json", result)
    pages.write(workdir, result, rewards, config.num_bins)
    for name, scores in result["models"].items():
      log.info("%s: %s", name, pages.in_words(scores["all"]))
    log.info("report: %s", workdir / "report.html")


def run(config: Config, workdir: epath.Path) -> None:
  """Scores every model on `data.eval_files` and writes the page.

  Args:
    config: the resolved config.
    workdir: gets eval.json and report.html.
  """
  if not config.models or not config.data.eval_files:
    raise ValueError(
      "models and data.eval_files must name at least one each, got "
      f"{config.models} and {config.data.eval_files}"
    )
  mesh = meshes.make_mesh(config.mesh)
  rewards = {}
  for path in config.models:
    tokenizer = preferences.open_tokenizer(config.data, path)
    pairs = preferences.load_pairs(
      config.data, config.data.eval_files, tokenizer
    )
    stage = _build(config, path, mesh)
    params = scoring.load_params(stage, path)
    rewards[path] = scoring.rewards_of(
      stage, params, pairs, config.data, tokenizer
    )
  train_pairs = None
  if config.data.train_files:
    train_pairs = preferences.load_pairs(
      config.data, config.data.train_files, tokenizer
    )
  write_evaluation(
    workdir, rewards, pairs, train_pairs, config.eval, config.seed
  )


def main() -> None:
  """Runs the stage from the command line."""
  program.define_flags()
  program.main(Config, run)


if __name__ == "__main__":
  main()
