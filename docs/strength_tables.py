"""Tables of a study of wrong labels: what is found, and what it helps."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import voted_pairs

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

LEVELS = ("0 %", "10 %", "20 %", "30 %", "a vote")
METHODS = (
  "plain", "flip 10 %", "flip 20 %", "flip 10 %, unseen", "flip 10 %, drawn",
  "smooth", "margin", "flip 10 % + margin", "smooth + margin",
  "wrong labels known",
)  # fmt: skip
COLOURS = ("#4a4f57", "#0072B2", "#009E73", "#D55E00", "#CC79A7")


class Scores:
  """Accuracy and loss of held-out pairs, with draws over units.

  Attributes:
    accuracy: of methods, then baselines, by level, [L, M + B, 1 + draws].
    nats: mean loss of the methods, [L, M, 1 + draws].
    tenths: accuracy of heads of a tenth, [L, 10, 1 + draws].
    pairs: held-out ones, all seeds together.
  """

  def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
    """Scores the seeds of one source."""
    draws = voted_pairs.Draws(list(runs))
    self.accuracy = self.nats = self.tenths = np.zeros(())
    total, self.pairs = np.zeros(voted_pairs.DRAWS + 1), 0
    for run in runs:
      weigh = draws.weights(run["units"])
      total = total + weigh.sum(axis=1)
      self.pairs += len(run["units"])
      told = np.concatenate([run["gaps"], run["baselines"]], axis=1)
      self.accuracy = self.accuracy + _right(told) @ weigh.T
      self.tenths = self.tenths + _right(run["tenths"]) @ weigh.T
      self.nats = self.nats + np.logaddexp(0, -run["gaps"]) @ weigh.T
    self.accuracy, self.nats, self.tenths = (
      sums / total for sums in (self.accuracy, self.nats, self.tenths)
    )


def _right(gaps: np.ndarray) -> np.ndarray:
  """1 where the first text scores higher, one half where both are alike."""
  right: np.ndarray = (np.sign(gaps) + 1) / 2
  return right


def finding(runs: Sequence[dict[str, Any]]) -> list[str]:
  """How well low strength finds wrong labels, ± over seeds, in Markdown."""
  head = [
    "noise", "labels wrong", "AUC, pairs seen", "AUC, unseen",
    "strength below 0", "wrong in the weakest tenth", "in the strongest",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for level, name in enumerate(LEVELS[: len(runs[0]["noise"])]):
    columns = [
      [run["noise"][level] for run in runs],
      *([run["auc"][level, k] for run in runs] for k in (0, 1)),
      [run["negative"][level] for run in runs],
      *([run["wrong"][level, k] for run in runs] for k in (0, 9)),
    ]
    cells = [
      "–" if np.isnan(one).any() else f"{np.mean(one):.3f} ± {_spread(one):.3f}"
      for one in columns
    ]
    rows.append(f"| {name} | {' | '.join(cells)} |")
  return rows


def _spread(values: Sequence[float]) -> float:
  return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def methods(found: Scores) -> list[str]:
  """Accuracy and loss of each method at each noise, in Markdown."""
  levels = LEVELS[: len(found.accuracy)]
  head = ["accuracy, − plain [95 %]", *levels]
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  rows.append("| chance |" + " 0.500 |" * len(levels))
  names = (*voted_pairs.BASELINES, *METHODS)
  for name in names:
    m = (*METHODS, *voted_pairs.BASELINES).index(name)
    cells = [f"{one[m, 0]:.3f}" for one in found.accuracy]
    if m:
      cells = [
        f"{value}, {voted_pairs.apart(one[m], one[0])}"
        for value, one in zip(cells, found.accuracy, strict=True)
      ]
    rows.append(f"| {name} | {' | '.join(cells)} |")
  head = ["NLL, nats", *levels]
  rows += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for m, name in enumerate(METHODS):
    cells = [f"{one[m, 0]:.3f}" for one in found.nats]
    rows.append(f"| {name} | {' | '.join(cells)} |")
  return rows


def tenths(found: Scores) -> list[str]:
  """Accuracy after training on one tenth alone, in Markdown."""
  head = ["tenth", *(str(n + 1) for n in range(10)), "1, 95 %",
          "10 − best of the others [95 %]"]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for level, one in zip(LEVELS, found.tenths, strict=False):
    best = int(np.argmax(one[:9, 0]))
    low, high = np.quantile(one[0, 1:], (0.025, 0.975))
    cells = [f"{value:.3f}" for value in one[:, 0]]
    cells += [f"[{low:.3f}, {high:.3f}]", voted_pairs.apart(one[9], one[best])]
    rows.append(f"| {level} | {' | '.join(cells)} |")
  return rows


def over_sources(
  runs: Mapping[str, Sequence[dict[str, Any]]], found: Mapping[str, Scores]
) -> list[str]:
  """What strengths find in each source, and what that helps, in Markdown.

  Args:
    runs: seeds by source.
    found: their scores.
  """
  head = [
    "", "noise", "labels wrong", "AUC, pairs seen", "AUC, unseen",
    "strength below 0", "wrong in the weakest tenth",
    "accuracy of a head of it [95 %]",
    "of the strongest, − best of the others [95 %]",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name, seeds in runs.items():
    of_level = zip(finding(seeds)[2:], tenths(found[name])[2:], strict=True)
    for first, second in of_level:
      cells = [name, *first.strip("| ").split(" | ")[:-1]]
      tenth = second.strip("| ").split(" | ")
      cells += [f"{tenth[1]} {tenth[-2]}", tenth[-1]]
      rows.append(f"| {' | '.join(cells)} |")
  told = METHODS[1:]
  head = ["− plain [95 %]", "noise", *voted_pairs.BASELINES[:3:2], "plain"]
  head += [*told, "least of flip 10 %"]
  rows += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  names = (*METHODS, *voted_pairs.BASELINES)
  for name, scores in found.items():
    for level, one in zip(LEVELS, scores.accuracy, strict=False):
      cells = [name, level]
      cells += [f"{one[names.index(other), 0]:.3f}" for other in head[2:5]]
      gaps = [
        voted_pairs.apart(one[m + 1], one[0]).split(", least ")
        for m in range(len(told))
      ]
      cells += [gap[0] for gap in gaps] + [gaps[0][1]]
      rows.append(f"| {' | '.join(cells)} |")
  return rows


def draw(found: dict[str, Scores], path: pathlib.Path) -> None:
  """Accuracy by tenth of strength, a panel per source."""
  figure, axes = plt.subplots(
    1, len(found), figsize=(3.3 * len(found), 3.2), layout="constrained",
    squeeze=False, sharey=True,
  )  # fmt: skip
  for panel, (name, scores) in zip(axes[0], found.items(), strict=True):
    for level, colour, one in zip(LEVELS, COLOURS, scores.tenths, strict=False):
      panel.plot(
        np.arange(1, 11), one[:, 0], "o-", markersize=3, color=colour,
        label=level,
      )  # fmt: skip
      if level in ("0 %", "30 %"):
        low, high = np.quantile(one[:, 1:], (0.025, 0.975), axis=1)
        panel.fill_between(
          np.arange(1, 11), low, high, color=colour, alpha=0.15, lw=0
        )
    panel.axhline(0.5, color="#4a4f57", lw=0.8, ls=":")
    panel.set(title=name, xlabel="tenth of the pairs, weakest first")
    panel.set_xticks(range(1, 11))
    panel.spines[["top", "right"]].set_visible(False)
  axes[0, 0].set_ylabel("accuracy on held-out pairs")
  every = [panel.get_legend_handles_labels() for panel in axes[0]]
  axes[0, 0].legend(
    *max(every, key=lambda one: len(one[1])), frameon=False, fontsize=8,
    title="labels turned round",
  )  # fmt: skip
  figure.savefig(path, dpi=130)
  plt.close(figure)
