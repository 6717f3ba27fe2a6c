"""What the tabular check looks like: a table and a picture on one page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.runtime.plots import groups as group_plots
from jaxalign.runtime.plots import html_report

World = Mapping[str, Mapping[str, Any]]


def in_words(world: World) -> str:
  """Utilities and the share of the optimum per objective, on one line."""
  return "; ".join(
    f"{name} "
    + "/".join(f"{utility:.3f}" for utility in found["utilities"])
    + f", {100 * found['share']:.2f} % of the gain"
    for name, found in world.items()
  )


def findings(result: Mapping[str, World]) -> list[str]:
  """What each objective reached, on the mean of all worlds."""
  return [
    f"{name}: {100 * np.mean([w[name]['share'] for w in result.values()]):.1f} "
    f"% of what can be gained over the random walk, worlds: {len(result)}"
    for name in next(iter(result.values()))
  ]


def utilities(result: Mapping[str, World]) -> dict[str, np.ndarray]:
  """Utilities per objective, [worlds, K]."""
  names = next(iter(result.values()))
  return {
    name: np.array([world[name]["utilities"] for world in result.values()])
    for name in names
  }


def write(
  workdir: epath.Path, result: Mapping[str, World], shares: Sequence[float]
) -> None:
  """Writes report.html and utilities.png.

  Args:
    workdir: gets both.
    result: per world and objective what `tabular.run_world` found.
    shares: of each group in the crowd.
  """
  found = utilities(result)
  rows = []
  for name, values in found.items():
    worlds = [world[name] for world in result.values()]
    reached = np.array([world["share"] for world in worlds])
    rows.append(
      [
        name,
        *values.mean(axis=0),
        values.min(axis=1).mean(),
        np.mean([world["kl"] for world in worlds]),
        f"{100 * reached.min():.2f} %",
      ]
    )
  groups = [f"{100 * share:.0f} % of the crowd" for share in shares]
  picture = group_plots.group_bars(
    found, groups, label="share of steps in its goal"
  )
  (workdir / "utilities.png").write_bytes(picture)
  html_report.write_report(
    workdir / "report.html",
    title="One policy for groups that want to be elsewhere",
    summary="",
    sections=[
      html_report.Table(
        f"Means over {len(result)} worlds",
        (
          "objective",
          *groups,
          "worst-off group",
          "KL, nats per path",
          "gain reached, at least",
        ),
        rows,
        "Utility is the share of steps in a group's goal. The gain is of the "
        "objective over the random walk, in parts of what the convex dual over "
        "all paths says can be gained; the least of all worlds is shown.",
      ),
      html_report.Figure(
        "Utility of each group", picture, "Means as bars, worlds as points."
      ),
    ],
  )
