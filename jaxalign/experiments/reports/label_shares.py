"""Label share table of a page: what a crowd would call some answers."""

from collections.abc import Mapping
from typing import Any

from jaxalign.runtime.plots import html_report
from jaxalign.runtime.plots.html_report import decimal, interval


def section(
  title: str, summaries: Mapping[str, Mapping[str, Any] | None], over: str
) -> list[html_report.Section]:
  """A table with a row per label and a column for each set of answers.

  Args:
    title: of the section.
    summaries: of `policy.label_shares.summarise` by what was answered; None
      where no labels are predicted.
    over: what intervals are over, "prompts" or "people".

  Returns:
    The section; nothing without labels.
  """
  given = {name: one for name, one in summaries.items() if one is not None}
  if not given:
    return []
  labels = next(iter(given.values()))["names"]
  share = lambda one, k: (
    f"{html_report.percent_interval(one['shares'][k])} "
    f"± {100 * one['shares'][k]['std']:.1f}"
  )
  worth = lambda one: (
    f"{interval(one['worth'])} ± {decimal(one['worth']['std'])}"
  )
  return [
    html_report.Table(
      title,
      ["label", *given],
      [
        *([name, *(share(one, k) for one in given.values())]
          for k, name in enumerate(labels)),
        ["worth", *(worth(one) for one in given.values())],
      ],
      "Mean shares over prompts as the source of rewards predicts them, with "
      f"95 % intervals over {over} and, behind ±, the standard deviation over "
      "prompts. Worth is the value that the shares imply, in the unit of the "
      "source.",
    )
  ]  # fmt: skip
