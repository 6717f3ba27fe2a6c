"""Report sections on a mixture: latent groups, heads, and new people."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.runtime.plots import html_report, panels
from jaxalign.runtime.plots.html_report import decimal, percent

Section = html_report.Section


def headline(scores: Mapping[str, Any]) -> str:
  """The latent groups found, and how well all and new people are predicted.

  Args:
    scores: of one mixture, as `mixture_scores.summarise` gives them.

  Returns:
    A sentence or two; the baseline is the mixture before it knows a person.
  """
  shares = sorted(scores["weights"], reverse=True)
  sizes = " / ".join(percent(share, 0) for share in shares)
  said = f"{len(shares)} latent groups fitted, {sizes} of the people."
  if lines := scores.get("new_users"):
    said += f" {placed(lines)}"
  pooled = percent(scores["pooled"]["accuracy"])
  return (
    f"{said} Without knowing who asks, {pooled} of all held-out pairs are "
    "predicted."
  )


def placed(lines: Sequence[Mapping[str, Any]]) -> str:
  """A sentence on what people's own pairs are worth.

  Args:
    lines: as `mixture_scores.new_users` gives them.
  """
  before, after = lines[0], lines[-1]
  return (
    f"New people are predicted at {percent(after['accuracy'])} after "
    f"{after['pairs_seen']} of their pairs, at {percent(before['accuracy'])} "
    "before the first."
  )


def head_names(scores: Mapping[str, Any]) -> list[str]:
  """Each head by its number and the known group that it predicts best."""
  heads = scores["heads"]
  known = [
    (group, row)
    for group, row in zip(heads["groups"], heads["accuracy"], strict=True)
    if row is not None
  ]
  names = []
  for k in range(len(scores["weights"])):
    best = max(known, key=lambda pair: pair[1][k], default=None)
    says = "" if best is None or len(known) < 2 else f", best on {best[0]}"
    names.append(f"head {k}{says}")
  return names


def sections(mixtures: Mapping[str, Any]) -> list[Section]:
  """Tables and figures of every mixture.

  Args:
    mixtures: scores by model name, as `mixture_scores.of_models` gives them.

  Returns:
    Sections of the page; none where there is no mixture.
  """
  found: list[Section] = []
  for name, scores in mixtures.items():
    if scores.get("new_users"):
      found += new_users(
        name, scores["new_users"], "what their share of the mixture alone says"
      )
    found.append(_heads(name, scores))
    if (cost := pooled_section(name, scores)) is not None:
      found.append(cost)
    if "users" in scores:
      if scores["users"]["confusion"] is not None:
        found.append(_confusion(name, scores))
      found.append(_users(name, scores))
  return found


def _heads(name: str, scores: Mapping[str, Any]) -> Section:
  heads, pooled = scores["heads"], scores["pooled"]
  empty = [None] * len(scores["weights"])
  groups = zip(
    heads["groups"], heads["num_pairs"], heads["accuracy"], strict=True
  )
  return html_report.Table(
    f"Heads of {name} by known group",
    ["", "pairs", *head_names(scores)],
    [
      ["share of users", None, *scores["weights"]],
      *([f"accuracy, {g}", n, *(row or empty)] for g, n, row in groups),
      ["accuracy, all", sum(heads["num_pairs"]) or None, *heads["all"]],
    ],
    "Each head alone on each group's held-out pairs. What a random member of "
    f"the mixture prefers is right on {decimal(pooled['accuracy'])} of all "
    f"pairs, with {decimal(pooled['nll'])} nats.",
  )


def pooled_section(
  name: str, scores: Mapping[str, Any]
) -> html_report.Table | None:
  """What one pooled reward costs each group of a mixture, beside the bounds.

  Args:
    name: of the mixture.
    scores: of it, as `mixture_scores.summarise` gives them.

  Returns:
    The table, or None for scores of an earlier version, which lack it.
  """
  found = scores.get("pooled_cost")
  if found is None:
    return None
  groups, models = found["groups"], found["pooled"]
  rows = []
  for k, group in enumerate(groups):
    row = [f"head {k}", percent(group["share"], 0), group["distinctiveness"]]
    row += [group["mismatch_bound"], group["mismatch_bound_tight"]]
    row += [one["mismatch"][k] for one in models.values()]
    rows.append([*row, *(one["gap"][k] for one in models.values())])
  return html_report.Table(
    f"What one pooled reward costs the groups of {name}",
    ["group", "share", "distinctiveness", "lemma 1", "tight bound",
     *(f"mismatch, {pooled}" for pooled in models),
     *(f"alignment gap, {pooled}" for pooled in models)],
    rows,
    "Mismatch is half the mean difference of a pair's two rewards from those "
    "of the pooled reward. The alignment gap is what a group loses, in reward "
    "units, where a policy chooses between the two responses of each held-out "
    f"pair by the pooled reward, at {decimal(found['beta'], 2)} reward units "
    "per nat, and not by the group's own. Both bounds of the mismatch take the "
    "heads for the groups and assume that the crowd's vote is itself "
    f"Bradley-Terry. {_where_vacuous(groups, models)}",
  )  # fmt: skip


def _where_vacuous(
  groups: list[dict[str, Any]], models: Mapping[str, Any]
) -> str:
  """One line on what the bounds of MaxMin-RLHF leave open."""
  alike = [k for k, one in enumerate(groups) if one["distinctiveness"] <= 0]
  said = ""
  if alike:
    names = ", ".join(f"head {k}" for k in alike)
    said = f"Of {names} they say nothing: another head is as far from theirs. "
  most = max(one["gap_bound"] for one in groups)
  gap = max(max(one["gap"]) for one in models.values())
  return (
    f"{said}Theorem 1 promises a gap of {most:.1e} at most, with features of "
    f"the best possible spread, where {gap:.1e} is measured; it assumes that "
    "the policies stay far from certain."
  )


def _users(name: str, scores: Mapping[str, Any]) -> Section:
  users = scores["users"]
  home, rows = users["groups"], users["responsibilities"]
  order = sorted(
    range(len(rows)), key=lambda u: (home[u], [-r for r in rows[u]])
  )
  groups = [*scores["heads"]["groups"], "no group"]
  return html_report.Figure(
    f"Held-out people by head of {name}",
    panels.HeatMap(
      [rows[u] for u in order],
      _runs([groups[home[u]] for u in order]),
      head_names(scores),
      label="responsibility",
      numbers=False,
    ),
    "One line per person, by known group: the probability of each head given "
    "all pairs of this person, whom training has not seen. Negative "
    f"log-likelihood {decimal(scores['user_nll'])} nats per pair.",
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


def _confusion(name: str, scores: Mapping[str, Any]) -> Section:
  users = scores["users"]
  groups = zip(scores["heads"]["groups"], users["confusion"], strict=True)
  return html_report.Table(
    f"Held-out people of {name}: known group against most likely head",
    ["group", *head_names(scores)],
    [[group, *counts] for group, counts in groups],
    "Under the best one-to-one naming of heads "
    f"{decimal(users['group_accuracy'])} of these people are in their own "
    "group.",
  )


def new_users(
  name: str, lines: Sequence[Mapping[str, Any]], before: str
) -> list[Section]:
  """How well new people are predicted after more and more of their pairs.

  Args:
    name: of the model.
    lines: as `mixture_scores.new_users` gives them.
    before: what predicts somebody without pairs.

  Returns:
    A figure and its table.
  """
  groups = [*lines[0]["groups"]]
  errors = [1.96 * (one["standard_error"] or 0.0) for one in lines]
  seen = [one["pairs_seen"] for one in lines]
  curves = [
    panels.Line("all people", seen, [one["accuracy"] for one in lines],
                error=errors),
    *(
      panels.Line(group, seen, [one["groups"][group] for one in lines],
                  dashed=True)
      for group in groups
    ),
  ]  # fmt: skip
  first = lines[0]
  return [
    html_report.Figure(
      f"Accuracy on new people of {name}",
      panels.Panel(
        "pairs seen of a person", "accuracy on later pairs", curves,
        levels={"chance": 0.5},
      ),
      "Bars are 95 % intervals over people.",
    ),
    html_report.Table(
      f"New people of {name}, known by their first pairs",
      ["pairs seen", "accuracy after", "standard error over people",
       "NLL, nats", *groups],
      [
        [one["pairs_seen"], one["accuracy"], one["standard_error"],
         one["nll"], *(one["groups"][group] for group in groups)]
        for one in lines
      ],
      f"All lines are about the same {first['num_pairs']} later pairs of "
      f"{first['num_users']} people; 0 is {before}.",
      folded=True,
    ),
  ]  # fmt: skip
