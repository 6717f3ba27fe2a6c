"""Policies with different critics over seeds: a table of what each gains.

    python docs/tabulate_critics.py runs/labels_*

Each folder is the workdir of a pipeline of `configs/policy_labels_crowd.py`,
one crowd each. Prints a row of Markdown per critic, mean and sample standard
deviation over folders, and below it how far it is from its control, paired by
folder, with Student's 95 % interval. What an iteration has is its mean over the
last third of a run.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from paired_tables import against, spread, table

CONTROLS = {"scalar": None, "atoms": "scalar", "labels": "atoms"}
LATE = {  # of iterations
  "explained variance": "train/explained_variance",
  "returns out of range": "train/returns_out_of_range",
}
LAST = {  # of the last evaluation
  "worth by the model": "eval/label_worth",
  "worth by the crowd": "eval/judge_label_worth",
  "KL, nats": "eval/kl",
}


def scores(folder: pathlib.Path) -> dict[str, float]:
  """What a policy's run came to."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  trained = [row for row in rows if "train/kl" in row]
  late = trained[-(len(trained) // 3) :]
  last = [row for row in rows if "eval/kl" in row][-1]
  return {
    **{
      name: statistics.fmean(row.get(key, 0.0) for row in late)
      for name, key in LATE.items()
    },
    **{name: last[key] for name, key in LAST.items()},
  }


def report(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
  """Both tables, of `scores` by critic, one per folder."""
  columns = [*LATE, *LAST]
  of = lambda name, column: [run[name][column] for run in runs]
  rows = [
    [name, *(spread(of(name, column), 3) for column in columns)]
    for name in CONTROLS
  ]
  pairs = [(name, one) for name, one in CONTROLS.items() if one is not None]
  leads = [
    [f"{name} less {one}", *(against(of(name, c), of(one, c), 3)
                             for c in columns)]
    for name, one in pairs
  ]  # fmt: skip
  return [*table(["critic", *columns], rows), *table(["", *columns], leads)]


def main() -> None:
  """Prints the tables of the folders named."""
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir", nargs="+", type=pathlib.Path)
  runs = [
    {name: scores(folder / name) for name in CONTROLS}
    for folder in parser.parse_args().workdir
  ]
  sys.stdout.write("\n".join(report(runs)))


if __name__ == "__main__":
  main()
