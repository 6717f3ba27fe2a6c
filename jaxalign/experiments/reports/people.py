"""People report: whom a reward model serves, and what people differ on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxalign.experiments.reward_model import people_scores
from jaxalign.runtime.plots import html_report, panels, style
from jaxalign.runtime.plots.html_report import (
  decimal,
  interval,
  percent,
)

JITTER = 0.012  # of a dot, so that equal ones are seen to be several
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def group_name(number: int) -> str:
  """The name of a group found, largest first."""
  return f"group {NAMES[number % len(NAMES)]}"


def _with_interval(score: Mapping[str, Any]) -> str:
  """A share in per cent with its interval, where there is one."""
  if score["low"] is None:
    return percent(score["value"])
  return html_report.percent_interval(score)


def _who(result: html_report.Result) -> str:
  return "The model" if result["own_reward"] else "A pooled head on the model"


def _significant(score: Mapping[str, Any]) -> bool:
  return score["low"] is not None and not score["low"] <= 0 <= score["high"]


def findings(result: html_report.Result) -> list[str]:
  """Three sentences: everybody, the groups, the worst served tenth."""
  scores, number = result["accuracy"], result["num_pairs"]
  gain = scores["gain"]
  points = f"{100 * gain['value']:+.1f} points"
  if gain["low"] is not None:
    points += f" [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
  worst = result["worst_tenth"]
  groups = result["groups"]
  said = [
    f"{_who(result)} ranks {_with_interval(scores['before'])} of the pairs of "
    f"{result['people']:,} people as they did (chance 50 %, always longer "
    f"{percent(result['always_longer'])}); after {number} of their own pairs "
    f"{_with_interval(scores['after'])}, {points}"
    f"{'' if _significant(gain) else ', not significant'}.",
  ]
  if result["components"] == 1:
    said.append(
      "One taste explains people whom the heads have not met as well as "
      "several do: no latent groups were found."
    )
  else:
    sizes = " / ".join(percent(one["share"], 0) for one in groups)
    said.append(
      f"{result['components']} latent groups explain people whom the heads "
      f"have not met better than one: {sizes} of the people."
    )
  said.append(
    f"The tenth of people who are served worst: "
    f"{percent(worst['before']['value'])}, after {number} of their own pairs "
    f"{percent(worst['after']['value'])}; if all were served alike, chance "
    f"would make it {percent(worst['before']['if_alike'])}."
  )
  return said


def headline(result: html_report.Result) -> str:
  """`findings`, a paragraph each."""
  return "\n\n".join(findings(result))


def write(
  workdir: epath.Path, result: html_report.Result, dots: people_scores.Dots
) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page.
    result: content of eval.json.
    dots: a person each.
  """
  html_report.write_report(
    workdir / html_report.NAME,
    title="Whom does this reward model serve?",
    headline=headline(result),
    sections=[
      _dots(result, dots),
      *_statements(result),
      *_groups(result),
      *_curve(result),
      _numbers(result),
      _tried(result),
    ],
    basis="95 % intervals over people (bootstrap). Nobody is scored by heads "
    "that have learned from them, nor on a text of the pairs that place them; "
    "the number "
    "of groups was chosen by the likelihood of the same people. "
    + html_report.ONE_SEED,
    links=html_report.links_to(workdir, [result["model"]]),
  )


def _dots(
  result: html_report.Result, dots: people_scores.Dots
) -> html_report.Section:
  """Every person, before and after, and everybody in order."""
  rng = np.random.default_rng(0)
  spread = rng.uniform(-JITTER, JITTER, (2, len(dots.before)))
  marks: list[panels.Mark] = []
  for k in range(-1, len(result["groups"])):
    mine = dots.group == k
    if not mine.any() or (k < 0 and len(result["groups"])):
      continue
    colour = style.colour(k) if k >= 0 else style.GREY
    name = group_name(k) if len(result["groups"]) > 1 else "mean"
    marks += [
      panels.Line(
        "",
        dots.before[mine] + spread[0, mine],
        dots.after[mine] + spread[1, mine],
        colour=colour,
        joined=False,
      ),
      panels.Line(
        name,
        [dots.before[mine].mean()],
        [dots.after[mine].mean()],
        colour=colour,
        joined=False,
        star=True,
      ),
    ]
  ends = [-0.03, 1.03]
  marks.append(
    panels.Line("no change", ends, ends, colour=style.GREY, dashed=False)
  )
  number = result["num_pairs"]
  people = 100 * (np.arange(len(dots.before)) + 0.5) / len(dots.before)
  order = [
    panels.Line(name, people, np.sort(values), colour=colour, joined=False)
    for name, values, colour in (
      ("without own pairs", dots.before, style.GREY),
      (f"after {number} own pairs", dots.after, style.BLUE),
    )
  ]
  return html_report.Figure(
    "Each person a dot",
    [
      panels.Panel(
        "accuracy without own pairs",
        f"accuracy after {number} own pairs",
        marks,
        xlim=(ends[0], ends[1]),
        ylim=(ends[0], ends[1]),
        size=(5.0, 4.6),
        aside=True,
      ),
      panels.Panel(
        "people from the worst served to the best, per cent",
        "accuracy on the same pairs",
        order,
        levels={"chance": 0.5},
        ylim=(ends[0], ends[1]),
        size=(5.0, 4.6),
        aside=True,
      ),
    ],
    f"{result['people']:,} people, on {result['pairs']:,} pairs beyond the "
    f"first {number} of each, of other texts. Left: above the line are people "
    "who are served better once a few of their own pairs are known; stars are "
    "means. Equal dots are moved apart a little. Right: both are sorted, "
    "so a place need not be the same person.",
  )


