"""Tabular report: what each objective is worth to each group."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.runtime.plots import figures, html_report
from jaxalign.runtime.plots.html_report import percent

World = Mapping[str, Mapping[str, Any]]


def in_words(world: World) -> str:
  """Utilities and the share of the optimum per objective, on one line."""
  return "; ".join(
    f"{name} "
    + "/".join(f"{utility:.3f}" for utility in found["utilities"])
    + f", {100 * found['share']:.2f} % of the gain"
    for name, found in world.items()
  )


def utilities(result: Mapping[str, World]) -> dict[str, np.ndarray]:
  """Utilities per objective, [worlds, K]."""
  names = next(iter(result.values()))
  return {
    name: np.array([world[name]["utilities"] for world in result.values()])
    for name in names
  }


def headline(result: Mapping[str, World]) -> str:
  """What the worst-off group gets from each objective, mean of worlds."""
  worst = {k: v.min(axis=1).mean() for k, v in utilities(result).items()}
  best = max(worst, key=worst.__getitem__)
  rest = ", ".join(f"{k} {v:.3f}" for k, v in worst.items() if k != best)
  return (
    f"The worst-off group is best served by {best}: utility {worst[best]:.3f}; "
    f"{rest}. Each objective reaches at least "
    f"{percent(min(w[n]['share'] for w in result.values() for n in w))} of "
    "what can be gained over the random walk."
  )


def answer_rows(table: Mapping[str, Any]) -> list[list[Any]]:
  """Rows of the table of answers: weights, step size, last and least value."""
  rows = [["maxmin", "", *table["maxmin"].values(), table["optimum"]]]
  for name, title in (
    ("exponentiated", "exponentiated"),
    ("damped", "exponentiated, damped"),
  ):
    for step_size, found in table[name].items():
      rows.append([title, step_size, *found.values(), table["optimum"]])
  return rows


def pooled_section(rows: Sequence[Mapping[str, float]]) -> html_report.Section:
  """What a pooled reward costs a minority, beside the bounds on it."""
  return html_report.Table(
    "One pooled reward for two tastes",
    ("angle", "minority", "diversity", "mismatch", "tight bound", "lemma 1",
     "gap of the minority", "theorem 1", "gap of the majority",
     "worst off, pooled", "with max-min"),
    [
      [f"{one['angle']:g}°", percent(one["share"], 0), one["diversity"],
       one["mismatch"], one["mismatch_bound_tight"], one["mismatch_bound"],
       one["gap"], f"{one['gap_bound']:.1e}", one["gap_majority"],
       one["worst"], one["worst_maxmin"]]
      for one in rows
    ],
    "Exact numbers on a table of answers. Mismatch is the distance of the "
    "pooled reward's parameters from the minority's; a gap is what a group "
    "loses against its own best policy, in reward units. The bounds assume "
    "that pooled preferences are Bradley-Terry, which they are nearly.",
  )  # fmt: skip


def write(
  workdir: epath.Path,
  result: Mapping[str, World],
  shares: Sequence[float],
  table: Mapping[str, Any] | None = None,
  pooled: Sequence[Mapping[str, float]] | None = None,
) -> None:
  """Writes report.html and utilities.png.

  Args:
    workdir: gets both.
    result: per world and objective what `tabular.run_world` found.
    shares: of each group in the crowd.
    table: what `answer_table.run` found, or None.
    pooled: what `pooled_table.run` found, or None.
  """
  found = utilities(result)
  rows = []
  for name, values in found.items():
    worlds = [world[name] for world in result.values()]
    kl = np.mean([world["kl"] for world in worlds])
    reached = percent(min(world["share"] for world in worlds), 2)
    worst = values.min(axis=1).mean()
    rows.append([name, *values.mean(axis=0), worst, kl, reached])
  groups = [f"{percent(share, 0)} of the crowd" for share in shares]
  bars = figures.group_bars(found, groups, label="share of steps in its goal")
  (workdir / "utilities.png").write_bytes(bars.png())
  further = []
  if table is not None:
    further = [
      html_report.Table(
        "The learner on a table of answers",
        ("weights", "step size", "last", "least of the last tenth", "optimum"),
        answer_rows(table),
        "Worst-off group's utility less the KL penalty, of the policy that "
        "leave-one-out advantages lead to, one seed.",
      )
    ]
  if pooled is not None:
    further.append(pooled_section(pooled))
  html_report.write_report(
    workdir / html_report.NAME,
    title="One policy for groups that want to be in different places",
    headline=headline(result),
    basis=f"Exact utilities, one seed per world, worlds: {len(result)}.",
    sections=[
      html_report.Figure(
        "Utility of each group", bars, "Means as bars, worlds as dots."
      ),
      html_report.Table(
        "Means over worlds",
        ("objective", *groups, "worst-off group", "KL, nats per path",
         "gain reached, at least"),
        rows,
        "Utility is the share of steps in a group's goal. The gain is of the "
        "objective over the random walk, in parts of what the convex dual over "
        "all paths says can be gained; the least of all worlds is shown.",
      ),
      *further,
    ],
  )  # fmt: skip
