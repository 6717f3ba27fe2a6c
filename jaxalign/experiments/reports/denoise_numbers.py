"""What an ensemble says about the labels of pairs, in numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxalign import losses
from jaxalign.experiments.reports import judge_agreement

GROUPS = 20


class Split(NamedTuple):
  """The pairs of one split under the ensemble.

  Attributes:
    strength: mean gap over members, float32 [N].
    std: its spread over members, float32 [N].
    accuracy: share of pairs each member ranks as labelled, [M].
    judge_prob: a second judge's probability of the label, NaN where there is
      none, float64 [N].
    people: of `pair_scores.clusters_of`, int [N]; None for intervals over
      pairs.
  """

  strength: np.ndarray
  std: np.ndarray
  accuracy: np.ndarray
  judge_prob: np.ndarray
  people: np.ndarray | None = None


def split_of(
  rewards: np.ndarray,
  judge_prob: Sequence[float | None],
  people: np.ndarray | None = None,
) -> Split:
  """Strengths of the pairs of a split.

  Args:
    rewards: of chosen and rejected under every member, float32 [N, 2, M].
    judge_prob: of each record.
    people: of `pair_scores.clusters_of`.

  Returns:
    The split.
  """
  gaps = rewards[:, 0] - rewards[:, 1]
  strength = losses.preference_strength(jnp.asarray(gaps.T))
  return Split(
    np.asarray(strength.mean),
    np.asarray(strength.std),
    ((np.sign(gaps) + 1) / 2).mean(axis=0),
    np.array([np.nan if p is None else p for p in judge_prob]),
    people,
  )


def summarise(split: Split, fraction: float) -> dict[str, Any]:
  """The numbers of a split, as JSON values.

  Args:
    split: of `split_of`.
    fraction: share of pairs that is taken for wrong.

  Returns:
    Counts, quantiles, the mean and spread of groups of equally many pairs by
    strength, and under `judge` how well low strength finds the labels that a
    second judge contradicts; None without one.
  """
  strength, std = split.strength.astype(np.float64), split.std
  order = np.argsort(strength, kind="stable")
  parts = [p for p in np.array_split(order, GROUPS) if len(p)]
  quantiles = np.quantile(strength, (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1))
  names = ("min", "10 %", "25 %", "median", "75 %", "90 %", "max")
  return {
    "pairs": len(strength),
    "below_0": float((strength < 0).mean()),
    "mean": float(strength.mean()),
    "mean_std": float(std.mean()),
    "quantiles": dict(zip(names, quantiles.tolist(), strict=True)),
    "groups": [
      {"strength": float(strength[p].mean()), "std": float(std[p].mean())}
      for p in parts
    ],
    "accuracy": {
      "members": split.accuracy.tolist(),
      "ensemble": float(((np.sign(strength) + 1) / 2).mean()),
    },
    "judge": _judged(split, fraction),
  }


def _judged(split: Split, fraction: float) -> dict[str, Any] | None:
  known = ~np.isnan(split.judge_prob) & (split.judge_prob != 0.5)
  strength, wrong = split.strength[known], split.judge_prob[known] < 0.5
  if not known.any():
    return None
  chosen = np.argsort(strength, kind="stable")
  chosen = chosen[: math.floor(fraction * len(strength) + 1e-9)]
  found = int(wrong[chosen].sum())
  return {
    "judged": int(known.sum()),
    "contradicted": float(wrong.mean()),
    "auc": area_under_curve(strength, wrong),
    "fraction": fraction,
    "precision": found / len(chosen) if len(chosen) else None,
    "recall": found / int(wrong.sum()) if wrong.any() else None,
    "groups": judge_agreement.by_strength(
      split.strength, split.judge_prob, split.people
    ),
  }


def area_under_curve(strength: np.ndarray, wrong: np.ndarray) -> float | None:
  """Probability that a wrong label is weaker than a right one, ties half.

  Args:
    strength: [N].
    wrong: bool [N].

  Returns:
    The area under the ROC curve of low strength as a sign of a wrong label;
    None where all labels are right, or all wrong.
  """
  num_wrong = int(wrong.sum())
  num_right = len(wrong) - num_wrong
  if not num_wrong or not num_right:
    return None
  _, place, counts = np.unique(
    strength, return_inverse=True, return_counts=True
  )
  # Mean rank of equal strengths, from 1.
  ranks = np.cumsum(counts) - (counts - 1) / 2
  below = ranks[place][wrong].sum() - num_wrong * (num_wrong + 1) / 2
  return float(1 - below / (num_wrong * num_right))


def suspects(split: Split, number: int) -> Mapping[str, np.ndarray]:
  """Which pairs a person should look at.

  Args:
    split: of `split_of`.
    number: how many of each kind.

  Returns:
    Row numbers: "suspicious" by strength, lowest first; "ambiguous" by spread,
    highest first, among the tenth of pairs nearest to strength 0.
  """
  near = np.argsort(np.abs(split.strength), kind="stable")
  near = near[: max(len(near) // 10, min(number, len(near)))]
  widest = near[np.argsort(-split.std[near], kind="stable")]
  return {
    "suspicious": np.argsort(split.strength, kind="stable")[:number],
    "ambiguous": widest[:number],
  }
