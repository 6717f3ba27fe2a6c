"""The page of a whole pipeline: its steps, and whom its policies serve."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.experiments.policy import fairness
from jaxalign.experiments.reports import policy_rounds
from jaxalign.runtime.plots import html_report, style

MAX_SCORES = 12  # numbers of one step that the table of steps shows


def write(
  workdir: epath.Path,
  steps: Sequence[Any],
  seconds: Mapping[str, float | None],
  found: Mapping[str, Any] | None,
  rounds: Mapping[str, Any] | None = None,
) -> None:
  """Writes report.html.

  Args:
    workdir: of the pipeline.
    steps: what ran, with `name` and `stage` each.
    seconds: that each step took.
    found: of `fairness.compare`, or None.
    rounds: of `policy_rounds.trace`, or None.
  """
  sections: list[html_report.Table | html_report.Figure | html_report.Text] = []
  summary = (
    f"{len(steps)} steps in {_minutes(sum(filter(None, seconds.values())))}."
  )
  if found is not None:
    sections += _policies(found)
    summary += " " + _in_words(found)
  if rounds is not None:
    sections += policy_rounds.sections_of(rounds)
    summary += " " + policy_rounds.in_words(rounds)
  sections.append(
    html_report.Table(
      title="Steps",
      columns=["step", "stage", "time", "results"],
      rows=[
        [
          step.name,
          step.stage,
          _minutes(seconds[step.name] or 0.0),
          _results(workdir / step.name),
        ]
        for step in steps
      ],
      note="Each folder has its own config.json, metrics and, where it "
      "evaluated, its own report.html.",
    )
  )
  html_report.write_report(
    workdir / "report.html",
    title="From preferences to a policy",
    summary=summary,
    sections=sections,
  )


def _minutes(seconds: float) -> str:
  return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _results(folder: epath.Path) -> str:
  """The numbers of a step's eval.json, as far as they are flat."""
  file = folder / "eval.json"
  if not file.exists():
    return ""
  content = json.loads(file.read_text())
  for found in content.get("mixtures", {}).values():
    if found.get("new_users"):
      last = found["new_users"][-1]
      return (
        f"accuracy {last['accuracy']:.3f} after {last['pairs_seen']} pairs of "
        "a new person"
      )
  if "models" in content:
    scores = next(iter(content["models"].values()))["all"]
    return ", ".join(
      f"{name} {scores[name]['value']:.3f}" for name in ("accuracy", "nll")
    )
  if "rates" in content:
    scores = {name: rates["all"] for name, rates in content["rates"].items()}
    return ", ".join(
      f"{name} wins {one['score']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
      for name, one in scores.items()
      if one["num_pairs"]
    )
  if "oracle_names" in content:
    values = content["oracle"]["value"]
    return ", ".join(
      f"{name} {values[0][k]:.3f}, best of {content['sizes'][-1]} "
      f"{values[-1][k]:.3f}"
      for k, name in enumerate(content["oracle_names"])
    )
  flat = {k: v for k, v in content.items() if isinstance(v, float)}
  return ", ".join(
    f"{k.removeprefix('eval/')} {v:.3f}"
    for k, v in [*flat.items()][:MAX_SCORES]
  )


def _in_words(found: Mapping[str, Any]) -> str:
  """What a reader wants to know first."""
  parts = [
    f"{name} {one['at_equal_kl']['worst']:.2f}"
    + ("" if one["share"] is None else f" ({one['share']:.2f} of the gain)")
    for name, one in found["policies"].items()
  ]
  return (
    f"Utility of the worst-off group at a KL of {found['kl']:.2f} nats per "
    f"response, {min(found['start'].values()):.2f} at the start: "
    + ", ".join(parts)
    + "."
  )


def _policies(
  found: Mapping[str, Any],
) -> list[html_report.Table | html_report.Figure]:
  groups = found["groups"]
  return [
    html_report.Table(
      title="What each policy is worth to each group",
      columns=["policy", "last KL", *groups, "worst-off", "share of the gain"],
      rows=fairness.rows_of(found),
      note=f"True utilities of answers to held-out prompts, all policies at a "
      f"KL of {found['kl']:.2f} nats from the common start. The share is the "
      f"gain of the worst-off group over that of {found['best']}, which knows "
      "the groups.",
    ),
    html_report.Figure(
      "Utility of each group",
      group_bars(found),
      "At equal KL; the dotted lines are the start.",
    ),
    html_report.Figure(
      "Utility against distance from the start",
      utility_curves(found),
      "One panel per group and one for whichever group is worst off; the grey "
      "line is the KL at which policies are compared.",
    ),
  ]


def group_bars(found: Mapping[str, Any]) -> bytes:
  """Bars of every policy's utility per group, a PNG file."""
  groups, policies = found["groups"], found["policies"]
  drawn, panels = style.new(1.6 + 1.4 * len(policies), 3.2)
  panel = panels[0, 0]
  width = 0.8 / len(groups)
  at = np.arange(len(policies))
  for number, group in enumerate(groups):
    colour = style.COLOURS[number % len(style.COLOURS)]
    panel.bar(
      at + (number - (len(groups) - 1) / 2) * width,
      [one["at_equal_kl"][group] for one in policies.values()],
      width * 0.92,
      color=colour,
      label=group,
    )
    panel.axhline(
      found["start"][group], color=colour, linestyle=":", linewidth=1.2
    )
  panel.axhline(0.0, color=style.GREY, linewidth=0.8)
  panel.set_xticks(at, [*policies], parse_math=False)
  panel.set(ylabel="utility")
  style.legend(panel)
  return style.to_png(drawn)


def utility_curves(found: Mapping[str, Any]) -> bytes:
  """Utilities over KL, a panel per group and one of the worst, a PNG file."""
  groups, policies = found["groups"], found["policies"]
  drawn, panels = style.new(
    3.4 * (len(groups) + 1), 3.0, 1, len(groups) + 1, sharey=True
  )
  for panel, group in zip(panels[0], [*groups, "worst-off"], strict=True):
    for number, (name, one) in enumerate(policies.items()):
      curve = one["curve"]
      values = (
        np.min([curve[g] for g in groups], axis=0)
        if group == "worst-off"
        else curve[group]
      )
      panel.plot(
        curve["kl"],
        values,
        color=style.COLOURS[number % len(style.COLOURS)],
        marker="o",
        markersize=3,
        linewidth=1.4,
        label=name,
      )
    panel.axvline(found["kl"], color=style.GREY, linewidth=0.8)
    panel.set(xlabel="KL from the start, nats", title=group)
  panels[0, 0].set(ylabel="utility")
  style.legend(panels[0, 0])
  return style.to_png(drawn)
