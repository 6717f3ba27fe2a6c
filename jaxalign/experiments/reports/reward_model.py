"""What an evaluation looks like: tables and pictures on one page."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.experiments.reports import group_metrics, mixture
from jaxalign.runtime.io import metric_writer
from jaxalign.runtime.plots import curves, html_report
from jaxalign.runtime.plots import rewards as reward_plots

HEADINGS = {
  "accuracy": "accuracy",
  "nll": "NLL, nats",
  "brier": "Brier score",
  "ece": "ECE",
}


def interval(score: Mapping[str, float]) -> str:
  """A score with its 95 % interval."""
  return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def in_words(scores: Mapping[str, Any]) -> str:
  """All scores of one model on one line."""
  parts = [f"{name} {interval(scores[name])}" for name in HEADINGS]
  floor = scores["ece"]["noise_floor"]
  parts[-1] += f" (noise floor {floor['mean']:.3f}, up to {floor['high']:.3f})"
  return f"{scores['num_pairs']} pairs: " + ", ".join(parts)


def findings(result: Mapping[str, Any]) -> list[str]:
  """Each model beside its baselines; of one alone, two sentences.

  Args:
    result: content of eval.json.
  """
  beside = ", ".join(
    f"{name.replace('_', ' ')} {accuracy:.3f}"
    for name, accuracy in result["baselines"]["all"].items()
  )
  said = []
  for name, by_source in result["models"].items():
    scores = by_source["all"]
    ece = scores["ece"]
    worst = "".join(
      f"worst {kind} {part['name']} {part['accuracy']:.3f}; "
      for kind, part in result["breakdown"]["models"][name]["worst"].items()
    )
    said.append(
      f"{name}: accuracy {interval(scores['accuracy'])} on "
      f"{scores['num_pairs']:,} held-out pairs; baselines: {beside}"
    )
    if len(result["models"]) > 1:
      continue
    said.append(
      f"{name}: {worst}NLL {scores['nll']['value']:.3f} (chance 0.693), ECE "
      f"{ece['value']:.3f} (up to {ece['noise_floor']['high']:.3f} where "
      "calibrated)"
    )
  return said


def write(
  workdir: epath.Path,
  result: Mapping[str, Any],
  rewards: Mapping[str, np.ndarray],
  num_bins: int,
  further: Sequence[html_report.Table | html_report.Figure] = (),
) -> None:
  """Writes report.html, with the training curves if there was training.

  Args:
    workdir: gets the page, and may hold metrics.jsonl.
    result: content of eval.json.
    rewards: float32 [N, 2, H] per model name.
    num_bins: bins of the reliability diagram.
    further: sections before that of training.
  """
  sections: list[html_report.Table | html_report.Figure | html_report.Text] = [
    _scores(result),
    _baselines(result),
    *group_metrics.sections(result["breakdown"]),
    *mixture.sections(result["mixtures"]),
  ]
  for name, values in rewards.items():
    chosen, rejected = values[:, 0, 0], values[:, 1, 0]
    gaps = chosen - rejected
    curve = jax.device_get(
      jax.jit(metrics.reliability_curve, static_argnames="num_bins")(
        gaps, num_bins=num_bins
      )
    )
    sections += [
      html_report.Figure(
        f"Reliability of {name}",
        reward_plots.reliability_diagram(curve),
        "Predicted against observed share of pairs in which one response beats "
        "the other, each pair counted in both orders. The band holds 95 of 100 "
        "perfectly calibrated models of this sample size.",
      ),
      html_report.Figure(
        f"Rewards of {name}",
        reward_plots.reward_histograms(chosen, rejected),
        "Only differences within a prompt mean anything; the level is "
        "arbitrary.",
      ),
      html_report.Figure(
        f"Reward gaps of {name}",
        reward_plots.gap_histogram(gaps),
        "Chosen minus rejected; a long wrong side is confident error.",
      ),
    ]
  sections += [*further, *_training(workdir)]
  html_report.write_report(
    workdir / "report.html",
    title="Reward model evaluation",
    summary="\n\n".join(
      f"{name}: {in_words(scores['all'])}"
      for name, scores in result["models"].items()
    ),
    sections=sections,
    warnings=result["warnings"],
  )


def write_unevaluated(workdir: epath.Path, warnings: Sequence[str]) -> None:
  """Writes report.html of a model that nothing was held out for.

  Args:
    workdir: gets the page, and holds metrics.jsonl.
    warnings: what to mind.
  """
  html_report.write_report(
    workdir / "report.html",
    title="Reward model, not evaluated",
    summary="",
    sections=_training(workdir),
    warnings=warnings,
  )


def _training(workdir: epath.Path) -> list[html_report.Figure]:
  """The curves of the training that a workdir holds, if it does."""
  history = workdir / "metrics.jsonl"
  rows = metric_writer.read_rows(history) if history.exists() else []
  if not rows:
    return []
  note = (
    f"Per step; from {curves.SMOOTHED} steps on a running mean, with the steps "
    "pale behind it."
  )
  return [html_report.Figure("Training", curves.training_curves(rows), note)]


def _scores(result: Mapping[str, Any]) -> html_report.Table:
  rows = []
  for name, by_source in result["models"].items():
    for source, scores in by_source.items():
      floor = scores["ece"]["noise_floor"]
      rows.append(
        [
          name,
          source,
          scores["num_pairs"],
          *(interval(scores[key]) for key in HEADINGS),
          f"{floor['mean']:.3f} [{floor['low']:.3f}, {floor['high']:.3f}]",
        ]
      )
  return html_report.Table(
    title="Held-out scores with 95 % bootstrap intervals",
    columns=["model", "source", "pairs", *HEADINGS.values(), "ECE noise floor"],
    rows=rows,
    note="The noise floor is the ECE that a perfectly calibrated model with "
    "these confidences shows at this sample size: mean and 5–95 % range. An "
    "ECE inside it says nothing against the model.",
  )


def _baselines(result: Mapping[str, Any]) -> html_report.Table:
  names = list(next(iter(result["baselines"].values())))
  rows = [
    [source, *(f"{scores[name]:.3f}" for name in names)]
    for source, scores in result["baselines"].items()
  ]
  lost = ", ".join(f"{k} {v}" for k, v in result["lost"].items())
  return html_report.Table(
    title="Accuracy without a reward model",
    columns=["source", *(name.replace("_", " ") for name in names)],
    rows=rows,
    note=f"Held-out pairs lost or cut while reading: {lost or 'none'}.",
  )
