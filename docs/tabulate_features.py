r"""Any table of docs/results.md that is made of features of a frozen model.

    python docs/tabulate_features.py people --model=FOLDER \
        --data=$JAXALIGN_DATA --workdir=runs/people --png=people.png

Texts whose features are in `--cache`, `WORKDIR/features` by default, do not
pass the model again. Seeds that are done are kept in the workdir and the same
command goes on; each remembers the commit that it was made at, and a table that
is made of several commits says so. Names after the table take some of its rows.
"""

import argparse
import dataclasses
import logging
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import tabulate_heads
import tabulate_labels
import tabulate_people
import tabulate_raters
import tabulate_shift
import tabulate_sources
import tabulate_statements
import tabulate_strength
import tabulate_together


@dataclasses.dataclass(frozen=True)
class Table:
  """A table: the study that makes it, and the rows it has.

  Attributes:
    study: a module with `load`, which takes the arguments and a row's name, and
      `show`, which takes the runs of each row.
    rows: names of conversations or sets of sources; after a colon what is
      different, such as "control".
  """

  study: ModuleType
  rows: tuple[str, ...]


TABLES = {
  "people": Table(tabulate_people, tabulate_people.CONVERSATIONS),
  "people_control": Table(
    tabulate_people, ("bowling-green:control", "brexit-consensus:control")
  ),
  "people_wide": Table(tabulate_people, ("bowling-green:wide",)),
  "raters": Table(tabulate_raters, tabulate_raters.ROWS),
  "sources": Table(
    tabulate_sources,
    ("two", "three", "four", "five", "three:control", "five:control"),
  ),
  "statements": Table(tabulate_statements, (*tabulate_statements.QUESTIONS,)),
  "together": Table(tabulate_together, tabulate_together.ROWS),
  "labels": Table(tabulate_labels, tabulate_labels.ROWS),
  "strength": Table(tabulate_strength, tabulate_strength.ROWS),
  "shift": Table(tabulate_shift, tabulate_shift.ROWS),
  "heads": Table(tabulate_heads, tabulate_heads.ROWS),
  "qualities": Table(tabulate_sources, ("webis", "webis:control")),
}


def commit() -> str:
  """The commit of the checkout, and whether it has changes."""
  git = lambda *words: subprocess.run(
    ["git", *words], capture_output=True, text=True, check=False,
    cwd=pathlib.Path(__file__).parent,
  ).stdout.strip()  # fmt: skip
  changed = git("status", "--porcelain", "--untracked-files=no")
  found = git("rev-parse", "--short", "HEAD") or "unknown"
  return f"{found} with changes" if changed else found


def runs_of(
  table: Table, row: str, now: str, named: argparse.Namespace
) -> list[dict[str, Any]]:
  """The seeds of a row, those run that are not in the workdir yet."""
  files = [
    named.workdir / f"{row.replace(':', '_')}_{seed}.npz"
    for seed in range(named.seeds)
  ]
  seed_of = None
  for seed, file in enumerate(files):
    if file.exists():
      continue
    if seed_of is None:
      seed_of = table.study.load(named, row)
    begun = time.perf_counter(), time.process_time()
    run = seed_of(seed)
    spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
    np.savez(file, **run, commit=now, seconds=spent)
    sys.stderr.write(f"{file.name}: {spent[0]:.0f} s, {spent[1]:.0f} of CPU\n")
  return [dict(np.load(file)) for file in files]


def main(given: Sequence[str] | None = None) -> None:
  """Runs what is not there yet, prints the table and draws the picture."""
  parser = argparse.ArgumentParser(
    description=(__doc__ or "").partition("\n")[0]
  )
  parser.add_argument("table", choices=TABLES)
  parser.add_argument("rows", nargs="*")
  parser.add_argument("--model", required=True)
  parser.add_argument("--data", required=True)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--cache")
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--png", type=pathlib.Path)
  named = parser.parse_intermixed_args(given)
  table = TABLES[named.table]
  unknown = {*named.rows} - {*table.rows}
  if unknown:
    parser.error(
      f"rows of {named.table} are {', '.join(table.rows)}, got "
      f"{', '.join(sorted(unknown))}"
    )
  logging.getLogger("jaxalign").setLevel(logging.INFO)
  named.workdir.mkdir(parents=True, exist_ok=True)
  named.cache = named.cache or str(named.workdir / "features")
  begun, now, found = time.perf_counter(), commit(), {}
  for row in named.rows or table.rows:
    found[row] = runs_of(table, row, now, named)
  table.study.show(found, named.png)
  every = [run for runs in found.values() for run in runs]
  commits = sorted({str(run["commit"]) for run in every})
  wall, cpu = np.sum([run["seconds"] for run in every], axis=0) / 60
  sys.stdout.write(
    f"{named.table}: commit {', '.join(commits)}; {named.seeds} seeds of "
    f"{len(found)} rows, {wall:.1f} minutes, {cpu:.1f} of CPU; "
    f"{(time.perf_counter() - begun) / 60:.1f} minutes of them now\n"
  )


if __name__ == "__main__":
  main()
