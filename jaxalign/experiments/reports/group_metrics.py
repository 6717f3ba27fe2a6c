"""What `breakdown` found, as tables and pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxalign.runtime.plots import heatmaps, html_report

Section = html_report.Table | html_report.Figure | html_report.Text


def sections(found: Mapping[str, Any]) -> list[Section]:
  """Tables and pictures of `breakdown.of_models`."""
  models = found["models"]
  made: list[Section] = []
  for kind in sorted(
    {k for scores in models.values() for k in scores["worst"]}
  ):
    made += _by_part(models, kind)
  if any(scores["annotators"] for scores in models.values()):
    made.append(_annotators(models))
  made += [_calibration(models), _gaps(models)]
  if found["agreement"] is not None:
    made += _agreement(found["agreement"])
  return made


def _by_part(models: Mapping[str, Any], kind: str) -> list[Section]:
  """Accuracy of each model on each part: the cross-evaluation matrix."""
  parts = [*next(iter(models.values()))["accuracy"][kind]]
  values = [
    [scores["accuracy"][kind][part] for part in parts]
    for scores in models.values()
  ]
  table = html_report.Table(
    title=f"Accuracy by {kind}",
    columns=["model", *parts, f"worst {kind}", "its accuracy"],
    rows=[
      [
        name,
        *(f"{value:.3f}" for value in row),
        models[name]["worst"][kind]["name"],
        f"{models[name]['worst'][kind]['accuracy']:.3f}",
      ]
      for name, row in zip(models, values, strict=True)
    ],
    note="A mean over all pairs counts the largest part most; the worst part "
    "is what fairness is about.",
  )
  picture = html_report.Figure(
    f"Accuracy by {kind}",
    heatmaps.heat_map(
      np.array(values), [*models], parts, label="accuracy", low=0.0, high=1.0
    ),
    "One row per model, one column per part of the held-out pairs.",
  )
  return [table, picture] if len(values) > 1 else [table]


def _annotators(models: Mapping[str, Any]) -> html_report.Table:
  quantiles = [*next(iter(models.values()))["annotators"]["quantiles"]]
  return html_report.Table(
    title="Accuracy by annotator",
    columns=[
      "model",
      "annotators",
      "mean",
      *(f"{100 * float(q):.0f} %" for q in quantiles),
    ],
    rows=[
      [
        name,
        scores["annotators"]["number"],
        f"{scores['annotators']['mean']:.3f}",
        *(f"{scores['annotators']['quantiles'][q]:.3f}" for q in quantiles),
      ]
      for name, scores in models.items()
    ],
    note="Quantiles over annotators with five pairs or more. A low 5 % with a "
    "high mean is a minority that the model overrules.",
  )


def _calibration(models: Mapping[str, Any]) -> html_report.Table:
  return html_report.Table(
    title="Calibration at other numbers of bins",
    columns=["model", "bins", "ECE", "MCE", "ACE"],
    rows=[
      [
        name,
        int(bins),
        *(f"{errors[key]:.3f}" for key in ("ece", "mce", "ace")),
      ]
      for name, scores in models.items()
      for bins, errors in scores["calibration"].items()
    ],
    note="ECE weighs bins by their pairs, MCE is the worst bin, ACE has bins "
    "of equal numbers of pairs.",
  )


def _gaps(models: Mapping[str, Any]) -> html_report.Table:
  size = lambda value: "none" if value is None else f"{value:.2f}"
  return html_report.Table(
    title="Reward gaps and their outliers",
    columns=["model", "pairs", "count", "mean gap", "outliers", "their mean"],
    rows=[
      [
        name,
        f"ranked {side}",
        scores["gaps"][side]["count"],
        size(scores["gaps"][side]["mean"]),
        scores["gaps"][side]["outlier_count"],
        size(scores["gaps"][side]["outlier_mean"]),
      ]
      for name, scores in models.items()
      for side in ("right", "wrong")
    ],
    note="Outliers lie above the upper whisker of a box plot. Large gaps on "
    "pairs ranked wrong are confident error.",
  )


def _agreement(found: Mapping[str, Any]) -> list[Section]:
  names = found["names"]
  return [
    html_report.Figure(
      "How far models differ",
      heatmaps.heat_map(
        np.array(found["diversity"]),
        names,
        names,
        label="mean difference of win probabilities",
      ),
      "0 where two models are of one mind, 1 where they are sure of the "
      "opposite.",
    ),
    html_report.Table(
      title="Agreement and drift",
      columns=["model", *names, "drift"],
      rows=[
        [name, *(f"{share:.3f}" for share in shares), f"{drift:.3f}"]
        for name, shares, drift in zip(
          names, found["same_side"], found["drift"], strict=True
        )
      ],
      note="Share of pairs that two models rank alike; drift is the standard "
      "deviation of a model's rewards from the mean of all models, in reward "
      "units.",
    ),
  ]
