"""Whom a model serves: its scores by source, group and annotator.

What a mean over all pairs hides: the group it fails, the annotators it fails,
confident errors, and what several models agree on.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxalign import metrics
from jaxalign.data.batching.pair_dataset import PairDataset

BINS = (5, 10, 20)
MIN_PAIRS = 5  # of an annotator; fewer say nothing of a person
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def parts_of(dataset: PairDataset) -> dict[str, dict[str, np.ndarray]]:
  """Rows of each source, group and annotator, where there are several.

  Args:
    dataset: the pairs.

  Returns:
    {"source", "group", "annotator": {name: row numbers}}. Groups that are the
    sources by another name are left out, as are annotators with fewer than
    MIN_PAIRS pairs.
  """
  columns = {
    "source": (dataset.source, dataset.source_names),
    "group": (dataset.group, dataset.group_names),
    "annotator": (dataset.annotator, dataset.annotator_names),
  }
  parts = {}
  for kind, (column, names) in columns.items():
    rows = {name: np.flatnonzero(column == k) for k, name in enumerate(names)}
    least = MIN_PAIRS if kind == "annotator" else 1
    parts[kind] = {k: v for k, v in rows.items() if len(v) >= least}
  if _same(parts["source"], parts["group"]):
    parts["group"] = {}
  return {kind: rows for kind, rows in parts.items() if len(rows) > 1}


def _same(one: Mapping[str, np.ndarray], other: Mapping[str, Any]) -> bool:
  """Whether two partitions of the rows are the same sets of rows."""
  sets = lambda parts: {tuple(rows) for rows in parts.values()}
  return sets(one) == sets(other)


def of_models(
  rewards: Mapping[str, np.ndarray], dataset: PairDataset
) -> dict[str, Any]:
  """Everything below for each model, and how far models agree.

  Args:
    rewards: float32 [N, 2, K] per model name; the first reward is scored.
    dataset: the pairs.

  Returns:
    {"models": {name: see `of_model`}, "agreement": see `agreement`, or None
    for a single model}.
  """
  parts = parts_of(dataset)
  first = {name: values[..., 0] for name, values in rewards.items()}
  return {
    "models": {name: of_model(values, parts) for name, values in first.items()},
    "agreement": agreement(first) if len(first) > 1 else None,
  }


def of_model(
  rewards: np.ndarray, parts: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Any]:
  """One model's scores of parts of the pairs.

  Args:
    rewards: [N, 2], chosen first.
    parts: from `parts_of`.

  Returns:
    `accuracy` {kind: {part: accuracy}} of sources and groups; `worst` {kind:
    the part of lowest accuracy, and that}; `annotators` (their number and
    QUANTILES of their accuracies) or None; `calibration` {bins: ECE, MCE and
    ACE}; `gaps`, see `outliers`.
  """
  gaps = rewards[:, 0] - rewards[:, 1]
  accuracy = {
    kind: {name: _accuracy(gaps[at]) for name, at in rows.items()}
    for kind, rows in parts.items()
  }
  people = accuracy.pop("annotator", None)
  worst = {}
  for kind, scores in accuracy.items():
    name = min(scores, key=scores.__getitem__)
    worst[kind] = {"name": name, "accuracy": scores[name]}
  return {
    "accuracy": accuracy,
    "worst": worst,
    "annotators": None if people is None else _spread([*people.values()]),
    "calibration": jax.tree.map(float, jax.device_get(_calibration(gaps))),
    "gaps": {
      "right": outliers(gaps[gaps > 0]),
      "wrong": outliers(-gaps[gaps < 0]),
    },
  }


def _accuracy(gaps: np.ndarray) -> float:
  """`metrics.preference_accuracy`, without a program per number of pairs."""
  return float(np.mean((np.sign(gaps) + 1) / 2))


@jax.jit
def _calibration(gaps: jax.Array) -> dict[str, dict[str, jax.Array]]:
  """ECE, MCE and ACE of gaps [N] for each of BINS: one program for them all."""
  errors = {
    "ece": metrics.expected_calibration_error,
    "mce": metrics.maximum_calibration_error,
    "ace": metrics.adaptive_calibration_error,
  }
  return {
    str(bins): {
      name: error(gaps, num_bins=bins) for name, error in errors.items()
    }
    for bins in BINS
  }


def _spread(values: list[float]) -> dict[str, Any]:
  """How many, their mean and their quantiles."""
  found = np.quantile(values, QUANTILES)
  return {
    "number": len(values),
    "mean": float(np.mean(values)),
    "quantiles": {
      str(q): float(v) for q, v in zip(QUANTILES, found, strict=True)
    },
  }


def outliers(gaps: np.ndarray) -> dict[str, float | int | None]:
  """Size of reward gaps, and of those beyond the upper whisker of a box plot.

  Args:
    gaps: absolute gaps, all right or all wrong ones, [N].

  Returns:
    `count`, `mean`, and `outlier_count`, `outlier_mean` of gaps above the third
    quartile by more than 1.5 times the distance between quartiles; a mean of
    nothing is None.

  References:
    Zeng et al., "On diversified preferences of large language model
    alignment", 2024, tables 4 to 6.
  """
  mean = lambda values: float(np.mean(values)) if len(values) else None
  far = gaps[:0]
  if len(gaps):
    lower, upper = np.quantile(gaps, (0.25, 0.75))
    far = gaps[gaps > upper + 1.5 * (upper - lower)]
  return {
    "count": len(gaps),
    "mean": mean(gaps),
    "outlier_count": len(far),
    "outlier_mean": mean(far),
  }


def agreement(rewards: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """What several models make of the same responses.

  Args:
    rewards: [N, 2] per model name, chosen first.

  Returns:
    `names` of the K models; `diversity` [K][K], the mean absolute difference of
    win probabilities; `same_side` [K][K], the share of pairs that two models
    rank alike; `drift` [K], the standard deviation over responses of each
    model's reward from the mean of all models.
  """
  every = np.stack([*rewards.values()]).astype(np.float32)  # [K, N, 2]
  gaps = every[..., 0] - every[..., 1]
  probs = 1 / (1 + np.exp(-gaps))
  sides = np.sign(gaps)
  flat = every.reshape(len(every), -1)
  drift = metrics.reward_drift(flat, flat.mean(0))
  return {
    "names": [*rewards],
    "diversity": np.asarray(metrics.diversity_matrix(probs)).tolist(),
    "same_side": np.mean(sides[:, None] == sides[None], axis=-1).tolist(),
    "drift": np.asarray(drift).tolist(),
  }
