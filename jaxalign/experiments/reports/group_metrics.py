"""Report sections on accuracy by group and annotator, and on calibration."""

from collections.abc import Mapping
from typing import Any

from jaxalign.runtime.plots import html_report, panels
from jaxalign.runtime.plots.html_report import decimal

Section = html_report.Section


def sections(found: Mapping[str, Any]) -> list[Section]:
  """Tables and figures of `reward_model.group_metrics.of_models`."""
  models = found["models"]
  kinds = {kind for scores in models.values() for kind in scores["worst"]}
  kinds -= {"source"}  # the table of all scores has a row for each
  made: list[Section] = [_by_part(models, kind) for kind in sorted(kinds)]
  if any(scores["annotators"] for scores in models.values()):
    made.append(_annotators(models))
  made += [_calibration(models), _gaps(models)]
  if found["agreement"] is not None:
    made += _agreement(found["agreement"])
  return made


def _by_part(models: Mapping[str, Any], kind: str) -> Section:
  """Accuracy of each model on each part of the held-out pairs."""
  parts = [*next(iter(models.values()))["accuracy"][kind]]
  values = [
    [scores["accuracy"][kind][part] for part in parts]
    for scores in models.values()
  ]
  rows = []
  for name, row in zip(models, values, strict=True):
    worst = models[name]["worst"][kind]
    at = decimal(worst["accuracy"])
    rows.append([name, *map(decimal, row), worst["name"], at])
  return html_report.Table(
    f"Accuracy by {kind}",
    ["model", *parts, f"worst {kind}", "its accuracy"],
    rows,
    "A mean over all pairs counts the largest part most; the worst part is "
    "what fairness is about.",
  )


def _annotators(models: Mapping[str, Any]) -> Section:
  quantiles = [*next(iter(models.values()))["annotators"]["quantiles"]]
  rows = []
  for name, scores in models.items():
    people = scores["annotators"]
    values = (people["quantiles"][q] for q in quantiles)
    means = map(decimal, (people["mean"], *values))
    rows.append([name, people["number"], *means])
  return html_report.Table(
    "Accuracy by annotator",
    ["model", "annotators", "mean",
     *(f"{100 * float(q):.0f} %" for q in quantiles)],
    rows,
    "Quantiles over annotators with five pairs or more. A low 5 % with a high "
    "mean is a minority that the model overrules.",
  )  # fmt: skip


def _calibration(models: Mapping[str, Any]) -> Section:
  keys = ("ece", "mce", "ace")
  return html_report.Table(
    "Calibration errors of three kinds and bin counts",
    ["model", "bins", "ECE", "MCE", "ACE"],
    [
      [name, int(bins), *(decimal(errors[key]) for key in keys)]
      for name, scores in models.items()
      for bins, errors in scores["calibration"].items()
    ],
    "ECE weighs bins by their pairs, MCE is the worst bin, ACE has bins of "
    "equal numbers of pairs.",
    folded=True,
  )


def _gaps(models: Mapping[str, Any]) -> Section:
  rows = []
  for name, scores in models.items():
    for side in ("right", "wrong"):
      gaps = scores["gaps"][side]
      mean, far = (decimal(gaps[k], 2) for k in ("mean", "outlier_mean"))
      kind = f"ranked {side}"
      rows.append([name, kind, gaps["count"], mean, gaps["outlier_count"], far])
  return html_report.Table(
    "Reward gaps and their outliers",
    ["model", "pairs", "count", "mean gap", "outliers", "their mean"],
    rows,
    "Outliers lie above the upper whisker of a box plot. Large gaps on pairs "
    "ranked wrong are confident error.",
    folded=True,
  )


def _agreement(found: Mapping[str, Any]) -> list[Section]:
  names = found["names"]
  rows = [
    [name, *map(decimal, shares), decimal(drift)]
    for name, shares, drift in zip(
      names, found["same_side"], found["drift"], strict=True
    )
  ]
  label = "mean difference of win probabilities"
  return [
    html_report.Figure(
      "How far models differ",
      panels.HeatMap(found["diversity"], names, names, label=label),
      "0 where two models agree, 1 where they are sure of the opposite.",
    ),
    html_report.Table(
      "Agreement and drift",
      ["model", *names, "drift"],
      rows,
      "Share of pairs that two models rank alike; drift is the standard "
      "deviation of a model's rewards from the mean of all models, in reward "
      "units.",
      folded=True,
    ),
  ]
