"""Reward model report: accuracy against baselines, errors, calibration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.experiments.reports import mixture
from jaxalign.runtime.io import metric_writer
from jaxalign.runtime.plots import figures, html_report, panels
from jaxalign.runtime.plots.html_report import (
  decimal,
  interval,
  percent,
  percent_interval,
  word,
)

SCORES = ("accuracy", "nll", "brier", "ece")
NUM_WRONG = 10  # pairs shown of those that are ranked wrong


def findings(result: html_report.Result) -> list[str]:
  """Each model beside its baselines; of one alone, two sentences."""
  beside = ", ".join(
    f"{word(name)} {accuracy:.3f}"
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


def headline(result: html_report.Result) -> str:
  """Whom the best model predicts how well, against what needs no model."""
  baselines = result["baselines"]["all"]
  beside = ", ".join(
    f"{word(name)} {percent(share)}" for name, share in baselines.items()
  )
  mixtures = result["mixtures"]
  said = [mixture.headline(scores) for scores in mixtures.values()]
  models = _single_models(result)
  if not models:
    return "\n\n".join([*said, f"Without a model, on all pairs: {beside}."])
  best = max(models, key=lambda name: models[name]["all"]["accuracy"]["value"])
  who = f"{best}, the best single model," if len(models) > 1 else "The model"
  scores = models[best]["all"]
  accuracy, bar = scores["accuracy"], max(baselines.values())
  verdict = "not significantly different from"
  if accuracy["low"] > bar or accuracy["high"] < bar:
    verdict = "above" if accuracy["low"] > bar else "below"
  said.append(
    f"{f'{best}, a single model,' if mixtures else who} ranks "
    f"{percent_interval(accuracy)} of {scores['num_pairs']:,} held-out pairs "
    f"as people did, {verdict} the best baseline: {beside}."
  )
  said += [
    mixture.placed(scores["new_users"])
    for scores in result.get("personal", {}).values()
    if scores["new_users"]
  ]
  worst = ", ".join(
    f"{one['name']} at {percent(one['accuracy'])}"
    for one in result["breakdown"]["models"][best]["worst"].values()
  )
  if worst:
    said.append(f"Worst served by it: {worst}.")
  return "\n\n".join(said)


def _of_people(result: html_report.Result) -> list[html_report.Section]:
  """New people of every model of personal rewards."""
  return [
    section
    for name, scores in result.get("personal", {}).items()
    if scores["new_users"]
    for section in mixture.new_users(
      name, scores["new_users"], "the reward that people share"
    )
  ]


def _single_models(result: html_report.Result) -> Mapping[str, Any]:
  """Scores of the models that are no heads of a mixture."""
  heads = tuple(f"{name}, head " for name in result["mixtures"])
  models = result["models"].items()
  return {k: v for k, v in models if not (heads and k.startswith(heads))}


def write(
  workdir: epath.Path,
  result: html_report.Result,
  rewards: Mapping[str, np.ndarray],
  num_bins: int,
  further: Sequence[html_report.Section] = (),
  records: Iterable[Record] = (),
) -> None:
  """Writes report.html, with the training curves if there was training.

  Args:
    workdir: gets the page, and may hold metrics.jsonl.
    result: content of eval.json.
    rewards: float32 [N, 2, H] per model name.
    num_bins: bins of the reliability diagram.
    further: sections before that of training.
    records: the N pairs, to show those that are ranked most wrong.
  """
  mixtures = result["mixtures"]
  sections: list[html_report.Section] = [
    *_accuracies(result),
    *mixture.sections(mixtures),
    *_of_people(result),
    *by_group(result["breakdown"]),
    *_most_wrong(rewards, records),
  ]
  for number, (name, values) in enumerate(rewards.items()):
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
        figures.reliability(curve),
        "Predicted against observed share of pairs in which one response beats "
        "the other, each pair counted in both orders. The band holds 95 of 100 "
        "perfectly calibrated models of this sample size.",
        folded=number > 0,
      ),
      html_report.Figure(
        f"Rewards of {name}",
        [
          figures.reward_histograms(chosen, rejected),
          figures.gap_histogram(gaps),
        ],
        "Only differences within a prompt mean anything; the level is "
        "arbitrary. A long wrong side is confident error.",
        folded=number > 0,
      ),
    ]
  html_report.write_report(
    workdir / html_report.NAME,
    title="Reward model",
    headline=headline(result),
    basis=f"95 % bootstrap intervals over {result['intervals_over']}, one "
    f"evaluation set. {html_report.ONE_SEED}",
    sections=[*sections, *further, *_training(workdir)],
    warnings=result["warnings"],
    links=html_report.links_to(
      workdir, (n for n in [*_single_models(result), *mixtures] if "/" in n)
    ),
  )


def write_unevaluated(workdir: epath.Path, warnings: Sequence[str]) -> None:
  """Writes report.html of a model that nothing was held out for.

  Args:
    workdir: gets the page, and holds metrics.jsonl.
    warnings: what to mind.
  """
  html_report.write_report(
    workdir / html_report.NAME,
    title="Reward model",
    headline="Trained, not evaluated: no held-out pairs were given.",
    sections=_training(workdir),
    warnings=warnings,
  )


def _training(workdir: epath.Path) -> list[html_report.Section]:
  """The curves of the training that a workdir holds, if it does."""
  history = workdir / "metrics.jsonl"
  rows = metric_writer.read_rows(history) if history.exists() else []
  if not rows:
    return []
  note = (
    f"Per step; from {panels.SMOOTHED} steps on a running mean, with the steps "
    "pale behind it."
  )
  drawn = figures.training_curves(rows)
  return [html_report.Figure("Training", drawn, note)]


def _accuracies(result: html_report.Result) -> list[html_report.Section]:
  """The models beside the baselines, as a figure, and all their scores."""
  models = result["models"]
  shown = [by_source["all"]["accuracy"] for by_source in models.values()]
  names = list(next(iter(result["baselines"].values())))
  beside = [result["baselines"]["all"][name] for name in names]
  ends = lambda key: [*(one[key] for one in shown), *beside]
  figure = html_report.Figure(
    "Accuracy against baselines",
    panels.Panel(
      "accuracy on held-out pairs",
      "",
      [panels.Intervals("", ends("value"), ends("low"), ends("high"))],
      rows=[*models, *map(word, names)],
    ),
    "Lines are 95 % intervals.",
  )
  rows, more = [], []
  for name, by_source in models.items():
    for source, scores in by_source.items():
      floor = scores["ece"]["noise_floor"]
      accuracy, nll, brier, ece = (interval(scores[key]) for key in SCORES)
      rows.append([name, source, scores["num_pairs"], accuracy, nll])
      lowest = interval(floor | {"value": floor["mean"]})
      more.append([name, source, brier, ece, lowest])
  lost = ", ".join(f"{k} {v}" for k, v in result["lost"].items())
  return [
    figure,
    html_report.Table(
      "Held-out scores with 95 % bootstrap intervals",
      ["model", "source", "pairs", "accuracy", "NLL, nats"],
      rows,
    ),
    html_report.Table(
      "Brier score and expected calibration error (ECE)",
      ["model", "source", "Brier score", "ECE", "ECE noise floor"],
      more,
      "The noise floor is the ECE that a perfectly calibrated model with these "
      "confidences shows at this sample size: mean and 5–95 % range. An ECE "
      "inside it says nothing against the model.",
      folded=True,
    ),
    html_report.Table(
      "Accuracy without a reward model",
      ["source", *map(word, names)],
      [
        [source, *(decimal(scores[name]) for name in names)]
        for source, scores in result["baselines"].items()
      ],
      f"Held-out pairs lost or cut while reading: {lost or 'none'}.",
    ),
  ]


def _most_wrong(
  rewards: Mapping[str, np.ndarray], records: Iterable[Record]
) -> list[html_report.Section]:
  """The pairs that every model, or every head, is surest of and wrong."""
  gaps = np.stack([v[:, 0, 0] - v[:, 1, 0] for v in rewards.values()])
  least = gaps.max(axis=0)
  order = np.argsort(least, kind="stable")[:NUM_WRONG]
  order = order[least[order] < 0]
  picked = {int(row) for row in order}
  found = {i: record for i, record in enumerate(records) if i in picked}
  samples = []
  for row in filter(found.__contains__, map(int, order)):
    record = found[row]
    chosen, rejected = map(text_of, record.responses[:2])
    where = filter(None, (record.group, record.source, record.id))
    texts = {
      "people chose": chosen,
      f"the model, by {-least[row]:.2f}": rejected,
      "where": ", ".join(dict.fromkeys(map(str, where))) or "–",
    }
    samples.append((text_of(record.prompt), texts))
  if not samples:
    return []
  who = "the model" if len(rewards) == 1 else f"all {len(rewards)} models"
  return [
    html_report.Texts(
      "Most confidently wrong pairs",
      samples,
      f"Held-out pairs that {who} ranked against the vote by the widest gap, "
      "in reward units. Read them before trusting either side: some are "
      "mistakes of the label.",
    )
  ]


Section = html_report.Section


def by_group(found: Mapping[str, Any]) -> list[Section]:
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
