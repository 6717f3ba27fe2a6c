"""Pipeline report: which policy serves the worst-off group, and every step."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.experiments.policy import evaluation, fairness
from jaxalign.experiments.reports import (
  best_of_n,
  denoise,
  mixture,
  policy,
  reward_bench,
  reward_model,
  win_rates,
)
from jaxalign.runtime.plots import figures, html_report, panels
from jaxalign.runtime.plots.html_report import decimal, percent, word


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
    rounds: of `rounds.trace`, or None.
  """
  sections: list[html_report.Section] = []
  said = []
  if found is not None:
    answers = {name: read_answers(workdir / name) for name in found["policies"]}
    sections += policy_sections(found, answers)
    said.append(policy_headline(found, answers))
  if rounds is not None:
    sections += round_sections(rounds)
    said.append(round_headline(rounds))
  evaluations = _evaluations(workdir, steps)
  groups = groups_headline(evaluations)
  sections += pooled_sections(evaluations)
  took = _minutes(sum(filter(None, seconds.values())))
  rows = []
  for step in steps:
    link = html_report.links_to(workdir, [workdir / step.name])
    time = _minutes(seconds[step.name] or 0.0)
    result = result_of(evaluations.get(step.name, {}))
    rows.append([link[0] if link else step.name, step.stage, time, result])
  sections.append(
    html_report.Table(
      "Steps",
      ["step", "stage", "time", "results"],
      rows,
      "Each folder has its own config.json, metrics and, where it evaluated, "
      "its own page.",
    )
  )
  html_report.write_report(
    workdir / html_report.NAME,
    title="From preferences to a policy",
    headline="\n\n".join(filter(None, (*said, groups)))
    or f"{len(steps)} steps are finished, in {took}.",
    basis=f"{len(steps)} steps in {took}. {html_report.ONE_SEED}",
    sections=sections,
  )


def _minutes(seconds: float) -> str:
  return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def read_answers(folder: epath.Path) -> Mapping[str, Any]:
  """The sample answers that a policy run has left, empty without any."""
  file = folder / evaluation.ANSWERS
  return json.loads(file.read_text()) if file.exists() else {}


def _evaluations(
  workdir: epath.Path, steps: Sequence[Any]
) -> dict[str, dict[str, Any]]:
  files = {step.name: workdir / step.name / "eval.json" for step in steps}
  return {
    name: json.loads(file.read_text())
    for name, file in files.items()
    if file.exists()
  }


def groups_headline(results: Mapping[str, Mapping[str, Any]]) -> str:
  """The latent groups and how well new people are predicted, or ""."""
  pooled = {
    name: next(iter(result["models"].values()))["all"]["accuracy"]["value"]
    for name, result in results.items()
    if result.get("models") and not result.get("mixtures")
  }
  beside = "".join(
    f" A single pooled model ({name}) ranks {percent(value)} of pairs right."
    for name, value in pooled.items()
  )
  for result in results.values():
    for scores in result.get("mixtures", {}).values():
      return mixture.headline(scores) + beside
  return ""


def pooled_sections(
  results: Mapping[str, Mapping[str, Any]],
) -> list[html_report.Section]:
  """What one pooled reward costs the groups of each mixture of a step."""
  found: list[html_report.Section] = []
  for step, result in results.items():
    for name, scores in result.get("mixtures", {}).items():
      named = step if name == "model" else f"{step}, {name}"
      if (section := mixture.pooled_section(named, scores)) is not None:
        found.append(section)
  return found


def result_of(content: Mapping[str, Any]) -> str:
  """What a step found: the headline of its page, or its plain numbers."""
  if "rates" in content:
    return win_rates.headline(content["rates"])
  if "oracle_names" in content:
    return best_of_n.headline(content)
  if "outputs" in content:
    return reward_bench.headline(content)
  if "models" in content:
    return reward_model.headline(content).partition("\n")[0]
  if "train" in content:
    return denoise.headline(content)
  flat = {k: v for k, v in content.items() if isinstance(v, float)}
  if any(key.startswith("eval/judge/") for key in flat):
    kept = ("eval/judge/", "eval/kl")  # what it is worth, at which distance
    flat = {k: v for k, v in flat.items() if k.startswith(kept)}
  named = (
    f"{k.removeprefix('eval/').replace('judge/', 'true utility ')} {v:.3f}"
    for k, v in flat.items()
  )
  return ", ".join(map(word, named))


def policy_headline(
  found: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]
) -> str:
  """What the worst-off group gets from each policy, the start beside it.

  Args:
    found: of `fairness.compare`.
    answers: content of answers.json by policy.
  """
  worst = lambda one: one["at_equal_kl"]["worst"]
  worth = {name: worst(one) for name, one in found["policies"].items()}
  best, errors = found["best"], interval_lengths(found, answers)
  leads, *others = sorted(
    worth, key=lambda name: (name != best, worth[name]), reverse=True
  )
  said = [f"{min(found['start'].values()):.2f} at the start"]
  for name in others:
    gap = worth[leads] - worth[name]
    spread = np.hypot(*(max(errors.get(n, [0.0])) for n in (leads, name)))
    same = " (not significant)" if abs(gap) <= spread else ""
    said.append(f"{worth[name]:.2f} with {name}{same}")
  share = found["policies"][leads]["share"]
  reached = (
    f" {leads} reaches {percent(share, 0)} of the gain of {best}, which knows "
    "the groups."
    if share is not None and leads != best
    else ""
  )
  return (
    f"At equal KL ({decimal(found['kl'], 1)} nats per response) the worst-off "
    f"group gets a utility of {worth[leads]:.2f} with {leads}, against "
    f"{', '.join(said)}."
    f"{reached}"
  )


