"""Data audit report: verdicts with the next command, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.data.stats import summary
from jaxalign.experiments.reports import judge_agreement
from jaxalign.experiments.reward_model import pair_scores
from jaxalign.runtime.plots import figures, html_report
from jaxalign.runtime.plots.html_report import (
  decimal,
  percent,
  percent_interval,
  word,
)

LEVEL = 0.05
# What held-out pairs share with training, by the column that divides it away.
LEAKS = {
  "prompt": {
    "prompts": "have a prompt of the training pairs",
    "near_prompts": "have almost a prompt of the training pairs",
    "responses": "hold a response of the training pairs",
    "pairs": "are training pairs",
    "ids": "have the id of a training pair",
  },
  "annotator": {
    "annotators": "were judged by someone who judged training pairs"
  },
}
AUDIT = "audit --config=configs/audit.py"
DIVIDED = " --config.data.split_by=prompt --config.data.eval_fraction=0.1"
POOLED = "train_reward --config=configs/rm_bt_crowd.py"
MIXTURE = "train_reward --config=configs/rm_mixture_crowd.py"
MORE = "train_reward --config=configs/rm_more_crowd.py"  # of known sources
NUM_SHOWN = 3  # pairs on the page


class Verdict(NamedTuple):
  """One finding and what to do about it."""

  text: str  # a sentence
  then: str = ""  # stage and flags of the next command, "" where there is none


def verdicts(result: html_report.Result) -> list[Verdict]:
  """What to know before training, the most serious first."""
  said = _leakage(result)
  for name, split in result["splits"].items():
    if split["rated"] is not None:
      number = split["rated"]["responses"]
      said.append(Verdict(f"{name}: {number:,} responses were judged alone."))
    if "pairs" in split:
      said += _of_split(name, split)
  tests = result["structure"]
  # A mixture needs people whose several votes it can tie together.
  recipe = MIXTURE if any(t["label"] == "annotator" for t in tests) else MORE
  said += [_structure_verdict(test, recipe) for test in tests]
  if not result["resolution"]:
    return [*said, Verdict("There are no pairs, so nothing to compare.")]
  if not result["structure"]:
    said.append(
      Verdict(
        "Group structure cannot be tested: no annotator, group or source takes "
        "two values.",
        POOLED,
      )
    )
  return [*said, *(_shown(n, r) for n, r in result["resolution"].items())]


def _leakage(result: html_report.Result) -> list[Verdict]:
  leaked = result["leakage"]
  if leaked is None:
    return []
  number = result["splits"]["eval"]["pairs"]
  said = []
  for column, ways in LEAKS.items():
    found = [
      f"{leaked[name]:,} {how}"
      for name, how in ways.items()
      if leaked.get(name)
    ]
    if found:
      text = f"Leakage: of {number:,} held-out pairs {', '.join(found)}."
      said.append(Verdict(text, AUDIT + DIVIDED.replace("prompt", column)))
  return said or [Verdict("No leakage between the splits was found.")]


def _of_split(name: str, split: Mapping[str, Any]) -> list[Verdict]:
  said = []
  repeats = split["repeats"]
  if repeats["contradicted"]:
    said.append(
      Verdict(
        f"{name}: {repeats['contradicted']:,} pairs contradict an earlier one.",
        "denoise --config=configs/denoise_crowd.py",
      )
    )
  for share, which, more in (
    (split["longer_wins"]["all"], "longer response",
     "; report always-longer beside every model"),
    (split["first_wins"], "response shown first", ""),
  ):  # fmt: skip
    low, high = share["low"], share["high"]
    if share["value"] is not None and not low <= 0.5 <= high:
      chosen = f"was chosen in {percent_interval(share)}"
      said.append(Verdict(f"{name}: the {which} {chosen}{more}."))
  if split["longer_than_max_length"]:
    most = {part: found["max"] for part, found in split["tokens"].items()}
    tokens = int(most["prompt"] + max(most["chosen"], most["rejected"]))
    room = 64 * (tokens // 64 + 1)  # markers too
    said.append(
      Verdict(
        f"{name}: {split['longer_than_max_length']:,} of {split['pairs']:,} "
        "pairs exceed max_length and lose the beginning of their prompt.",
        f"{AUDIT} --config.data.max_length={room}",
      )
    )
  if split.get("judge"):
    said.append(Verdict(f"{name}: {judge_agreement.sentence(split['judge'])}."))
  busiest = split["annotators"]["busiest_share"]
  if split["annotators"]["named"] > 5 and busiest > 0.1:
    share = percent(busiest, 0)
    said.append(Verdict(f"{name}: one annotator judged {share} of pairs."))
  return said


def _structure_verdict(test: Mapping[str, Any], recipe: str) -> Verdict:
  named = f"{test['units']:,} {test['label']}s"
  p = f"p = {test['p_value']:.2g}"
  if test["p_value"] <= LEVEL:
    text = f"Latent groups: {named} do not share one preference ({p})."
    return Verdict(text, recipe)
  text = f"Latent groups: differences of {named} are not significant ({p})."
  return Verdict(text, POOLED)


def _shown(name: str, found: Mapping[str, Any]) -> Verdict:
  values = [
    # A NaN is null in what is read back from JSON.
    "more than these can show"
    if found[key] is None or np.isnan(found[key])
    else f"{100 * found[key]:.1f} points"
    for key in ("accuracy_difference", "ece_difference")
  ]
  return Verdict(
    f"Smallest difference that {found['n']:,} independent {name} show: "
    f"accuracy {values[0]}, ECE {values[1]}."
  )


def headline(result: html_report.Result) -> str:
  """How many pairs there are, whether groups differ, what a model must beat."""
  splits = result["splits"]
  sizes = ", ".join(
    f"{split['pairs']:,} pairs to {'train on' if name == 'train' else 'test'}"
    for name, split in splits.items()
    if "pairs" in split
  )
  if not sizes:
    return "There are no pairs to train on."
  found = [t for t in result["structure"] if t["p_value"] <= LEVEL]
  if found:
    groups = (
      f"{word(found[0]['label']).capitalize()}s do not share one preference "
      f"(p = {found[0]['p_value']:.2g}): one pooled model will not fit all."
    )
  elif result["structure"]:
    groups = "No significant difference between annotators, groups or sources."
  else:
    groups = (
      "Whether groups differ cannot be tested: annotators, groups and sources "
      "are not given."
    )
  beat = " and ".join(
    f"{percent(share)} ({word(name)})"
    for name, share in result["baselines"].items()
  )
  leaks = sum(v.text.startswith("Leakage") for v in _leakage(result))
  clean = "The splits leak; see below." if leaks else ""
  return (
    f"{sizes}. {groups} {clean}\n\nA reward model must beat an accuracy of "
    f"{beat}."
  )


def write(
  workdir: epath.Path,
  result: html_report.Result,
  pairs: Mapping[str, Sequence[Record]],
) -> None:
  """Writes report.html; `pairs` are those of each split that has any."""
  sections = [
    html_report.Texts(
      "Verdicts and next steps",
      [
        (one.text, {"next": _command(one, result)} if one.then else {})
        for one in verdicts(result)
      ],
      "Where groups differ, train the pooled model too, to compare.",
      code=True,
    ),
    *(_of_pairs(result, pairs) if pairs else ()),
    *_sources(result["splits"]),
  ]
  html_report.write_report(
    workdir / html_report.NAME,
    title="Data audit",
    headline=headline(result),
    sections=sections,
    basis="95 % intervals over people (bootstrap) where at least "
    f"{pair_scores.MIN_PEOPLE} are named, else by Wilson's score; p-values by "
    "permutation.",
  )


def next_command(result: html_report.Result) -> str | None:
  """The training command that the verdicts lead to, None without one.

  It is that of the latent groups where any differ, else the pooled model's.
  """
  trained = [v for v in verdicts(result) if v.then.startswith("train_reward")]
  trained.sort(key=lambda verdict: verdict.then == POOLED)
  return _command(trained[0], result) if trained else None


def _command(verdict: Verdict, result: html_report.Result) -> str:
  """The whole command, on the sources that were audited."""
  specs = {
    name: tuple(source["spec"] for source in split["sources"])
    for name, split in result["splits"].items()
  }
  then = verdict.then
  if "train" in specs and specs.get("eval") == specs["train"]:  # was divided
    then += "" if "split_by" in then else DIVIDED
  if "split_by" in then:
    specs = {"train": specs.get("train", ()), "eval": ()}
  files = " ".join(
    f'--config.data.{name}_files="{spec}"' for name, spec in specs.items()
  )
  return f"python -m jaxalign.experiments.{then} {files} --workdir=..."


def _of_pairs(
  result: html_report.Result, pairs: Mapping[str, Sequence[Record]]
) -> list[html_report.Section]:
  splits = {name: result["splits"][name] for name in pairs}
  first = next(iter(pairs.values()))
  tests = result["structure"]
  judged = {name: split.get("judge", ()) for name, split in splits.items()}
  return [
    *([_structure(tests)] if tests else ()),
    html_report.Texts(
      "Sample pairs",
      [
        (
          text_of(record.prompt),
          dict(
            zip(("chosen", "rejected"), map(text_of, record.responses),
                strict=True)
          ),
        )
        for record in first[:NUM_SHOWN]
      ],
    ),
    *_length_bias(splits, first),
    *_votes(splits, first),
    *judge_agreement.sections(judged),
    *_people(splits, first),
    _repeats(splits, result["leakage"]),
    _resolution(result["resolution"]),
    html_report.Table(
      "Lengths",
      ["split", "part", "unit", "min", "10 %", "median", "90 %", "max", "mean"],
      [
        [name, part, unit, *(float(round(v, 1)) for v in quantiles.values())]
        for name, split in splits.items()
        for unit in ("characters", "tokens")
        for part, quantiles in split[unit].items()
      ],
      "Tokens of each part alone, uncut, without markers.",
      folded=True,
    ),
  ]  # fmt: skip


def _sources(splits: Mapping[str, Any]) -> list[html_report.Section]:
  """What was read, as pairs and as responses judged alone."""
  rows = []
  for name, split in splits.items():
    for source in split["sources"]:
      dropped = source["dropped"].items()
      lost = ", ".join(f"{v:,} {word(k)}" for k, v in dropped if v) or "none"
      counts = (source[key] for key in ("read", "kept", "skipped"))
      rows.append([name, source["spec"], *counts, lost])
  whole = all(skipped == 0 and lost == "none" for *_, skipped, lost in rows)
  numbers = ", ".join(f"{n} {s.get('pairs', 0):,}" for n, s in splits.items())
  rated = {n: s["rated"] for n, s in splits.items() if s["rated"] is not None}
  table = html_report.Table(
    "Rows read",
    ["split", "source", "read", "kept", "in error", "dropped"],
    rows,
    f"Pairs after expanding rankings: {numbers}.",
    folded=whole,
  )
  alone = _by_split(
    "Responses judged alone",
    rated,
    "Entropy and agreement of the votes for labels, where they are known and "
    "of the same classes throughout.",
  )
  return [table, alone] if rated else [table]


def _by_split(
  title: str,
  values: Mapping[str, Mapping[str, Any]],
  note: str = "",
  *,
  folded: bool = False,
) -> html_report.Section:
  """A row per split, a column per value."""
  columns = next(iter(values.values()), {})
  rows = [[name, *row.values()] for name, row in values.items()]
  return html_report.Table(
    title, ["split", *map(word, columns)], rows, note, folded=folded
  )


def _length_bias(
  splits: Mapping[str, Any], pairs: Sequence[Record]
) -> list[html_report.Section]:
  shares = [
    (name, source, share)
    for name, split in splits.items()
    for source, share in (
      *split["longer_wins"].items(),
      ("shown first", split["first_wins"]),
    )
  ]
  sizes = summary.characters(pairs)
  longer = np.maximum(sizes["chosen"], sizes["rejected"])
  shorter = np.maximum(np.minimum(sizes["chosen"], sizes["rejected"]), 1)
  sides = {name: sizes[name] for name in ("chosen", "rejected")}
  return [
    html_report.Table(
      "Length and position bias",
      ["split", "of", "pairs", "the longer, or the first, was chosen"],
      [
        [name, of, share["count"], percent_interval(share)]
        for name, of, share in shares
        if share["count"]
      ],
      "Equal lengths count half. Position is known where the data have a "
      "column for it.",
    ),
    html_report.Figure(
      "Lengths of responses, and choice of the longer one",
      [
        figures.lengths(sides, label="characters"),
        figures.longer_wins(longer / shorter, summary.longer_wins(pairs)),
      ],
      "Right: bins of equally many pairs; bars are 95 % intervals.",
    ),
  ]


def _votes(
  splits: Mapping[str, Any], pairs: Sequence[Record]
) -> list[html_report.Section]:
  given = {n: s["votes"] for n, s in splits.items() if s["votes"] is not None}
  ties = ", ".join(f"{n} {s['ties']:,}" for n, s in splits.items())
  counts = summary.vote_counts(pairs)
  if not given:
    return []
  note = f"Entropy over chosen, rejected and tie. Tied records: {ties}."
  made = [_by_split("Votes", given, note)]
  if len(counts):
    shares = (counts[:, 0] + counts[:, 2] / 2) / counts.sum(axis=1)
    made.append(
      html_report.Figure(
        "Votes for the chosen response",
        figures.vote_shares(shares),
        "Ties count half. Pairs at one half teach nothing; counted votes below "
        "it are recorded the wrong way round.",
        folded=True,
      )
    )
  return made


def _people(
  splits: Mapping[str, Any], pairs: Sequence[Record]
) -> list[html_report.Section]:
  people = {}
  for name, split in splits.items():
    found = split["annotators"]
    if not found["named"]:
      continue
    each = found["pairs_each"] or {}
    people[name] = {
      "named": found["named"],
      "pairs without a name": found["pairs_without"],
      "fewest pairs": each.get("min"),
      "median": each.get("median"),
      "most": each.get("max"),
      "groups": len(split["pairs_by_group"]),
    }
  busy = summary.pairs_per_annotator(pairs)
  made = [_by_split("Annotators", people)] if people else []
  if len(busy) > 1:
    drawn = figures.ranked_counts(
      [*busy.values()], label="annotators, busiest first", unit="pairs"
    )
    made.append(html_report.Figure("Pairs per annotator", drawn, folded=True))
  return made


def _repeats(
  splits: Mapping[str, Any], leakage: Mapping[str, int] | None
) -> html_report.Section:
  note = (
    "Equal up to case and punctuation; near is 80 % of word triples or more."
  )
  if leakage is not None:
    shared = ", ".join(f"{word(k)} {v:,}" for k, v in leakage.items())
    note += f" Held-out pairs that share with training: {shared}."
  repeats = {
    n: {"pairs": s["pairs"], **s["repeats"]} for n, s in splits.items()
  }
  return _by_split("Duplicates and leakage", repeats, note, folded=True)


def _structure(tests: Sequence[Mapping[str, Any]]) -> html_report.Section:
  return html_report.Table(
    "Do annotators, groups or sources differ?",
    ["units", "number", "rows", "variation between", "by chance", "p-value"],
    [
      [test["label"], test["units"], test["rows"], percent(test["share"], 2),
       percent(test["expected"], 2), decimal(test["p_value"])]
      for test in tests
    ],
    "Permutation tests against one preference shared by all, in the length and "
    "words of responses. A preference that shows in neither goes unseen.",
  )  # fmt: skip


def _resolution(
  found: Mapping[str, Mapping[str, float]],
) -> html_report.Section:
  keys = ("accuracy_over_chance", "accuracy_difference", "ece_difference")
  rows = []
  for name, values in found.items():
    least = (None if np.isnan(values[k]) else values[k] for k in keys)
    rows.append([name, int(values["n"]), *(decimal(v, 4) for v in least)])
  return html_report.Table(
    "The smallest differences these pairs can show",
    ["independent", "n", "accuracy over chance", "accuracy of two models",
     "ECE of two models"],
    rows,
    "Two-sided tests at 5 % with power 80 %. Where the pairs of a prompt, or "
    "of a person, stand or fall together, the number of prompts, or of people, "
    "is what counts.",
    folded=True,
  )  # fmt: skip
