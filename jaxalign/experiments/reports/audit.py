"""What the audit found: tables and pictures on one page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.data.records.record import Record
from jaxalign.data.stats import summary
from jaxalign.experiments.reports.findings import percent
from jaxalign.runtime.plots import data, html_report


def write(
  workdir: epath.Path,
  result: Mapping[str, Any],
  pairs: Mapping[str, Sequence[Record]],
) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page.
    result: content of eval.json.
    pairs: of each split that has any.
  """
  sections: list[html_report.Table | html_report.Figure | html_report.Text] = [
    _rows(result["splits"]),
    *_rated(result["splits"]),
  ]
  if pairs:
    splits = {name: result["splits"][name] for name in pairs}
    first = next(iter(pairs.values()))
    sections += [
      _lengths(splits),
      *_length_bias(splits, first),
      *_votes(splits, first),
      _people(splits),
      *_busy(first),
      _repeats(splits, result["leakage"]),
      _structure(result["structure"]),
      _resolution(result["resolution"]),
      _baselines(result["baselines"]),
    ]
  html_report.write_report(
    workdir / "report.html",
    title="Preferences before training",
    summary="\n\n".join(result["findings"]),
    sections=sections,
  )


def _rows(splits: Mapping[str, Any]) -> html_report.Table:
  rows = []
  for name, split in splits.items():
    for source in split["sources"]:
      lost = [
        f"{v:,} {k.replace('_', ' ')}"
        for k, v in source["dropped"].items()
        if v
      ]
      rows.append(
        [name, source["spec"], source["read"], source["kept"],
         source["skipped"], ", ".join(lost) or "none"]
      )  # fmt: skip
  return html_report.Table(
    title="Rows",
    columns=["split", "source", "read", "kept", "in error", "dropped"],
    rows=rows,
    note="Pairs after expanding rankings: "
    + ", ".join(
      f"{name} {split.get('pairs', 0):,}" for name, split in splits.items()
    )
    + ".",
  )


def _rated(splits: Mapping[str, Any]) -> list[html_report.Table]:
  given = {n: s["rated"] for n, s in splits.items() if s["rated"] is not None}
  if not given:
    return []
  columns = next(iter(given.values()))
  return [
    html_report.Table(
      title="Responses judged alone",
      columns=["split", *(name.replace("_", " ") for name in columns)],
      rows=[[name, *values.values()] for name, values in given.items()],
      note="Entropy and agreement of the votes for labels, where they are "
      "known and of the same classes throughout.",
    )
  ]


def _lengths(splits: Mapping[str, Any]) -> html_report.Table:
  rows = [
    [name, part, unit, *(float(round(v, 1)) for v in quantiles.values())]
    for name, split in splits.items()
    for unit in ("characters", "tokens")
    for part, quantiles in split[unit].items()
  ]
  return html_report.Table(
    title="Lengths",
    columns=["split", "part", "unit", "min", "10 %", "median", "90 %", "max",
             "mean"],
    rows=rows,
    note="Tokens of each part alone, uncut, without markers.",
  )  # fmt: skip


def _length_bias(
  splits: Mapping[str, Any], pairs: Sequence[Record]
) -> list[html_report.Table | html_report.Figure]:
  rows = [
    [name, source, share["count"], percent(share)]
    for name, split in splits.items()
    for source, share in split["longer_wins"].items()
  ]
  rows += [
    [name, "shown first", split["first_wins"]["count"],
     percent(split["first_wins"])]
    for name, split in splits.items()
  ]  # fmt: skip
  sizes = summary.characters(pairs)
  longer = np.maximum(sizes["chosen"], sizes["rejected"])
  shorter = np.maximum(np.minimum(sizes["chosen"], sizes["rejected"]), 1)
  table = html_report.Table(
    title="Length and position bias",
    columns=["split", "of", "pairs", "the longer, or the first, was chosen"],
    rows=rows,
    note="95 % intervals by Wilson's score; equal lengths count half. Position "
    "is known where the data have a column for it.",
  )
  return [
    table,
    html_report.Figure(
      "Lengths of responses",
      data.spread(
        {name: sizes[name] for name in ("chosen", "rejected")},
        label="characters",
      ),
    ),
    html_report.Figure(
      "Choice of the longer response",
      data.win_rates(longer / shorter, summary.longer_wins(pairs)),
      "Bins of equally many pairs; bars are sampling noise.",
    ),
  ]