def interval_lengths(
  found: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[float]]:
  """Half of the 95 % interval of each group's utility over prompts."""
  groups = found["groups"]
  ends = {name: one["end"] for name, one in answers.items() if one.get("end")}
  return {
    name: [1.96 * end["standard_error"][group] for group in groups]
    for name, end in ends.items()
    if {*groups} <= {*end["standard_error"]}
  }


def policy_sections(
  found: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]
) -> list[html_report.Section]:
  """Utilities of every policy to every group, and sample answers.

  Args:
    found: of `fairness.compare`.
    answers: content of answers.json by policy.
  """
  groups, policies = found["groups"], found["policies"]
  start = next((one.get("start") for one in answers.values()), None)
  ends = {"start": start} | {n: one.get("end") for n, one in answers.items()}
  errors = interval_lengths(found, {n: {"end": one} for n, one in ends.items()})
  curves = {
    group: {name: one["curve"][group] for name, one in policies.items()}
    for group in groups
  }
  curves["worst-off"] = {
    name: np.min([one["curve"][g] for g in groups], axis=0)
    for name, one in policies.items()
  }
  return [
    html_report.Figure(
      "Utility of each group",
      figures.group_bars(
        {"start": [[found["start"][g] for g in groups]]}
        | {n: [[one["at_equal_kl"][g] for g in groups]]
           for n, one in policies.items()},
        groups,
        label="true utility at equal KL",
        errors=errors,
      ),
      "Error bars are 95 % intervals over held-out prompts."
      if errors
      else "",
    ),
    html_report.Table(
      "What each policy is worth to each group",
      ["policy", "last KL", *groups, "worst-off", "its gain",
       "share of the gain"],
      fairness.rows_of(found),
      f"True utilities of answers to held-out prompts, all policies at a KL of "
      f"{decimal(found['kl'], 2)} nats from the common start. The share is "
      f"the gain of the worst-off group over that of {found['best']}, which "
      f"knows the groups: {found['attainable']:.2f}.",
    ),
    *budget_section(found),
    *policy.samples(ends),
    html_report.Figure(
      "Utility against distance from the start",
      panels.alike(
        [
          panels.Panel(
            "KL from the start, nats", "utility",
            [panels.Line(name, policies[name]["curve"]["kl"], values)
             for name, values in lines.items()],
            title=group, uprights={"equal KL": found["kl"]},
          )
          for group, lines in curves.items()
        ],
        "xy",
      ),
      "One panel per group and one for whichever group is worst off, on the "
      "same axes.",
    ),
  ]  # fmt: skip


def budget_section(found: Mapping[str, Any]) -> list[html_report.Section]:
  """What each policy gains for the worst-off group per budget of KL."""
  budgets = found["budgets"]
  if not budgets:
    return []
  names = [f"{decimal(each['kl'], 1)} nats" for each in budgets]
  return [
    html_report.Table(
      "Gain of the worst-off group by how far the policy went",
      ["policy", *names, f"mean up to {names[-1]}"],
      fairness.budget_rows_of(found),
      "Each policy where it first was that far from the start. The mean is the "
      "area under the curve of the worst-off group, over the distance.",
    )
  ]


def round_headline(found: Mapping[str, Any]) -> str:
  """The worst-off group's utility round by round, of `rounds.trace`."""
  rounds = found["rounds"]
  ends = ", ".join(
    f"{one['end']['worst']:.2f} (KL {decimal(one['end']['kl'], 1)})"
    for one in rounds
  )
  return (
    f"Utility of the worst-off group: {rounds[0]['start']['worst']:.2f} at the "
    f"start, then round by round {ends}."
  )


def round_sections(found: Mapping[str, Any]) -> list[html_report.Section]:
  """A table of the rounds and their curves."""
  groups, rounds = found["groups"], found["rounds"]
  cells = lambda at: [*(at["utilities"][g] for g in groups), at["worst"]]
  first = rounds[0]["start"]
  rows = [["start", first["kl"], *cells(first), None, None, None]]
  lines: dict[str, list[panels.Line]] = {}
  for one in rounds:
    start, end, curve = one["start"], one["end"], one["curve"]
    gains = [end["utilities"][g] - start["utilities"][g] for g in groups]
    gain = end["worst"] - start["worst"]
    reward = end["reward"] - start["reward"]
    mean = float(np.mean(gains))
    rows.append([one["policy"], end["kl"], *cells(end), gain, mean, reward])
    worst = np.min([*curve["utilities"].values()], axis=0)
    for title, values in (curve["utilities"] | {"worst-off": worst}).items():
      drawn = panels.Line(one["policy"], curve["kl"], values)
      lines.setdefault(title, []).append(drawn)
  distance = "KL from the reference, nats"
  rewards = [
    panels.Line(one["policy"], one["curve"]["kl"], one["curve"]["reward"])
    for one in rounds
  ]
  utilities = [
    panels.Panel(distance, "utility", drawn, title=title)
    for title, drawn in lines.items()
  ]
  return [
    html_report.Table(
      "What the policy is worth after each round",
      ["round", "KL", *groups, "worst-off", "gain of the worst-off",
       "gain, mean of groups", "gain by its own reward"],
      rows,
      "True utilities of answers to the same held-out prompts; KL from the "
      "reference in nats per response. Gains are those of one round. Where its "
      "own reward gains and the groups do not, the policy exploits errors of "
      "the reward.",
    ),
    html_report.Figure(
      "Rounds by distance from the reference",
      [
        *panels.alike(utilities, "xy"),
        panels.Panel(distance, "reward, deviations", rewards,
                     title="its own reward"),
      ],
      "One line per round, from where the last one ended. Utilities share "
      "their axes; each round's reward is in its own deviations, so its lines "
      "do not join.",
    ),
  ]  # fmt: skip
