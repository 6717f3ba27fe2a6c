r"""Runs with and without a KL controller: a table and a picture over seeds.

    python docs/tabulate_kl.py runs/kl_target_* --fixed runs/kl_fixed_* \
        --target=1.5

Each folder is the workdir of a `train_policy`, the first ones with a controller
and those after `--fixed` without. Prints a row of Markdown per kind: mean
and sample standard deviation over folders of what an iteration has in the last
third of a run. With `--png=FILE`, KL and coefficient over iterations, a line
per folder.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

# Colours that stay apart for colour-blind readers.
COLOURS = {"controller": "#0072B2", "fixed": "#D55E00"}
PANELS = {
  "train/kl": "KL from the start (nats per response)",
  "train/kl_coef": "coefficient of the KL",
}
KEYS = ("train/kl", "train/kl_coef", "train/worst_utility")
Run = list[dict[str, float]]


def rows_of(folder: pathlib.Path) -> Run:
  """The training iterations of a run; ValueError where there are none."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  rows = [row for row in map(json.loads, lines) if KEYS[0] in row]
  if not rows:
    raise ValueError(f"{folder} has no iteration of a policy")
  return rows


def late(run: Run, key: str) -> float:
  """Mean of a metric over the last third of a run."""
  return statistics.fmean(row[key] for row in run[-(len(run) // 3) :])


def table(kinds: dict[str, Sequence[Run]]) -> list[str]:
  """Lines of Markdown, one per kind of run."""
  head = ["", "seeds", "KL, nats", "per seed", "coefficient", "worst-off group"]
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name, runs in kinds.items():
    kl, coefficient, worst = ([late(run, key) for run in runs] for key in KEYS)
    cells = [
      name,
      str(len(runs)),
      _spread(kl),
      ", ".join(f"{value:.2f}" for value in kl),
      _spread(coefficient),
      _spread(worst),
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return lines


def _spread(values: Sequence[float]) -> str:
  """Mean ± sample standard deviation."""
  mean = f"{statistics.fmean(values):.2f}"
  if len(values) == 1:
    return mean
  return f"{mean} ± {statistics.stdev(values):.2f}"


def draw(
  kinds: dict[str, Sequence[Run]], target: float, path: pathlib.Path
) -> None:
  """KL and coefficient over iterations, a line per run."""
  figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.4), layout="constrained")
  for place, (key, label) in zip(axes, PANELS.items(), strict=True):
    for name, runs in kinds.items():
      for number, run in enumerate(runs):
        place.plot(
          [row["step"] for row in run],
          [row[key] for row in run],
          color=COLOURS[name],
          linewidth=1.2,
          alpha=0.8,
          label=None if number else name,
        )
    place.set(xlabel="iteration", ylabel=label, ylim=(0, None))
    for side in ("top", "right"):
      place.spines[side].set_visible(False)
  axes[0].axhline(
    target, color="0.4", linestyle=":", linewidth=1.4, label="target"
  )
  axes[0].legend(frameon=False)
  figure.savefig(path, dpi=150)
  plt.close(figure)


def main() -> None:
  """Prints the table of the folders named, and draws them."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--target", type=float, required=True)
  parser.add_argument("--png", type=pathlib.Path)
  parser.add_argument("controlled", nargs="+", type=pathlib.Path)
  parser.add_argument("--fixed", nargs="+", type=pathlib.Path, default=[])
  named = parser.parse_args()
  folders = {"controller": named.controlled, "fixed": named.fixed}
  kinds = {
    name: [rows_of(folder) for folder in found]
    for name, found in folders.items()
    if found
  }
  sys.stdout.write("\n".join(table(kinds)) + "\n")
  if named.png is not None:
    draw(kinds, named.target, named.png)


if __name__ == "__main__":
  main()
