"""Tables of a study of sources: accuracy and calibration over prompts."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np

from jaxalign import metrics

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

BINS, DRAWS = 10, 1000
METHODS = (
  "uniform", "proportional", "sequential", "min_norm l2", "min_norm loss",
  "min_norm loss+", "min_norm none", "pcgrad", "cagrad", "single", "averaging",
)  # fmt: skip
BASELINES = ("always longer", "bag of words", "bag of words + length")
NAMES = (*METHODS, *BASELINES)
WEIGHED = ("uniform", *METHODS[3:9])  # whose λ is worth showing
FEW = ("uniform", "min_norm l2", "min_norm none")  # of two to four sources


class Scores:
  """Accuracy and calibration of a set of sources, with draws over prompts.

  Attributes:
    accuracy: of each method and source, all seeds together, [M, K].
    errors: calibration errors, means over seeds, [M, K].
    floors: what sampling alone would make of them, [M, K].
    drawn: accuracy and calibration error as means over sources, for each draw
      of prompts, [2, draws, M].
    sizes: mean absolute gap of each method, [M].
  """

  def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
    """Scores the seeds of one set."""
    number = int(runs[0]["source"].max()) + 1
    prompts = int(max(run["prompt"].max() for run in runs)) + 1
    rng = np.random.default_rng(0)
    seen = np.unique(np.concatenate([run["prompt"] for run in runs]))
    times = np.zeros((DRAWS + 1, prompts))
    times[0, seen] = 1  # the data themselves
    for draw in times[1:]:
      np.add.at(draw, rng.choice(seen, len(seen)), 1)
    methods = len(runs[0]["gaps"])
    right = np.zeros((DRAWS + 1, methods, number))
    pairs = np.zeros((DRAWS + 1, 1, number))
    errors, floors = np.zeros_like(right), np.zeros((methods, number))
    for at, run in enumerate(runs):
      for k in range(number):
        mine = run["source"] == k
        gaps, weigh = run["gaps"][:, mine], times[:, run["prompt"][mine]]
        total = weigh.sum(axis=1, keepdims=True)
        right[:, :, k] += weigh @ ((np.sign(gaps) + 1) / 2).T
        pairs[:, 0, k] += total[:, 0]
        for m, gap in enumerate(gaps):
          if np.isnan(gap).any():
            errors[:, m, k] = floors[m, k] = np.nan
            continue
          terms = metrics.calibration_terms(jnp.asarray(gap), num_bins=BINS)
          off = np.abs(weigh @ np.asarray(terms)).sum(axis=1)
          errors[:, m, k] += off / np.maximum(total[:, 0], 1) / len(runs)
          floors[m, k] += _floor(gap, at) / len(runs)
    rates = right / np.maximum(pairs, 1)
    self.accuracy, self.errors, self.floors = rates[0], errors[0], floors
    self.drawn = np.stack([rates.mean(axis=2), errors.mean(axis=2)])[:, 1:]
    self.sizes = np.mean([np.abs(run["gaps"]).mean(axis=1) for run in runs], 0)

  def against(self, which: int, m: int, other: int) -> tuple[float, ...]:
    """A method minus another one: value, ends of 95 %, least that would show.

    Args:
      which: 0 for accuracy, 1 for calibration error.
      m: the method.
      other: what it is compared with.
    """
    all_of = (self.accuracy, self.errors)[which].mean(axis=1)
    apart = self.drawn[which][:, m] - self.drawn[which][:, other]
    low, high = np.quantile(apart, (0.025, 0.975))
    return all_of[m] - all_of[other], low, high, 2.8 * apart.std()


def _floor(gaps: np.ndarray, seed: int) -> float:
  """The mean calibration error of a calibrated model with these gaps."""
  confidence = 1 / (1 + np.exp(-np.abs(gaps)))
  rows = np.minimum((confidence * BINS).astype(int), BINS - 1)
  wins = np.random.default_rng(seed).random((100, len(gaps))) < confidence
  off = (confidence - wins) @ np.eye(BINS)[rows]
  return float(np.abs(off).sum(axis=1).mean() / len(gaps))


def lines(found: Scores) -> list[str]:
  """A row per method, in Markdown."""
  head = [
    "", "accuracy", "against uniform [95 %]", "worst source", "ECE",
    "against uniform [95 %]", "its noise floor", "mean gap",
  ]  # fmt: skip
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for m, name in enumerate(NAMES):
    if np.isnan(found.errors[m]).any():
      continue
    cells = [
      name, f"{found.accuracy[m].mean():.3f}", _apart(found, 0, m),
      f"{found.accuracy[m].min():.3f}",
      *(
        ["–"] * 4 if name == "always longer" else
        [f"{found.errors[m].mean():.3f}", _apart(found, 1, m),
         f"{found.floors[m].mean():.3f}", f"{found.sizes[m]:.2f}"]
      ),
    ]  # fmt: skip
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def _apart(found: Scores, which: int, m: int) -> str:
  value, low, high, least = found.against(which, m, 0)
  return (
    f"{value:+.3f} [{low:+.3f}, {high:+.3f}], least {least:.3f}" if m else "–"
  )


def by_source(found: Scores, names: Sequence[str]) -> list[str]:
  """Accuracy on each source beside the baselines, in Markdown."""
  rows = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
  rows.append("| chance |" + " 0.500 |" * len(names))
  for name in (*BASELINES, "single", "uniform", "min_norm l2", "min_norm none"):
    cells = [f"{one:.3f}" for one in found.accuracy[NAMES.index(name)]]
    rows.append(f"| {name} | {' | '.join(cells)} |")
  return rows


def conflicts(
  runs: Sequence[dict[str, Any]], names: Sequence[str]
) -> list[str]:
  """λ of each source beside its conflict with the others, in Markdown."""
  cosines = np.mean([run["cosines"] for run in runs], axis=0)
  weights = np.mean([run["weights"] for run in runs], axis=0)
  number = len(names)
  mean = (cosines.sum(axis=1) - cosines.diagonal()) / (number - 1)
  shown = [m for m in range(1, len(WEIGHED)) if not np.isnan(weights[m]).any()]
  head = ["", "cosine with the others", *(f"λ, {WEIGHED[m]}" for m in shown)]
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for k, name in enumerate(names):
    cells = [name, f"{mean[k]:+.3f}", *(f"{weights[m, k]:.3f}" for m in shown)]
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def joining(found: dict[str, Scores]) -> list[str]:
  """Helpful and harmless, and all sources, as sources join, in Markdown."""
  l2 = NAMES.index("min_norm l2")
  head = ["sources"]
  for what in ("accuracy", "ECE"):
    head += [f"{what} on the first two, {name}" for name in FEW]
    head.append(f"all, {what}, l2 − uniform [95 %]")
  rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name in ("two", "three", "four", "five"):
    if name not in found:
      continue
    cells = [name]
    for which, scores in enumerate((found[name].accuracy, found[name].errors)):
      cells += [f"{scores[NAMES.index(m), :2].mean():.3f}" for m in FEW]
      cells.append(_apart(found[name], which, l2))
    rows.append(f"| {' | '.join(cells)} |")
  return rows


def draw(found: Scores, path: pathlib.Path) -> None:
  """Accuracy and calibration of each method with intervals."""
  shown = [
    m for m in range(len(METHODS)) if not np.isnan(found.errors[m]).any()
  ]
  figure, axes = plt.subplots(
    1, 2, figsize=(9, 3.8), layout="constrained", sharey=True
  )
  for which, (panel, title) in enumerate(
    zip(axes, ("accuracy, mean over sources", "calibration error (ECE)"),
        strict=True)
  ):  # fmt: skip
    for place, m in enumerate(shown):
      value = (found.accuracy, found.errors)[which][m].mean()
      # Percentiles of a calibration error lie above it: spread alone.
      spread = 1.96 * found.drawn[which][:, m].std()
      panel.errorbar(
        value, -place, xerr=spread, marker="o", markersize=4,
        color="#D55E00" if NAMES[m].startswith("min_norm") else "#4a4f57",
      )  # fmt: skip
      if which:
        panel.plot(
          found.floors[m].mean(), -place, marker="|", markersize=9,
          color="#0072B2",
        )  # fmt: skip
    panel.set_xlabel(title)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", alpha=0.3)
  axes[0].set_yticks([-p for p in range(len(shown))], [NAMES[m] for m in shown])
  axes[1].set_title("blue: a calibrated model at this n", fontsize=9)
  figure.savefig(path, dpi=150)
  plt.close(figure)
