"""What an evaluation shows of a mixture: heads by groups, people by heads."""

from collections.abc import Mapping
from typing import Any

from jaxalign.runtime.plots import heatmaps, html_report

Section = html_report.Table | html_report.Figure | html_report.Text


def sections(mixtures: Mapping[str, Any]) -> list[Section]:
  """Tables and pictures of every mixture.

  Args:
    mixtures: scores by model name, as `mixture_scores.of_models` gives them.

  Returns:
    Sections of the page; none where there is no mixture.
  """
  found: list[Section] = []
  for name, scores in mixtures.items():
    found += [_heads(name, scores), _diversity(name, scores)]
    if "users" in scores:
      found += [_users(name, scores)]
      if scores["users"]["confusion"] is not None:
        found += [_confusion(name, scores)]
    if scores.get("new_users"):
      found += [_new_users(name, scores)]
  return found


def _names(scores: Mapping[str, Any]) -> list[str]:
  return [f"head {k}" for k in range(len(scores["weights"]))]


def _heads(name: str, scores: Mapping[str, Any]) -> html_report.Table:
  heads, pooled = scores["heads"], scores["pooled"]
  rows = [["share of users", None, *scores["weights"]]]
  rows += [
    [f"accuracy, {group}", number, *(accuracy or [None] * len(rows[0][2:]))]
    for group, number, accuracy in zip(
      heads["groups"], heads["num_pairs"], heads["accuracy"], strict=True
    )
  ]
  rows.append(["accuracy, all", sum(heads["num_pairs"]) or None, *heads["all"]])
  return html_report.Table(
    f"Heads of {name} by group",
    ["", "pairs", *_names(scores)],
    rows,
    "Each head alone on each group's held-out pairs. What a random member of "
    f"the mixture prefers is right on {pooled['accuracy']:.3f} of all pairs, "
    f"with {pooled['nll']:.3f} nats.",
  )


def _diversity(name: str, scores: Mapping[str, Any]) -> html_report.Figure:
  return html_report.Figure(
    f"Distance between heads of {name}",
    heatmaps.heat_map(
      scores["diversity"],
      _names(scores),
      _names(scores),
      label="total variation",
    ),
    "Total variation between what two heads say of the held-out pairs: 0 for "
    "heads that agree, 1 for opposites that are sure of it.",
  )


def _users(name: str, scores: Mapping[str, Any]) -> html_report.Figure:
  users = scores["users"]
  home = users["groups"]
  rows = users["responsibilities"]
  order = sorted(
    range(len(rows)), key=lambda u: (home[u], [-r for r in rows[u]])
  )
  groups = [*scores["heads"]["groups"], "no group"]
  labels = [groups[home[u]] for u in order]
  return html_report.Figure(
    f"Held-out people by head of {name}",
    heatmaps.heat_map(
      [rows[u] for u in order],
      _runs(labels),
      _names(scores),
      label="responsibility",
      numbers=False,
    ),
    "One line per person, by known group: the probability of each head given "
    "all pairs of this person, whom training has not seen. Negative "
    f"log-likelihood {scores['user_nll']:.3f} nats per pair.",
  )


def _runs(labels: list[str]) -> list[str]:
  """The label of each run of equal ones at its middle, empty elsewhere."""
  shown = [""] * len(labels)
  start = 0
  for i in range(1, len(labels) + 1):
    if i == len(labels) or labels[i] != labels[start]:
      shown[(start + i - 1) // 2] = f"{labels[start]} ({i - start})"
      start = i
  return shown


def _confusion(name: str, scores: Mapping[str, Any]) -> html_report.Table:
  users = scores["users"]
  return html_report.Table(
    f"Held-out people of {name}: known group against most likely head",
    ["group", *_names(scores)],
    [
      [group, *counts]
      for group, counts in zip(
        scores["heads"]["groups"], users["confusion"], strict=True
      )
    ],
    "Under the best one-to-one naming of heads "
    f"{users['group_accuracy']:.3f} of these people are in their own group.",
  )


def _new_users(name: str, scores: Mapping[str, Any]) -> html_report.Table:
  groups = [*scores["new_users"][0]["groups"]]
  return html_report.Table(
    f"New people of {name}, known by their first pairs",
    [
      "pairs seen",
      "accuracy after",
      "standard error over people",
      "NLL, nats",
      *groups,
    ],
    [
      [
        line["pairs_seen"],
        line["accuracy"],
        line["standard_error"],
        line["nll"],
        *(line["groups"][group] for group in groups),
      ]
      for line in scores["new_users"]
    ],
    f"All lines are about the same {scores['new_users'][0]['num_pairs']} later "
    f"pairs of {scores['new_users'][0]['num_users']} people; 0 is what their "
    "share of the mixture alone says.",
  )
