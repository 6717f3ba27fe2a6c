"""RewardBench report: sections and subsets per output of a reward source."""

from typing import Any

from etils import epath

from jaxalign.runtime.plots import html_report, panels
from jaxalign.runtime.plots.html_report import percent

NORMAL = 1.96


def headline(result: dict[str, Any]) -> str:
  """The overall score of each output, with chance beside it."""
  said = [
    f"{name} scores {percent(scores['overall'])} on RewardBench "
    f"{result['version']}"
    for name, scores in result["outputs"].items()
  ]
  chance = 0.5 if result["version"] == 1 else 0.25
  return (
    f"{'; '.join(said)}, the mean of the sections that the files have. A "
    f"random reward would have {percent(chance, 0)} of pairs or best of four."
  )


def write(workdir: epath.Path, result: dict[str, Any]) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page.
    result: content of eval.json.
  """
  outputs = result["outputs"]
  rows = [
    (f"{name}, {section}" if len(outputs) > 1 else section, each)
    for name, scores in outputs.items()
    for section, each in scores["sections"].items()
  ]
  spread = lambda each, sign: min(
    max(each["value"] + sign * NORMAL * (each["error"] or 0.0), 0.0), 1.01
  )
  html_report.write_report(
    workdir / html_report.NAME,
    title=f"RewardBench {result['version']}",
    headline=headline(result),
    basis=(
      "Intervals are 1.96 standard errors over prompts; the score of ties has "
      "none."
    ),
    sections=[
      html_report.Figure(
        "Sections",
        panels.Panel(
          "score", "",
          [panels.Intervals("", [e["value"] for _, e in rows],
                            [spread(e, -1) for _, e in rows],
                            [spread(e, 1) for _, e in rows])],
          rows=[name for name, _ in rows],
          xlim=(0, 1.01),
        ),
      ),
      html_report.Table(
        "Sections and their mean",
        ("output", "section", "score", "standard error", "prompts"),
        [
          *([name, section, each["value"], each["error"], each["number"]]
            for name, scores in outputs.items()
            for section, each in scores["sections"].items()),
          *([name, "mean of sections", scores["overall"], None, None]
            for name, scores in outputs.items()),
        ],
        "Of version 1 a section is the mean of its subsets, weighted by their "
        "official sizes; math-prm counts as 984.",
      ),
      html_report.Table(
        "Subsets",
        ("output", "subset", "score", "standard error", "prompts"),
        [
          [name, subset, each["value"], each["error"], each["number"]]
          for name, scores in outputs.items()
          for subset, each in scores["subsets"].items()
        ],
      ),
    ],
  )  # fmt: skip
