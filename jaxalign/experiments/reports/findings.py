"""What an audit found, in sentences."""

from collections.abc import Mapping
from typing import Any

import numpy as np

LEVEL = 0.05


def percent(share: Mapping[str, Any]) -> str:
  """A share with its interval, in per cent."""
  if share["value"] is None:
    return "–"
  return (
    f"{100 * share['value']:.1f} % "
    f"[{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
  )


def _off_half(share: Mapping[str, Any]) -> bool:
  return share["value"] is not None and not (
    share["low"] <= 0.5 <= share["high"]
  )


def in_words(result: Mapping[str, Any]) -> list[str]:
  """What to know before training, the most serious first.

  Args:
    result: content of eval.json.

  Returns:
    One sentence each.
  """
  said = []
  leaked = result["leakage"]
  if leaked is not None:
    number = result["splits"]["eval"]["pairs"]
    for name, count in leaked.items():
      if count:
        said.append(f"Leakage: {count:,} of {number:,} {LEAKS[name]}.")
    if not any(leaked.values()):
      said.append("No leakage between the splits was found.")
  for name, split in result["splits"].items():
    if split["rated"] is not None:
      said.append(
        f"{name}: {split['rated']['responses']:,} responses were judged alone."
      )
    if "pairs" in split:
      said += _of_split(name, split)
  said += [_structure_in_words(test) for test in result["structure"]]
  if not result["resolution"]:
    return [*said, "There are no pairs, so nothing to compare."]
  if not result["structure"]:
    said.append(
      "Group structure cannot be tested: no annotator, group or source takes "
      "two values."
    )
  return [*said, *(_shown(n, r) for n, r in result["resolution"].items())]


def _of_split(name: str, split: Mapping[str, Any]) -> list[str]:
  said = []
  repeats = split["repeats"]
  if repeats["contradicted"]:
    said.append(
      f"{name}: {repeats['contradicted']:,} pairs contradict an earlier one."
    )
  longer, first = split["longer_wins"]["all"], split["first_wins"]
  if _off_half(longer):
    said.append(
      f"{name}: the longer response was chosen in {percent(longer)}; report "
      "always-longer beside every model."
    )
  if _off_half(first):
    said.append(
      f"{name}: the response shown first was chosen in {percent(first)}."
    )
  if split["longer_than_max_length"]:
    said.append(
      f"{name}: {split['longer_than_max_length']:,} of {split['pairs']:,} "
      "pairs exceed max_length and lose the beginning of their prompt."
    )
  busiest = split["annotators"]["busiest_share"]
  if split["annotators"]["named"] > 5 and busiest > 0.1:
    said.append(f"{name}: one annotator judged {100 * busiest:.0f} % of pairs.")
  return said


LEAKS = {
  "prompts": "held-out pairs have a prompt of the training pairs",
  "near_prompts": "held-out pairs have almost a prompt of the training pairs",
  "responses": "held-out pairs hold a response of the training pairs",
  "pairs": "held-out pairs are training pairs",
  "annotators": "held-out pairs were judged by someone who judged training "
  "pairs",
  "ids": "held-out pairs have the id of a training pair",
}


def _structure_in_words(test: Mapping[str, Any]) -> str:
  named = f"{test['units']:,} {test['label']}s"
  p = f"p = {test['p_value']:.2g}"
  if test["p_value"] <= LEVEL:
    return f"Group structure: {named} do not share one taste ({p})."
  return f"No sign that {named} differ in taste ({p})."


def _shown(name: str, found: Mapping[str, float]) -> str:
  values = [
    "more than these can show"
    if np.isnan(found[key])
    else f"{100 * found[key]:.1f} points"
    for key in ("accuracy_difference", "ece_difference")
  ]
  return (
    f"Smallest difference that {found['n']:,} independent {name} show: "
    f"accuracy {values[0]}, ECE {values[1]}."
  )
