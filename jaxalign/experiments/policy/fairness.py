"""Fairness of policies: utility of each group at equal KL, side by side.

Each policy logged what its answers to held-out prompts were truly worth to
every group while it moved away from the common start. A policy that went
further is worth more for that alone, so they are compared at budgets of KL that
all of them have spent: what the worst-off group has there, and its mean gain on
the way there, the area under its curve.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.ops import checks
from jaxalign.runtime.io import metric_writer


@dataclasses.dataclass(frozen=True)
class FairnessConfig:
  """Policy runs to compare.

  Attributes:
    policies: steps of stage `train_policy`.
    best: the one of them that knows the groups; the gain of its worst-off group
      counts as 1.
    budgets: KLs from the start in nats per response, rising. Policies are
      compared at the largest that all of them have spent, and where none is,
      at the least of their last distances.
    settled: evaluations at the end of a run whose mean is what a policy is
      worth at the one budget, where a controller holds it there; 0 where
      policies pass their budgets.
    prefix: of the metrics that hold each group's true utility.
  """

  policies: tuple[str, ...]
  best: str
  budgets: tuple[float, ...] = ()
  settled: int = 0
  prefix: str = "eval/judge/"

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    if sorted({*self.budgets, 0.0}) != [0.0, *self.budgets]:
      raise ValueError(f"budgets must be > 0 and rise, got {self.budgets}")
    checks.at_least(0, settled=self.settled)
    if self.settled and len(self.budgets) != 1:
      raise ValueError(
        f"settled goes with one budget, where policies are held; got "
        f"{self.settled} and budgets={self.budgets}"
      )
    if self.best not in self.policies:
      raise ValueError(
        f"best must be one of {', '.join(self.policies)}, got {self.best!r}"
      )


def compare(workdir: epath.Path, config: FairnessConfig) -> dict[str, Any]:
  """Utilities of all policies at the end of their runs and at equal KL.

  Args:
    workdir: of the pipeline.
    config: which policies, the budgets, and the metrics' names.

  Returns:
    `groups`; `best`; `kl`, where the policies are compared; `start` {group:
    utility}; `attainable`, what `config.best` gained there for its worst-off
    group; `policies` {name: `curve` {"kl": [...], group: [...]}, `at_equal_kl`
    and `at_end` {group: utility, "worst": ...}, `end_kl`, and `share`: its
    gain over the attainable one, None where there is none}; and `budgets`, one
    {"kl", "policies": {name: `worst`, `gain`, `mean_gain`}} for each that all
    policies have spent.

  Raises:
    ValueError: a policy logged no utilities.
  """
  curves = {
    name: curve_of(workdir / name / "metrics.jsonl", config.prefix)
    for name in config.policies
  }
  groups = [k for k in next(iter(curves.values())) if k != "kl"]
  furthest = min(float(curve["kl"].max()) for curve in curves.values())
  spent = [kl for kl in config.budgets if kl <= furthest]
  least = min(float(curve["kl"][-1]) for curve in curves.values())
  kl = spent[-1] if spent else least
  start = {g: float(curves[config.best][g][0]) for g in groups}
  found = {
    name: {
      "curve": {key: values.tolist() for key, values in curve.items()},
      "end_kl": _last(curve, "kl", config.settled),
      "at_end": _with_worst(
        {g: _last(curve, g, config.settled) for g in groups}
      ),
      "at_equal_kl": _with_worst({g: _at(curve, g, kl) for g in groups}),
    }
    for name, curve in curves.items()
  }
  if config.settled:
    for one in found.values():
      one["at_equal_kl"] = one["at_end"]
  worst_at_start = min(start.values())
  worst = lambda name: found[name]["at_equal_kl"]["worst"]
  gain = {name: worst(name) - worst_at_start for name in found}
  attainable = gain[config.best]
  for name, one in found.items():
    one["share"] = gain[name] / attainable if attainable > 0 else None
  return {
    "groups": groups,
    "best": config.best,
    "kl": kl,
    "start": start,
    "attainable": attainable,
    "policies": found,
    "budgets": [
      {
        "kl": budget,
        "policies": {
          name: _at_budget(curve, groups, budget)
          | (
            {"worst": worst(name), "gain": gain[name]} if config.settled else {}
          )
          for name, curve in curves.items()
        },
      }
      for budget in spent
    ],
  }


def curve_of(path: epath.Path, prefix: str) -> dict[str, np.ndarray]:
  """KL and utilities of the evaluations of one policy run.

  Args:
    path: its metrics.jsonl.
    prefix: of the metrics that hold each group's utility.

  Returns:
    "kl" and each group, float64 [evaluations].

  Raises:
    ValueError: there are none.
  """
  rows = _evaluations(path)
  groups = sorted({k for row in rows for k in row if k.startswith(prefix)})
  if not rows or not groups:
    raise ValueError(f"{path} has no row with eval/kl and {prefix}GROUP")
  return {"kl": _column(rows, "eval/kl")} | {
    group.removeprefix(prefix): _column(rows, group) for group in groups
  }


def column_of(path: epath.Path, key: str) -> np.ndarray:
  """One metric of the evaluations of a policy run, float64 [evaluations]."""
  return _column(_evaluations(path), key)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
  return np.array([row[key] for row in rows], np.float64)


def _evaluations(path: epath.Path) -> list[dict[str, Any]]:
  return [row for row in metric_writer.read_rows(path) if "eval/kl" in row]


def _last(curve: Mapping[str, np.ndarray], key: str, settled: int) -> float:
  """The last value, or the mean of the last ones."""
  return float(np.mean(curve[key][-max(settled, 1) :]))


def _at(curve: Mapping[str, np.ndarray], group: str, kl: float) -> float:
  """Utility where the run first reached `kl`, between evaluations by a line."""
  distance, values = curve["kl"], curve[group]
  reached = int(np.argmax(distance >= kl))
  if reached == 0:
    return float(values[0] if distance[0] >= kl else values[-1])
  before, after = distance[reached - 1], distance[reached]
  share = (kl - before) / (after - before)
  return float((1 - share) * values[reached - 1] + share * values[reached])


def _at_budget(
  curve: Mapping[str, np.ndarray], groups: Sequence[str], budget: float
) -> dict[str, float]:
  """The worst-off group's utility, gain, and mean gain from 0 to a budget."""
  worst = lambda kl: min(_at(curve, group, kl) for group in groups)
  # Between evaluations utilities are lines, but the least of them may bend.
  levels = np.linspace(0.0, budget, 401)
  path = np.array([worst(kl) for kl in levels])
  return {
    "worst": float(path[-1]),
    "gain": float(path[-1] - path[0]),
    "mean_gain": float(np.trapezoid(path - path[0], levels) / budget),
  }


def _with_worst(utilities: Mapping[str, float]) -> dict[str, float]:
  return {**utilities, "worst": min(utilities.values())}


def rows_of(found: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
  """One row of cells per policy, the start first."""
  groups = found["groups"]
  start = found["start"]
  worst = min(start.values())
  cells = [["start", 0.0, *(start[g] for g in groups), worst, None, None]]
  for name, one in found["policies"].items():
    at = one["at_equal_kl"]
    share = one["share"]
    cells.append(
      [
        name,
        one["end_kl"],
        *(at[g] for g in groups),
        at["worst"],
        at["worst"] - worst,
        None if share is None else f"{share:.2f}",
      ]
    )
  return cells


def budget_rows_of(found: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
  """One row of cells per policy: the gain at each budget, the mean to the last.

  Args:
    found: of `compare`, with at least one budget.
  """
  budgets = found["budgets"]
  return [
    [
      name,
      *(each["policies"][name]["gain"] for each in budgets),
      budgets[-1]["policies"][name]["mean_gain"],
    ]
    for name in found["policies"]
  ]
