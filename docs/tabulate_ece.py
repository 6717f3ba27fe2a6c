"""Calibration error by the number of sources: a table over seeds.

    python docs/tabulate_ece.py runs/more_sources_*

Each folder is the workdir of a pipeline of `configs/more_sources_crowd.py`, one
crowd each. Prints a row of Markdown per number of sources K: the mean ECE and
accuracy of the two sources that every model has learned from, by MORE and by
equal weights, mean and sample standard deviation over folders; how far the two
differ, paired by folder, with Student's 95 % interval; and the noise floor, the
mean ECE that a calibrated model would show on as many pairs.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from paired_tables import against, spread, table

METHODS = ("more", "even")
SHARED = 2  # sources that are in all models


def scores(folder: pathlib.Path) -> dict[str, float]:
  """ECE, its floor and accuracy of a run, means over the shared sources."""
  config = json.loads((folder / "config.json").read_text())
  names = config["data"]["only_sources"][:SHARED]
  found = json.loads((folder / "eval.json").read_text())
  (by_source,) = found["models"].values()
  mean = lambda of: statistics.fmean(of(by_source[name]) for name in names)
  return {
    "ece": mean(lambda one: one["ece"]["value"]),
    "floor": mean(lambda one: one["ece"]["noise_floor"]["mean"]),
    "accuracy": mean(lambda one: one["accuracy"]["value"]),
  }


def numbers(folder: pathlib.Path) -> list[int]:
  """The numbers of sources that a pipeline has trained with, ascending."""
  return sorted(
    int(path.name.rpartition("_")[2])
    for path in folder.glob(f"{METHODS[0]}_*")
    if path.name.rpartition("_")[2].isdigit()
  )


def report(
  runs: Mapping[int, Sequence[Mapping[str, Mapping[str, float]]]],
) -> list[str]:
  """The table, of `scores` by method, one per folder, by K."""
  rows = []
  for number, found in sorted(runs.items()):
    of = lambda method, key, found=found: [one[method][key] for one in found]
    ece = {method: of(method, "ece") for method in METHODS}
    rows.append(
      [
        str(number),
        *(spread(ece[method], 3) for method in METHODS),
        against(ece["more"], ece["even"], 3),
        f"{statistics.fmean(of('more', 'floor')):.3f}",
        *(spread(of(method, "accuracy"), 3) for method in METHODS),
      ]
    )
  head = ["K", "ECE, MORE", "ECE, equal weights", "MORE less equal", "floor"]
  return table([*head, "accuracy, MORE", "accuracy, equal weights"], rows)


def main() -> None:
  """Prints the table of the folders named."""
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir", nargs="+", type=pathlib.Path)
  folders = parser.parse_args().workdir
  runs = {
    number: [
      {method: scores(folder / f"{method}_{number}") for method in METHODS}
      for folder in folders
    ]
    for number in numbers(folders[0])
  }
  sys.stdout.write("\n".join(report(runs)))


if __name__ == "__main__":
  main()
