r"""Combined recipes against each of their two parents, a table over crowds.

    python docs/tabulate_combined.py runs

Reads runs/VARIANT_SEED/eval.json for the variants of
`configs/rm_combined_crowd.py`. Prints a row of Markdown for each combination:
its score, mean and sample standard deviation over the seeds, and by how much it
is above each parent, with the 95 % interval of paired seeds (Student's t).
"""

import json
import math
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

Scores = dict[int, float]  # by seed
# 97.5 % quantiles of Student's t by degrees of freedom.
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262}


def judge_nll(result: dict[str, Any]) -> float:
  """NLL of the judge's labels, in nats."""
  return result["models"]["model"]["labels:judge"]["nll"]["value"]


def worst_group(result: dict[str, Any]) -> float:
  """Accuracy in the worst group: of new people once they are placed."""
  if result["mixtures"]:
    return min(result["mixtures"]["model"]["new_users"][-1]["groups"].values())
  return worst_source(result)


def worst_source(result: dict[str, Any]) -> float:
  """Accuracy in the worst source."""
  scores = result["models"]["model"]
  return min(
    scores[source]["accuracy"]["value"]
    for source in scores
    if source != "all" and not source.startswith("labels:")
  )


def placed_nll(result: dict[str, Any]) -> float:
  """NLL of new people's pairs, in nats: once they are placed."""
  if result["mixtures"]:
    return result["mixtures"]["model"]["new_users"][-1]["nll"]
  return result["models"]["model"]["all"]["nll"]["value"]


# Combination -> its parents, and what is scored.
ROWS: dict[str, tuple[tuple[str, str], Callable[[dict[str, Any]], float]]] = {
  "noisy_denoised_more": (("noisy_denoised", "noisy_more"), judge_nll),
  "noisy_denoised_metarm": (("noisy_denoised", "noisy_metarm"), judge_nll),
  "groups_mixture_more": (("groups_mixture", "groups_more"), worst_group),
  "sure_mixture_votes": (("sure_mixture", "sure_votes"), placed_nll),
  "labels_dprm_more": (("labels_dprm", "labels_more"), worst_source),
}
CONTROLS = {"same_mixture_more": (("same_mixture",), worst_group)}


def scores_of(
  folder: pathlib.Path, variant: str, score: Callable[[dict[str, Any]], float]
) -> Scores:
  """A variant's score by seed; empty where it has not run."""
  found = {}
  for path in sorted(folder.glob(f"{variant}_[0-9]*/eval.json")):
    found[int(path.parent.name.rpartition("_")[2])] = score(
      json.loads(path.read_text())
    )
  return found


def spread(values: list[float]) -> str:
  """Mean ± sample standard deviation."""
  return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def against(scores: Scores, parent: Scores) -> str:
  """Mean difference of paired seeds with its 95 % interval."""
  gaps = [scores[seed] - parent[seed] for seed in scores if seed in parent]
  mean = statistics.fmean(gaps)
  half = (
    QUANTILES[len(gaps) - 1] * statistics.stdev(gaps) / math.sqrt(len(gaps))
  )
  return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def table(folder: pathlib.Path) -> list[str]:
  """Lines of Markdown for all combinations that have run."""
  head = ["", "seeds", "score", "value", "parents", "above the parent"]
  lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
  for name, (parents, score) in {**ROWS, **CONTROLS}.items():
    own = scores_of(folder, name, score)
    if len(own) < 2:
      continue
    others = {one: scores_of(folder, one, score) for one in parents}
    what = (score.__doc__ or "").partition(":")[0].rstrip(".")
    cells = [
      name,
      str(len(own)),
      what,
      spread([*own.values()]),
      "; ".join(f"{k} {spread([*v.values()])}" for k, v in others.items()),
      "; ".join(against(own, v) for v in others.values()),
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return lines


if __name__ == "__main__":
  sys.stdout.write("\n".join(table(pathlib.Path(sys.argv[1]))) + "\n")
