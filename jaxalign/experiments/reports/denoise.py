"""Denoising report: how many labels an ensemble contradicts, and which."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.experiments.reports import judge_agreement
from jaxalign.experiments.reports.denoise_numbers import Split
from jaxalign.runtime.io import metric_writer
from jaxalign.runtime.plots import figures, html_report
from jaxalign.runtime.plots.html_report import decimal, percent

TITLES = {
  "suspicious": (
    "Most suspicious",
    "The ensemble is surest that the other response is better.",
  ),
  "ambiguous": (
    "Most ambiguous",
    "Strength near 0 and the members disagree most: a tie, or a pair that "
    "different people would decide differently.",
  ),
}


class Shown(NamedTuple):
  """A pair on the page.

  Attributes:
    record: its texts and names.
    strength: mean gap over members.
    std: its spread.
  """

  record: Record
  strength: float
  std: float


def headline(results: Mapping[str, Mapping[str, Any]]) -> str:
  """How many training labels look wrong, and what a second judge says of it."""
  one = results["train"]
  said = (
    f"{percent(one['below_0'])} of {one['pairs']:,} training labels are "
    f"contradicted by an ensemble of {len(one['accuracy']['members'])} models."
  )
  judge = one["judge"]
  if judge is None:
    return f"{said} No second judge says whether it is right."
  return (
    f"{said} Of the {100 * judge['fraction']:g} % it trusts least, a second "
    f"judge contradicts {percent(judge['precision'])}, of all labels "
    f"{percent(judge['contradicted'])}."
  )


def write(
  workdir: epath.Path,
  results: Mapping[str, Mapping[str, Any]],
  splits: Mapping[str, Split],
  shown: Mapping[str, Sequence[Shown]],
  warnings: Sequence[str],
) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page, and may hold metrics.jsonl.
    results: numbers by split.
    splits: strengths by split.
    shown: training pairs by kind, see `TITLES`.
    warnings: what to mind about the data.
  """
  history = workdir / "metrics.jsonl"
  rows = metric_writer.read_rows(history) if history.exists() else []
  training = html_report.Figure(
    "Training", figures.training_curves(rows), "Means over members."
  )
  judged = {n: r["judge"] for n, r in results.items() if r["judge"] is not None}
  html_report.write_report(
    workdir / html_report.NAME,
    title="Strength of preferences under an ensemble",
    headline=headline(results),
    basis=html_report.ONE_SEED,
    sections=[
      *([_judged(judged)] if judged else ()),
      _quantiles(results),
      *(_figure(n, s, results[n]) for n, s in splits.items()),
      *(_pairs(kind, pairs) for kind, pairs in shown.items()),
      *([training] if rows else ()),
    ],
    warnings=warnings,
  )


def _quantiles(results: Mapping[str, Mapping[str, Any]]) -> html_report.Section:
  columns = [*next(iter(results.values()))["quantiles"]]
  rows = []
  for name, one in results.items():
    accuracy = one["accuracy"]
    ends = (min(accuracy["members"]), max(accuracy["members"]))
    shares = map(percent, (one["below_0"], *ends, accuracy["ensemble"]))
    cells = (*one["quantiles"].values(), one["mean"], one["mean_std"])
    rows.append([name, one["pairs"], *shares, *map(decimal, cells)])
  return html_report.Table(
    "Strength, in reward units",
    ["split", "pairs", "below 0", "worst member", "best", "ensemble", *columns,
     "mean", "mean spread"],
    rows,
    "Strength below 0 contradicts the label; members and ensemble: share of "
    "pairs ranked as labelled. The unit is that of the members' rewards, "
    "e-folds of odds.",
  )  # fmt: skip


def _judged(given: Mapping[str, Mapping[str, Any]]) -> html_report.Section:
  return html_report.Table(
    "Does low strength find the labels that a second judge contradicts?",
    ["split", "judged", "contradicted", "AUC", "weakest taken", "precision",
     "recall"],
    [
      [name, one["judged"], percent(one["contradicted"]), decimal(one["auc"]),
       f"{100 * one['fraction']:g} %", decimal(one["precision"]),
       decimal(one["recall"])]
      for name, one in given.items()
    ],
    "AUC: probability that a contradicted label is weaker than another; 0.5 is "
    "chance. Precision: share of the weakest labels that are contradicted; "
    "recall: share of contradicted labels among them.",
  )  # fmt: skip


def _figure(
  name: str, split: Split, result: html_report.Result
) -> html_report.Section:
  """How strengths are spread, and what goes with low ones."""
  column = lambda groups, key: [group[key] for group in groups]
  groups, judge = result["groups"], result["judge"]
  drawn = [
    figures.gap_histogram(split.strength),
    figures.against_strength(
      column(groups, "strength"),
      column(groups, "std"),
      label="standard deviation over members",
    ),
  ]
  if judge is not None and judge["groups"]:
    drawn.append(judge_agreement.panel(judge["groups"], unit="reward units"))
  return html_report.Figure(
    f"Strengths, {name}",
    drawn,
    "Strength is the mean reward gap over members, in favour of the label. "
    "Curves are means of groups of equally many pairs; intervals are over "
    f"{'pairs' if split.people is None else 'people'}.",
  )


def _pairs(kind: str, pairs: Sequence[Shown]) -> html_report.Section:
  title, note = TITLES[kind]
  samples = []
  for one in pairs:
    chosen, rejected = map(text_of, one.record.responses)
    where = filter(None, (one.record.source, one.record.id))
    texts = {
      "chosen": chosen,
      "rejected": rejected,
      "strength": f"{one.strength:.3f}, spread {one.std:.3f}",
      "where": ", ".join(where),
    }
    samples.append((text_of(one.record.prompt), texts))
  return html_report.Texts(f"{title} training pairs", samples, note)
