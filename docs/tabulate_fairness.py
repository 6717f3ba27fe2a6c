"""Policies over seeds: a table and a picture of what pipelines found.

    python docs/tabulate_fairness.py runs/pipeline_crowd_* [--png=FILE]

Each folder is the workdir of a `pipeline` with a `fairness` section, one crowd
each. Prints a row of Markdown per policy: mean and sample standard deviation
over folders, at the KL at which each folder compares its policies. Below it,
for every budget of KL, what the worst-off group gains and how much more it
gains from one policy (--policy=NAME) than from each other, paired by crowd. The
picture has a line per crowd, the worst-off group's utility over KL.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from scipy import stats

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

# Colours that stay apart for colour-blind readers.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")


def table(runs: Sequence[dict[str, Any]]) -> list[str]:
  """Lines of Markdown; ValueError for runs of other policies or groups."""
  groups, policies = runs[0]["groups"], [*runs[0]["policies"]]
  for run in runs:
    if run["groups"] != groups or [*run["policies"]] != policies:
      raise ValueError(
        f"runs must have groups {groups} and policies {policies}, got "
        f"{run['groups']} and {[*run['policies']]}"
      )
  head = ["", *groups, "worst-off", "share of the gain", "last KL, nats"]
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  start = [[run["start"][g] for run in runs] for g in groups]
  worst = [min(run["start"].values()) for run in runs]
  lines.append(_row("start", [*start, worst], "–", "0"))
  for name in policies:
    ran = [run["policies"][name] for run in runs]
    at = [[one["at_equal_kl"][g] for one in ran] for g in (*groups, "worst")]
    # None where the best policy gained nothing.
    shares = [one["share"] for one in ran if one["share"] is not None]
    lines.append(
      _row(
        name,
        at,
        _spread(shares) if shares else "undefined",
        _spread([one["end_kl"] for one in ran]),
      )
    )
  return lines


def paired(runs: Sequence[dict[str, Any]], policy: str) -> list[str]:
  """Lines of Markdown: the lead of a policy over each other, by budget.

  Args:
    runs: content of fairness.json, one per crowd.
    policy: whose lead.

  Returns:
    A row per budget and other policy, over the crowds in which all policies
    have spent it; none where no run has budgets. The interval is Student's, for
    the mean difference of a crowd.
  """
  budgets = sorted({each["kl"] for run in runs for each in run["budgets"]})
  if not budgets:
    return []
  head = ["nats", "crowds", "policy", "gain of the worst-off"]
  head += [f"lead of {policy} (95 %)", "crowds in which it leads"]
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  places = [(str(kl), kl, "gain") for kl in budgets]
  places.append((f"mean up to {budgets[-1]}", budgets[-1], "mean_gain"))
  for title, kl, key in places:
    spent = [e["policies"] for r in runs for e in r["budgets"] if e["kl"] == kl]
    ours = np.array([found[policy][key] for found in spent])
    for name in spent[0]:
      gains = np.array([found[name][key] for found in spent])
      cells = [title, str(len(spent)), name, _spread(gains.tolist())]
      leads = ours - gains
      more = ["–", "–"]
      if name != policy:
        more = [_interval(leads), f"{int((leads > 0).sum())}"]
      lines.append(f"| {' | '.join([*cells, *more])} |")
  return lines


def _interval(values: np.ndarray) -> str:
  """Mean with its 95 % interval over crowds."""
  if len(values) < 2:
    return f"{values.mean():.2f}"
  low, high = stats.t.interval(
    0.95, len(values) - 1, values.mean(), stats.sem(values)
  )
  return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def _row(name: str, values: Sequence[Sequence[float]], *rest: str) -> str:
  return f"| {' | '.join([name, *map(_spread, values), *rest])} |"


def _spread(values: Sequence[float]) -> str:
  """Mean ± sample standard deviation."""
  mean = f"{statistics.fmean(values):.2f}"
  if len(values) == 1:
    return mean
  return f"{mean} ± {statistics.stdev(values):.2f}"


def draw(runs: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
  """The worst-off group's utility over KL, a line per policy and run."""
  figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
  for number, name in enumerate(runs[0]["policies"]):
    for seed, run in enumerate(runs):
      curve = run["policies"][name]["curve"]
      axes.plot(
        curve["kl"],
        np.min([curve[g] for g in run["groups"]], axis=0),
        color=COLOURS[number % len(COLOURS)],
        marker="o",
        markersize=2.5,
        linewidth=1.2,
        alpha=0.8,
        label=None if seed else name,
      )
  axes.set_xlabel("KL from the start (nats per response)")
  axes.set_ylabel("utility of the worst-off group")
  axes.legend(frameon=False)
  for side in ("top", "right"):
    axes.spines[side].set_visible(False)
  figure.savefig(path, dpi=150)
  plt.close(figure)


def main() -> None:
  """Prints the table of the folders named, and draws them."""
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir", nargs="+", type=pathlib.Path)
  parser.add_argument("--policy", default="maxmin")
  parser.add_argument("--png", type=pathlib.Path)
  named = parser.parse_args()
  runs = [
    json.loads((folder / "fairness.json").read_text())
    for folder in named.workdir
  ]
  sys.stdout.write("\n".join(table(runs)) + "\n")
  if lines := paired(runs, named.policy):
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
  if named.png is not None:
    draw(runs, named.png)


if __name__ == "__main__":
  main()