def _votes(
  splits: Mapping[str, Any], pairs: Sequence[Record]
) -> list[html_report.Table | html_report.Figure | html_report.Text]:
  given = {n: s["votes"] for n, s in splits.items() if s["votes"] is not None}
  ties = ", ".join(f"{n} {s['ties']:,}" for n, s in splits.items())
  if not given:
    return [
      html_report.Text(
        "Votes",
        f"Each pair was judged once or the votes are not given. Ties: {ties}.",
      )
    ]
  columns = list(next(iter(given.values())))
  counts = summary.vote_counts(pairs)
  drawn = []
  if len(counts):
    shares = (counts[:, 0] + counts[:, 2] / 2) / counts.sum(axis=1)
    drawn = [
      html_report.Figure(
        "Votes for the chosen response",
        data.vote_shares(shares),
        "Ties count half. Pairs at one half teach nothing; counted votes below "
        "it are recorded the wrong way round.",
      )
    ]
  return [
    html_report.Table(
      title="Votes",
      columns=["split", *(name.replace("_", " ") for name in columns)],
      rows=[[name, *votes.values()] for name, votes in given.items()],
      note=f"Entropy over chosen, rejected and tie. Tied records: {ties}.",
    ),
    *drawn,
  ]


def _people(splits: Mapping[str, Any]) -> html_report.Table:
  rows = []
  for name, split in splits.items():
    people = split["annotators"]
    each = people["pairs_each"]
    shown = (
      [None] * 3
      if each is None
      else [each[k] for k in ("min", "median", "max")]
    )
    rows.append(
      [name, people["named"], people["pairs_without"], *shown,
       len(split["pairs_by_group"])]
    )  # fmt: skip
  return html_report.Table(
    title="Annotators",
    columns=["split", "named", "pairs without a name", "fewest pairs",
             "median", "most", "groups"],
    rows=rows,
  )  # fmt: skip


def _busy(pairs: Sequence[Record]) -> list[html_report.Figure]:
  people = summary.pairs_per_annotator(pairs)
  if len(people) < 2:
    return []
  return [
    html_report.Figure(
      "Pairs per annotator",
      data.ranked_counts(
        [*people.values()], label="annotators, busiest first", unit="pairs"
      ),
    )
  ]


def _repeats(
  splits: Mapping[str, Any], leakage: Mapping[str, int] | None
) -> html_report.Table:
  rows: list[list[Any]] = [
    [name, split["pairs"], *split["repeats"].values()]
    for name, split in splits.items()
  ]
  note = (
    "Equal up to case and punctuation; near is 80 % of word triples or more."
  )
  if leakage is not None:
    shared = ", ".join(
      f"{k.replace('_', ' ')} {v:,}" for k, v in leakage.items()
    )
    note += f" Held-out pairs that share with training: {shared}."
  return html_report.Table(
    title="Duplicates and leakage",
    columns=["split", "pairs", "distinct prompts", "repeated", "contradicting",
             "near repeats"],
    rows=rows,
    note=note,
  )  # fmt: skip


def _structure(tests: Sequence[Mapping[str, Any]]) -> html_report.Table:
  return html_report.Table(
    title="Is there more than one taste?",
    columns=["units", "number", "rows", "variation between", "by chance",
             "p-value"],
    rows=[
      [test["label"], test["units"], test["rows"],
       f"{100 * test['share']:.2f} %", f"{100 * test['expected']:.2f} %",
       f"{test['p_value']:.3f}"]
      for test in tests
    ],
    note="Permutation tests against one taste shared by all, in the length and "
    "words of responses. A taste that shows in neither goes unseen.",
  )  # fmt: skip


def _resolution(found: Mapping[str, Mapping[str, float]]) -> html_report.Table:
  return html_report.Table(
    title="The smallest differences these pairs can show",
    columns=["independent", "n", "accuracy over chance",
             "accuracy of two models", "ECE of two models"],
    rows=[
      [name, int(values["n"]),
       *(None if np.isnan(v) else f"{v:.4f}" for k, v in values.items()
         if k != "n")]
      for name, values in found.items()
    ],
    note="Two-sided tests at 5 % with power 80 %. Where the pairs of a prompt "
    "stand or fall together, the number of prompts is what counts.",
  )  # fmt: skip


def _baselines(scores: Mapping[str, float]) -> html_report.Table:
  return html_report.Table(
    title="Accuracy without a reward model",
    columns=["chance", *(name.replace("_", " ") for name in scores)],
    rows=[["0.500", *(f"{value:.3f}" for value in scores.values())]],
    note="On held-out pairs; the bag of words learns from the training pairs.",
  )
