"""Tables of a study of shifts: accuracy with and without one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import voted_pairs

VIEWED = (
  "two views", "SimCSE, pairs", "SimCSE, differences", "SwAV, pairs",
)  # fmt: skip
# Steps ahead, in rates of the optimiser.
LOOKING = {"MetaRM, none": 0.0, "MetaRM": 1.0, "MetaRM, ten times": 10.0}
METHODS = ("plain", *VIEWED, *LOOKING)
# What each method is compared with.
AGAINST = {
  **dict.fromkeys(VIEWED[1:], "two views"),
  "two views": "plain",
  **dict.fromkeys(LOOKING, "MetaRM, none"),
  "MetaRM, none": "plain",
}


class Scores:
  """Accuracy and spread of rewards, with draws over units.

  Attributes:
    accuracy: without a shift and with one, of methods, then baselines,
      [2, M + B, 1 + draws].
    spread: MetaRM's measure of rewards, [2, M, 1 + draws].
    pairs: judged, all seeds together, [2].
  """

  def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
    """Scores the seeds of one source."""
    draws = voted_pairs.Draws(list(runs))
    accuracy, spread, self.pairs = [], [], []
    for shifted in (False, True):
      right, apart, total = 0.0, 0.0, 0.0
      pairs = 0
      for run in runs:
        there = run["shifted"] == shifted
        weigh = draws.weights(run["units"][there])
        gaps = np.concatenate([run["gaps"], run["baselines"]])[:, there]
        right = right + ((np.sign(gaps) + 1) / 2) @ weigh.T
        apart = apart + run["spread"][:, there] @ weigh.T
        total = total + weigh.sum(axis=1)
        pairs += int(there.sum())
      accuracy.append(right / total)
      spread.append(apart / total)
      self.pairs.append(pairs)
    self.accuracy, self.spread = np.array(accuracy), np.array(spread)


def _gap(scores: np.ndarray, name: str) -> np.ndarray:
  """A method's less that of its counterpart, in the data and each draw."""
  found: np.ndarray = (
    scores[METHODS.index(name)] - scores[METHODS.index(AGAINST[name])]
  )
  return found


def lines(found: Scores) -> list[str]:
  """A row per method, in Markdown."""
  head = [
    "", f"no shift ({found.pairs[0]} pairs)", "against [95 %]",
    f"shift ({found.pairs[1]} pairs)", "against [95 %]",
    "spread under the shift", "against [95 %]",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  rows.append("| chance | 0.500 | | 0.500 | | | |")
  for name in (*voted_pairs.BASELINES, *METHODS):
    m = (*METHODS, *voted_pairs.BASELINES).index(name)
    cells = [name]
    for one in found.accuracy:
      cells.append(f"{one[m, 0]:.3f}")
      cells.append(
        voted_pairs.apart(_gap(one, name), np.zeros(one.shape[1]))
        if name in AGAINST
        else "–"
      )
    if name in METHODS:
      one = found.spread[1]
      cells.append(f"{one[m, 0]:.3f}")
      cells.append(
        voted_pairs.apart(_gap(one, name), np.zeros(one.shape[1]))
        if name in AGAINST
        else "–"
      )
    else:
      cells += ["–", "–"]
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def over_sources(found: Mapping[str, Scores]) -> list[str]:
  """Accuracy with and without a shift, a pair of columns per source."""
  head = ["accuracy; against its counterpart [95 %]"]
  for name, one in found.items():
    head += [f"{name}, no shift, {one.pairs[0]} pairs"]
    head += [f"shift, {one.pairs[1]} pairs", "spread under the shift"]
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name in (*voted_pairs.BASELINES, *METHODS):
    m = (*METHODS, *voted_pairs.BASELINES).index(name)
    cells = [name]
    for one in found.values():
      for scores in (*one.accuracy, one.spread[1]):
        if m >= len(scores):
          cells.append("–")
          continue
        cells.append(f"{scores[m, 0]:.3f}")
        if name in AGAINST:
          gap = voted_pairs.apart(_gap(scores, name), np.zeros(len(scores[m])))
          cells[-1] += f"; {gap.partition(', least')[0]}"
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def means(found: Mapping[str, Scores]) -> list[str]:
  """Each method against its counterpart, a mean of the sources, in Markdown."""
  head = ["mean of the sources", "no shift", "shift"]
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  if not found:
    return rows
  for name, other in AGAINST.items():
    cells = [f"{name} − {other}"]
    for which in (0, 1):
      gap = np.mean(
        [_gap(one.accuracy[which], name) for one in found.values()], axis=0
      )
      cells.append(voted_pairs.apart(gap, np.zeros(len(gap))))
    rows.append(f"| {' | '.join(cells)} |")
  return rows
