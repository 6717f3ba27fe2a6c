r"""Which loss learns a crowd's labels best, and from how many votes?

    python -m tests.benchmarks.label_losses --workdir=runs/label_losses

Runs configs/rm_dprm_crowd.py for every loss with ten votes per response over
three seeds, then with other numbers of votes for the first seed, and prints a
table in Markdown: mean and sample standard deviation of the distances from the
crowd's true shares, and beside them the best prediction that is one for all.
A run that is done is not repeated.
"""

import argparse
import json
import statistics

from etils import epath

from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reports import label_scores
from tests import shipped

LOSSES = ("transport", "debiased", "line", "cross_entropy")
CASES = ((10, (0, 1, 2)), (1, (0,)), (3, (0,)), (50, (0,)))  # votes, seeds


def scores(loss: str, votes: int, seed: int, workdir: epath.Path) -> dict:
  """What eval.json says of the labels of one run, trained where it is new."""
  done = workdir / f"{loss}-{votes}-{seed}"
  if not (done / "eval.json").exists():
    cfg = shipped.config("rm_dprm_crowd")
    cfg.seed = seed
    cfg.recipe.loss = loss
    cfg.data.train_files = (f"synthetic:labels,label_votes={votes}:train",)
    config = configuration.to_dataclass(train_reward.Config, cfg)
    train_reward.run(config, done, profile=False)
  return json.loads((done / "eval.json").read_text())["labels"]["model"]


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--workdir", default="runs/label_losses")
  workdir = epath.Path(parser.parse_args().workdir)
  print("| votes | loss |", " | ".join(label_scores.SCORES.values()), "|")
  print("|---|---|" + "---|" * len(label_scores.SCORES))
  for votes, seeds in CASES:
    for loss in LOSSES:
      runs = [scores(loss, votes, seed, workdir) for seed in seeds]
      cells = []
      for name in label_scores.SCORES:
        values = [run[name]["value"] for run in runs]
        spread = f" ± {statistics.stdev(values):.3f}" if seeds[1:] else ""
        cells.append(f"{statistics.fmean(values):.3f}{spread}")
      print(f"| {votes} | {loss} |", " | ".join(cells), "|", flush=True)
  constant = runs[0]["constant"]
  cells = [f"{constant[name]:.3f}" for name in label_scores.SCORES]
  print("| – | same for all |", " | ".join(cells), "|")


if __name__ == "__main__":
  main()
