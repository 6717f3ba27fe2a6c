"""Pessimistic rewards over draws of votes: best of n, intervals and policies.

    python docs/tabulate_pessimism.py runs/pessimism

Reads the workdir of a pipeline of `configs/pessimism_crowd.py`. Prints tables
of Markdown, mean and sample standard deviation over draws of the votes: what
the best of n answers is truly worth where the mean of all models less k
deviations picks it; how often the truth lies within two deviations of the mean;
and what policies towards such rewards are truly worth. Differences are from the
mean of all models, paired by draw, with Student's 95 % interval.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from paired_tables import against, spread, table

from jaxalign import metrics
from jaxalign.runtime.reward_sources import ensemble

SIZES = (1, 4, 16, 32)
PESSIMISM = (0.0, 0.5, 1.0, 3.0)
CONTROL = "k = 0"
BUDGET = 2.0  # nats, at which policies are compared on their way
POLICIES = ("single", "mean", "k1")
JUDGE, PROXY = "eval/judge/warm", "eval/utility/proxy"


def samples(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Rewards of every answer by each model [M, P, N], and the truth [P, N]."""
  lines = (folder / "samples.jsonl").read_text().splitlines()[1:]
  rows = [json.loads(line) for line in lines]
  proxy = np.array([row[2] for row in rows])
  return np.moveaxis(proxy, -1, 0), np.array([row[3] for row in rows])[..., 0]


def picked(rewards: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
  """True reward of the best of each of `SIZES`, by who picks it.

  Args:
    rewards: of M models, [M, P, N].
    truth: [P, N].
  """
  sizes = [n for n in SIZES if n <= truth.shape[1]]
  by = {"single": rewards[0]}
  by |= {f"k = {k:g}": ensemble.lower_bound(rewards, k) for k in PESSIMISM}
  by["truth"] = truth
  found = {}
  for name, proxy in by.items():
    values = metrics.best_of_n_values(
      proxy.astype(np.float32), truth.astype(np.float32), sizes=sizes
    )
    found[name] = np.asarray(values).mean(axis=0).tolist()
  return found


def intervals(rewards: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
  """How the ensemble's interval fares, over all answers and the mean's picks.

  Returns:
    Over all answers and over the mean's choice among all of a prompt: the share
    of truths within two deviations of the mean, the mean error of the mean, and
    the mean deviation; and the correlation of deviation and distance.
  """
  mean, std = rewards.mean(axis=0), rewards.std(axis=0, ddof=1)
  best = np.arange(len(mean)), mean.argmax(axis=1)
  error = mean - truth
  within = np.abs(error) <= 2 * std
  correlation = np.corrcoef(std.ravel(), np.abs(error).ravel())[0, 1]
  return {
    "truth within 2 deviations": [within.mean(), within[best].mean()],
    "mean less truth": [error.mean(), error[best].mean()],
    "deviation": [std.mean(), std[best].mean()],
    "correlation of deviation and distance": [correlation],
  }


def policy(folder: pathlib.Path) -> dict[str, float]:
  """What a policy is truly worth at its start, on its way and at its end."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  rows = [row for row in map(json.loads, lines) if JUDGE in row]
  kl = np.maximum.accumulate([row["eval/kl"] for row in rows])
  truth = [row[JUDGE] for row in rows]
  return {
    "start": truth[0],
    f"at {BUDGET:g} nats": float(np.interp(BUDGET, kl, truth)),
    "best": max(truth),
    "end": truth[-1],
    "proxy at the end": rows[-1][PROXY],
    "KL at the end": rows[-1]["eval/kl"],
  }


def of_best(runs: Sequence[Mapping[str, list[float]]]) -> list[str]:
  """The table of `picked` over draws."""
  number = len(next(iter(runs[0].values())))
  last = [run[CONTROL][-1] for run in runs]
  rows = [
    [
      name,
      *(spread([run[name][i] for run in runs]) for i in range(number)),
      against([run[name][-1] for run in runs], last),
    ]
    for name in runs[0]
  ]
  head = ["picked by", *(f"n = {n}" for n in SIZES[:number])]
  return table([*head, "less k = 0, most answers"], rows)


def of_intervals(runs: Sequence[Mapping[str, list[float]]]) -> list[str]:
  """The table of `intervals` over draws."""
  rows = []
  for name, values in runs[0].items():
    cells = [spread([run[name][i] for run in runs]) for i in range(len(values))]
    rows.append([name, *cells, *["–"] * (2 - len(cells))])
  return table(["", "all answers", "the mean's picks"], rows)


def of_policies(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
  """The table of `policy` over draws."""
  keys = [*runs[0]["single"]]
  compared = (keys[1], "end")
  rows = [
    [
      name,
      *(spread([run[name][key] for run in runs]) for key in keys),
      *(
        against(
          [run[name][key] for run in runs], [run["mean"][key] for run in runs]
        )
        for key in compared
      ),
    ]
    for name in POLICIES
  ]
  return table(
    ["towards", *keys, *(f"less single, {k}" for k in compared)], rows
  )


def of_votes(
  drawn: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[tuple[np.ndarray, np.ndarray]]:
  """The models in ensembles of which each has votes of its own.

  Args:
    drawn: rewards [M, P, N] and the truth [P, N] of each draw of the votes, of
      the same answers.

  Returns:
    The m-th models of all draws, for each m.
  """
  truth = drawn[0][1]
  if any((one[1] != truth).any() for one in drawn):
    raise ValueError("draws must have the same answers")
  return [
    (np.stack(models), truth)
    for models in zip(*(one[0] for one in drawn), strict=True)
  ]


def report(workdir: pathlib.Path) -> list[str]:
  """All tables of a workdir."""
  drawn: list[Any] = [samples(one) for one in sorted(workdir.glob("best_*"))]
  number = len([*workdir.glob(f"{POLICIES[-1]}_*/eval.json")])
  policies = [
    {name: policy(workdir / f"{name}_{draw}") for name in POLICIES}
    for draw in range(number)
  ]
  ensembles = {"Models of the same votes:": drawn}
  if len(drawn) > 1:
    ensembles["Models of other votes each:"] = of_votes(drawn)
  lines = []
  for title, runs in ensembles.items():
    lines += [title, "", *of_best([picked(*one) for one in runs])]
    lines += of_intervals([intervals(*one) for one in runs])
  return [*lines, *(of_policies(policies) if policies else [])]


def main() -> None:
  """Prints the tables of the workdir named."""
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir", type=pathlib.Path)
  sys.stdout.write("\n".join(report(parser.parse_args().workdir)))


if __name__ == "__main__":
  main()
