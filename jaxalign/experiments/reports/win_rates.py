"""Win rate report: how often the first file's answers are preferred."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jaxalign.experiments.reports import label_shares
from jaxalign.runtime.plots import html_report, panels
from jaxalign.runtime.plots.html_report import percent, percent_interval, word

COLUMNS = (
  "win",
  "tie",
  "loss",
  "score",
  "low",
  "high",
  "gap",
  "gap_low",
  "gap_high",
)
NUM_SHOWN = 3  # prompts on the page


def score(rate: Mapping[str, Any]) -> Mapping[str, Any]:
  """The score of one judge with its interval, ties as half."""
  return {"value": rate["score"], "low": rate["low"], "high": rate["high"]}


def headline(rates: Mapping[str, Mapping[str, Any]]) -> str:
  """Who wins how often, against no difference."""
  said = []
  for name, kinds in rates.items():
    one = kinds["all"]
    if not one["num_pairs"]:
      continue
    even = one["low"] <= 0.5 <= one["high"]
    significant = "not significant" if even else "significant"
    said.append(
      f"{name} prefers the first file's answer in "
      f"{percent_interval(score(one))} of {one['num_pairs']:,} prompts, "
      f"{significant}"
    )
  if not said:
    return "No pair of answers was judged."
  return f"{'; '.join(said)}. No difference would be {percent(0.5, 0)}."


def write(
  workdir: epath.Path,
  result: html_report.Result,
  answers: Sequence[tuple[str, str, str]],
  files: Sequence[str | os.PathLike[str]],
) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page.
    result: content of eval.json.
    answers: every prompt with the answers of the first and the second file.
    files: that hold them.
  """
  rates, over = result["rates"], result["intervals_over"]
  flat = {
    f"{name}, {kind} prompts": rate
    for name, kinds in rates.items()
    for kind, rate in kinds.items()
  }
  seen = [score(rate) for rate in flat.values() if rate["num_pairs"]]
  html_report.write_report(
    workdir / html_report.NAME,
    title="Win rates of the first file against the second",
    headline=headline(rates),
    basis=f"95 % intervals over {over}, ties as half.",
    sections=[
      html_report.Figure(
        "Score of the first file",
        panels.Panel(
          "share of wins, ties as half", "",
          [panels.Intervals("", *([s[k] for s in seen] for k in
                                  ("value", "low", "high")))],
          rows=[name for name, rate in flat.items() if rate["num_pairs"]],
          uprights={"no difference": 0.5}, xlim=(0, 1),
        ),
      ),
      html_report.Texts(
        f"The first {min(NUM_SHOWN, len(answers))} prompts",
        [
          (prompt, {"first": first, "second": second})
          for prompt, first, second in answers[:NUM_SHOWN]
        ],
      ),
      html_report.Table(
        "Per judge and kind of prompt",
        ("judge", "prompts", "pairs", *map(word, COLUMNS)),
        [
          [name, kind, *(rate[c] for c in ("num_pairs", *COLUMNS))]
          for name, kinds in rates.items()
          for kind, rate in kinds.items()
        ],
        "The score counts ties as half, the gap is the mean difference of the "
        f"rewards; low and high are 95 % intervals over {over}.",
      ),
      *label_shares.section(
        "What the answers would be called", result.get("labels", {}), over
      ),
    ],
    links=html_report.links_to(
      workdir, [epath.Path(file).parent for file in files]
    ),
  )  # fmt: skip
