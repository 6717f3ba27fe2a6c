"""Perplexity report: models on texts, compared with the first model."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxalign.runtime.plots import html_report
from jaxalign.runtime.plots.html_report import decimal


def headline(result: html_report.Result) -> str:
  """Perplexity of the first model, and how far the last is from it."""
  names = list(result["models"])
  first, last = (
    result["models"][name]["all"] for name in (names[0], names[-1])
  )
  said = (
    f"{names[0]} has a perplexity of {_interval(first)} on {first['texts']:,} "
    f"texts of {first['tokens']:,} tokens"
  )
  if len(names) == 1:
    return f"{said}."
  return f"{said}, {names[-1]} {_times(last)} times that."


def _interval(one: Mapping[str, Any]) -> str:
  if one["low"] is None:
    return decimal(one["value"])
  return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _times(one: Mapping[str, Any]) -> str:
  if one["ratio_low"] is None:
    return decimal(one["ratio"])
  return f"{one['ratio']:.3f} [{one['ratio_low']:.3f}, {one['ratio_high']:.3f}]"


def write(workdir: epath.Path, result: html_report.Result) -> None:
  """Writes report.html of the content of eval.json."""
  html_report.write_report(
    workdir / html_report.NAME,
    title="Perplexity of answers",
    headline=headline(result),
    sections=[
      html_report.Table(
        "Perplexity",
        ["model", "texts of", "texts", "over all tokens", "mean of texts",
         "median", "times the first model's"],
        [
          [name, subset, one["texts"], _interval(one), decimal(one["mean"]),
           decimal(one["median"]), _times(one)]
          for name, subsets in result["models"].items()
          for subset, one in subsets.items()
        ],
        "Tokens are those of each model's own tokenizer, so that models with "
        "different ones do not compare. Lower is likelier, not better.",
      )
    ],
    basis=f"95 % intervals over {result['intervals_over']} (bootstrap); those "
    "of a comparison are paired.",
  )  # fmt: skip
