"""The part of a page that shows rounds of a policy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxalign.runtime.plots import html_report, style


def in_words(found: Mapping[str, Any]) -> str:
  """What a reader wants to know first, of `policy_rounds.trace`."""
  rounds = found["rounds"]
  ends = ", ".join(
    f"{one['end']['worst']:.2f} (KL {one['end']['kl']:.1f})" for one in rounds
  )
  return (
    f"Utility of the worst-off group: {rounds[0]['start']['worst']:.2f} at the "
    f"start, then round by round {ends}."
  )


def sections_of(
  found: Mapping[str, Any],
) -> list[html_report.Table | html_report.Figure]:
  """A table of the rounds and their curves.

  Args:
    found: of `policy_rounds.trace`.
  """
  groups, rounds = found["groups"], found["rounds"]
  first = rounds[0]["start"]
  rows = [["start", first["kl"], *_cells(first, groups), None, None, None]]
  for one in rounds:
    start, end = one["start"], one["end"]
    before, after = start["utilities"], end["utilities"]
    rows.append(
      [
        one["policy"],
        end["kl"],
        *_cells(end, groups),
        end["worst"] - start["worst"],
        float(np.mean([after[g] - before[g] for g in groups])),
        end["reward"] - start["reward"],
      ]
    )
  return [
    html_report.Table(
      title="What the policy is worth after each round",
      columns=[
        "round",
        "KL",
        *groups,
        "worst-off",
        "gain of the worst-off",
        "gain, mean of groups",
        "gain by its own reward",
      ],
      rows=rows,
      note="True utilities of answers to the same held-out prompts; KL from "
      "the reference in nats per response. Gains are those of one round. Where "
      "its own reward gains and the groups do not, the policy has outlearned "
      "the reward.",
    ),
    html_report.Figure(
      "Rounds by distance from the reference",
      curves(found),
      "One line per round, from where the last one ended. Each round's reward "
      "is in its own deviations, so its lines do not join.",
    ),
  ]


def _cells(at: Mapping[str, Any], groups: list[str]) -> list[float]:
  return [*(at["utilities"][group] for group in groups), at["worst"]]


def curves(found: Mapping[str, Any]) -> bytes:
  """Utilities and reward over KL, a panel each, a line per round; a PNG file.

  Args:
    found: of `policy_rounds.trace`.
  """
  titles = [*found["groups"], "worst-off", "its own reward"]
  drawn, panels = style.new(3.1 * len(titles), 3.0, 1, len(titles))
  for number, one in enumerate(found["rounds"]):
    curve = one["curve"]
    utilities = [curve["utilities"][group] for group in found["groups"]]
    lines = [*utilities, np.min(utilities, axis=0), curve["reward"]]
    for panel, values in zip(panels[0], lines, strict=True):
      panel.plot(
        curve["kl"],
        values,
        color=style.COLOURS[number % len(style.COLOURS)],
        marker="o",
        markersize=3,
        linewidth=1.4,
        label=one["policy"],
      )
  for panel, title in zip(panels[0], titles, strict=True):
    panel.set_title(title, parse_math=False)
    panel.set(xlabel="KL from the reference, nats")
  panels[0, 0].set(ylabel="utility")
  panels[0, -1].set(ylabel="reward, deviations")
  style.legend(panels[0, 0])
  return style.to_png(drawn)