def _statements(result: html_report.Result) -> list[html_report.Section]:
  found = result["statements"]
  names = [group_name(k) for k in range(len(result["groups"]))]
  if len(names) < 2:
    names = ["everybody"]
  titles = {
    "unite": "Statements that unite",
    "divide": "Statements that divide",
  }
  notes = {
    "unite": "Preferred in every group: the share of comparisons that the "
    "statement won, a mean over people. Half is indifference.",
    "divide": "Where the groups are furthest apart."
    if len(names) > 1
    else "Where people are closest to an even split.",
  }
  return [
    html_report.Table(
      titles[name],
      ["statement", *names, "people"],
      [
        [
          html_report.beginning(line["text"]),
          *(percent(share, 0) for share in line["shares"]),
          line["people"],
        ]
        for line in lines
      ],
      notes[name],
    )
    for name, lines in found.items()
    if lines
  ]


def _groups(result: html_report.Result) -> list[html_report.Section]:
  if len(result["groups"]) < 2:
    return []
  known = result["known_groups"]
  note = "A person counts for the group that all of their pairs make likeliest."
  if known is not None:
    note += (
      f" Under the best naming {percent(known['agreement'])} of people are in "
      f"the group that the data name ({', '.join(known['names'])}); naming "
      f"everybody the largest would give {percent(known['largest_alone'])}."
    )
  return [
    html_report.Table(
      "Groups found",
      ["", "people", "share", "people scored", "accuracy without own pairs",
       f"after {result['num_pairs']}"],
      [
        [
          group_name(k), one["people"], percent(one["share"], 0),
          one["scored"], decimal(one["before"]), decimal(one["after"]),
        ]
        for k, one in enumerate(result["groups"])
      ],
      note,
    )
  ]  # fmt: skip


def _curve(result: html_report.Result) -> list[html_report.Section]:
  lines = result["curve"]
  if len(lines) < 2:
    return []
  seen = [one["pairs_seen"] for one in lines]
  values = [one["value"] for one in lines]
  errors = [
    0.0 if one["low"] is None else (one["high"] - one["low"]) / 2
    for one in lines
  ]
  return [
    html_report.Figure(
      "Accuracy after more and more pairs of a person",
      panels.Panel(
        "pairs seen of a person",
        "accuracy on later pairs",
        [panels.Line("all people", seen, values, error=errors)],
        levels={"chance": 0.5},
      ),
      f"The same later pairs of {lines[0]['people']:,} people throughout; bars "
      "are 95 % intervals over people.",
    )
  ]


def _numbers(result: html_report.Result) -> html_report.Section:
  scores, worst = result["accuracy"], result["worst_tenth"]
  cell = lambda score: (
    decimal(score["value"]) if score["low"] is None else interval(score)
  )
  number = result["num_pairs"]
  return html_report.Table(
    "Accuracy with 95 % intervals over people",
    ["", "all people", "worst served tenth", "if all were served alike"],
    [
      [
        "without own pairs",
        cell(scores["before"]),
        cell(worst["before"]),
        decimal(worst["before"]["if_alike"]),
      ],
      [
        f"after {number} own pairs",
        cell(scores["after"]),
        cell(worst["after"]),
        decimal(worst["after"]["if_alike"]),
      ],
      ["gain", cell(scores["gain"]), None, None],
      [
        "a pooled head on the same features",
        cell(scores["pooled_head"]),
        None,
        None,
      ],
      ["always longer", decimal(result["always_longer"]), None, None],
    ],
    f"{result['people']:,} of {result['people_read']:,} people have enough "
    f"pairs to be scored; {result['texts']:,} texts. The last column is what "
    "the worst tenth would look like by chance, were everybody predicted "
    "equally well.",
  )


def _tried(result: html_report.Result) -> html_report.Section:
  return html_report.Table(
    "How many groups",
    ["groups", "log-likelihood, nats per pair", "below the best",
     "standard error over people", "ridge"],
    [
      [
        line["components"], decimal(line["log_likelihood"], 4),
        decimal(line["below_best"], 4), decimal(line["standard_error"], 4),
        line["ridge"],
      ]
      for line in result["tried"]
    ],
    "Of people whom the heads have not met. Kept is the smallest number within "
    f"one standard error of the best: {result['components']}.",
    folded=True,
  )  # fmt: skip
