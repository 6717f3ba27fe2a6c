"""What the denoise stage found: numbers, pictures and pairs to look at."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.experiments.reports.denoise_numbers import Split
from jaxalign.runtime.io import metric_writer
from jaxalign.runtime.plots import curves, html_report, rewards

MAX_CHARACTERS = 600  # of a prompt's end and of a response's beginning

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


def in_words(name: str, result: Mapping[str, Any]) -> str:
  """The numbers of one split on one line."""
  accuracy = result["accuracy"]
  members = accuracy["members"]
  words = (
    f"{name}: {result['pairs']:,} pairs, {100 * result['below_0']:.1f} % with "
    f"strength below 0, mean strength {result['mean']:.3f}; members rank "
    f"{100 * min(members):.1f} to {100 * max(members):.1f} % as labelled, "
    f"together {100 * accuracy['ensemble']:.1f} %"
  )
  judge = result["judge"]
  if judge is None:
    return words
  return (
    f"{words}; a second judge contradicts {100 * judge['contradicted']:.1f} % "
    f"of {judge['judged']:,} labels, AUC of low strength "
    f"{_decimal(judge['auc'])}, among the weakest {100 * judge['fraction']:g} "
    f"% precision {_decimal(judge['precision'])}, recall "
    f"{_decimal(judge['recall'])}"
  )


def _decimal(value: float | None) -> str:
  return "–" if value is None else f"{value:.3f}"


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
  sections: list[html_report.Table | html_report.Figure | html_report.Text] = [
    _quantiles(results),
    *_judged(results),
  ]
  for name, split in splits.items():
    groups = results[name]["groups"]
    sections += [
      html_report.Figure(
        f"Strengths, {name}",
        rewards.gap_histogram(split.strength),
        "Mean reward gap over members, in favour of the label.",
      ),
      html_report.Figure(
        f"Spread over members by strength, {name}",
        rewards.against_strength(
          [group["strength"] for group in groups],
          [group["std"] for group in groups],
          label="standard deviation",
        ),
        f"Means of {len(groups)} groups of equally many pairs.",
      ),
    ]
  sections += [_pairs(kind, pairs) for kind, pairs in shown.items()]
  history = workdir / "metrics.jsonl"
  rows = metric_writer.read_rows(history) if history.exists() else []
  if rows:
    sections.append(
      html_report.Figure(
        "Training", curves.training_curves(rows), "Means over members."
      )
    )
  html_report.write_report(
    workdir / "report.html",
    title="Strength of preferences under an ensemble",
    summary="\n\n".join(in_words(*item) + "." for item in results.items()),
    sections=sections,
    warnings=warnings,
  )


def _quantiles(results: Mapping[str, Mapping[str, Any]]) -> html_report.Table:
  columns = [*next(iter(results.values()))["quantiles"]]
  return html_report.Table(
    title="Strength, in reward units",
    columns=["split", "pairs", "below 0", *columns, "mean spread"],
    rows=[
      [name, one["pairs"], f"{100 * one['below_0']:.1f} %",
       *(f"{value:.3f}" for value in one["quantiles"].values()),
       f"{one['mean_std']:.3f}"]
      for name, one in results.items()
    ],
    note="Strength below 0 contradicts the label. The unit is that of the "
    "members' rewards, e-folds of odds.",
  )  # fmt: skip


def _judged(
  results: Mapping[str, Mapping[str, Any]],
) -> list[html_report.Table | html_report.Figure]:
  given = {n: r["judge"] for n, r in results.items() if r["judge"] is not None}
  if not given:
    return []
  table = html_report.Table(
    title="Does low strength find the labels that a second judge contradicts?",
    columns=["split", "judged", "contradicted", "AUC", "weakest taken",
             "precision", "recall"],
    rows=[
      [name, one["judged"], f"{100 * one['contradicted']:.1f} %",
       _decimal(one["auc"]), f"{100 * one['fraction']:g} %",
       _decimal(one["precision"]), _decimal(one["recall"])]
      for name, one in given.items()
    ],
    note="AUC: probability that a contradicted label is weaker than another; "
    "0.5 is chance. Precision: share of the weakest labels that are "
    "contradicted; recall: share of contradicted labels among them.",
  )  # fmt: skip
  return [
    table,
    *(
      html_report.Figure(
        f"Agreement with the second judge, {name}",
        rewards.against_strength(
          [group["strength"] for group in one["groups"]],
          [group["agrees"] for group in one["groups"]],
          label="share of labels it shares",
          level=0.5,
        ),
        f"Means of {len(one['groups'])} groups of equally many pairs.",
      )
      for name, one in given.items()
    ),
  ]


def _pairs(kind: str, pairs: Sequence[Shown]) -> html_report.Table:
  title, note = TITLES[kind]
  return html_report.Table(
    title=f"{title} training pairs",
    columns=["strength", "spread", "prompt", "chosen", "rejected", "where"],
    rows=[
      [f"{one.strength:.3f}", f"{one.std:.3f}",
       _ending(text_of(one.record.prompt)),
       *(_beginning(text_of(text)) for text in one.record.responses),
       ", ".join(filter(None, (one.record.source, one.record.id)))]
      for one in pairs
    ],
    note=note,
  )  # fmt: skip


def _beginning(text: str) -> str:
  cut = len(text) > MAX_CHARACTERS
  return f"{text[:MAX_CHARACTERS]} …" if cut else text


def _ending(text: str) -> str:
  cut = len(text) > MAX_CHARACTERS
  return f"… {text[-MAX_CHARACTERS:]}" if cut else text
