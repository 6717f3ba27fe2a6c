"""Policy report: what each group gained, at which KL, and sample answers.

It shows what `metrics.jsonl`, `speed.jsonl` and `answers.json` hold and nothing
else, so that it can be written anew at any time, also of a run that was killed
and resumed.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from jaxalign.experiments.policy import config as policy_config
from jaxalign.experiments.policy import evaluation
from jaxalign.experiments.reports import label_shares
from jaxalign.runtime.io import metric_writer
from jaxalign.runtime.plots import figures, html_report, panels, style
from jaxalign.runtime.plots.html_report import decimal

PARTS = ("sampling", "scoring", "learning")
HEALTH = (  # what says whether learning is sound, in this order
  "loss",
  "value_loss",
  "explained_variance",
  "entropy",
  "approx_kl",
  "clip_fraction",
)
Rows = Sequence[Mapping[str, float]]


class Run(NamedTuple):
  """What there is to show."""

  rows: Rows  # of metrics.jsonl, training and evaluations
  points: Rows  # evaluations, or without any the iterations themselves
  proxy: str  # what comes before a group's name in `points`
  groups: Sequence[str]  # names of the source's outputs
  judged: Sequence[str]  # names of the oracle's outputs, none without one
  answers: Mapping[str, Any]  # of answers.json, empty without evaluations

  @property
  def trained(self) -> Rows:
    """The iterations."""
    return [row for row in self.rows if "train/kl" in row]

  @property
  def keys(self) -> dict[str, str]:
    """Utilities of the groups by how they are called: proxy, then oracle."""
    named = {f"proxy, {self.name(g)}": self.proxy + g for g in self.groups}
    return named | {f"oracle, {g}": f"eval/judge/{g}" for g in self.judged}

  def name(self, group: str) -> str:
    """A head of the source by the group whose oracle it follows most."""
    close = self.answers.get("end", {}).get("closest", {}).get(group)
    return group if close is None else f"{group} (follows {close['group']})"

  def worst(self, judged: bool) -> list[float]:
    """Utility of whichever group is worst off, at all points."""
    prefix, names = (
      ("eval/judge/", self.judged) if judged else (self.proxy, self.groups)
    )
    return [min(point[prefix + g] for g in names) for point in self.points]

  @property
  def distance(self) -> list[float]:
    """KL per response to the reference, nats, at all points."""
    key = self.proxy.partition("/")[0] + "/kl"
    return [point[key] for point in self.points]


def read(workdir: epath.Path, config: policy_config.Config) -> Run:
  """What a run has logged so far."""
  rows = metric_writer.read_rows(workdir / "metrics.jsonl")
  points = [row for row in rows if "eval/kl" in row]
  file = workdir / evaluation.ANSWERS
  return Run(
    rows,
    points or [row for row in rows if "train/kl" in row],
    "eval/utility/" if points else "train/utility/",
    config.source.names,
    () if config.judge is None or not points else config.judge.names,
    json.loads(file.read_text()) if file.exists() else {},
  )


def headline(run: Run) -> str:
  """What the worst-off group gained over the start, and at which KL."""
  where = "held-out prompts" if "eval/" in run.proxy else "its own prompts"
  judged = bool(run.judged)
  worst, learned = run.worst(judged), run.worst(False)
  names, prefix = (
    (run.judged, "eval/judge/") if judged else (run.groups, run.proxy)
  )
  who = min(names, key=lambda g: run.points[-1][prefix + g])
  ruler = "true utility" if judged else "utility to its own reward"
  text = (
    f"{len(run.trained)} iterations moved the worst-off group from "
    f"{worst[0]:.3f} to {worst[-1]:.3f} in {ruler} on {where}, at a KL of "
    f"{decimal(run.distance[-1], 2)} nats per response. Worst off at the end: "
    f"{run.name(who)}."
  )
  if not judged:
    return text
  return (
    f"{text}\n\nTo the reward that it learned from, the worst-off group went "
    f"from {learned[0]:.3f} to {learned[-1]:.3f}."
  )


def write(
  workdir: epath.Path,
  config: policy_config.Config,
  warnings: Sequence[str] = (),
) -> str:
  """Writes report.html.

  Args:
    workdir: of the run, with metrics.jsonl and speed.jsonl.
    config: of the run: names of groups and the KL that was aimed at.
    warnings: what to mind about the prompts.

  Returns:
    What came out, in words.
  """
  run = read(workdir, config)
  times = metric_writer.read_rows(workdir / "speed.jsonl")
  end = run.answers.get("end")
  basis = html_report.ONE_SEED
  if end is not None:
    basis = f"Means over {end['num_prompts']:,} held-out prompts. {basis}"
  html_report.write_report(
    workdir / html_report.NAME,
    title="Policy",
    headline=headline(run),
    basis=basis,
    sections=sections(run, times, config.kl.target),
    warnings=warnings,
    links=html_report.links_to(workdir, config.source.models),
  )
  return headline(run).replace("\n\n", " ")


def sections(
  run: Run, times: Rows, target: float | None
) -> list[html_report.Section]:
  """Everything below the headline.

  Args:
    run: what there is to show.
    times: of speed.jsonl.
    target: KL that was aimed at, or None.
  """
  health = [f"train/{k}" for k in HEALTH if f"train/{k}" in run.trained[-1]]
  rate = "speed/response_tokens_per_second"
  later = times[1:] or times
  return [
    _stations(run),
    html_report.Figure(
      "Utility against distance from the start",
      against_kl(run.distance, curves_of(run)),
      "Proxy is the reward that the policy learns from, oracle the true "
      "utility of the same answers. Stars are the highest points: past the "
      "oracle's, more of the proxy does harm.",
    ),
    *samples({name: run.answers.get(name) for name in ("start", "end")}),
    *_answers(run),
    *_labels(run),
    html_report.Figure(
      "Groups and distance by iteration",
      _of_groups(run, target),
      "Solid lines are the answers that were learned from, dashed ones those "
      "to held-out prompts. A group's KL is that on its own prompts, where "
      "there are any.",
    ),
    html_report.Figure(
      "Reward, answers and KL coefficient by iteration",
      _of_all(run),
      folded=True,
    ),
    html_report.Figure(
      "Learning",
      figures.training_curves(run.trained, health, unit="iteration"),
      "Means over the optimizer steps of an iteration.",
      folded=True,
    ),
    _split(times),
    html_report.Figure(
      "Time of an iteration",
      [
        panels.Panel(
          "iteration",
          "seconds",
          [figures.line(later, f"speed/{p}_seconds", p) for p in PARTS],
        ),
        panels.Panel(
          "iteration",
          "response tokens/s",
          [figures.line(later, rate, "all parts", style.GREY)],
        ),
      ],
      folded=True,
    ),
  ]


def samples(
  answers: Mapping[str, Mapping[str, Any] | None],
) -> list[html_report.Section]:
  """The first held-out prompts with the answers of several policies.

  Args:
    answers: by the policy's name, `start` or `end` of its answers.json, or None
      where there are none.

  Returns:
    A section; nothing unless they answer the same prompts.
  """
  given = {name: one for name, one in answers.items() if one is not None}
  if not given or len({tuple(one["prompts"]) for one in given.values()}) > 1:
    return []
  prompts = next(iter(given.values()))["prompts"]
  worth = lambda values: ", ".join(
    f"{name} {decimal(value, 2)}" for name, value in values.items()
  )
  return [
    html_report.Texts(
      f"The same {len(prompts)} prompts, answered by {', '.join(given)}",
      [
        (
          prompt,
          {
            f"{name} ({worth(one['utilities'][row])})": one["answers"][row]
            for name, one in given.items()
          },
        )
        for row, prompt in enumerate(prompts)
      ],
      "The first held-out prompts, not chosen; in brackets what the answer is "
      "worth to each group.",
    )
  ]


def _answers(run: Run) -> list[html_report.Section]:
  """What all held-out answers are like, at the start and at the end."""
  given = {
    name: one["statistics"]
    for name, one in run.answers.items()
    if "statistics" in one
  }
  if not given:
    return []
  written = lambda value: "" if value is None else decimal(value)
  table = html_report.Table(
    "Answers to held-out prompts",
    ["", "Self-BLEU", "perplexity, mean", "median", "90 %", "tokens"],
    [
      [name, written(one["self_bleu"]),
       *map(decimal, (*one["perplexity"].values(), one["tokens"]))]
      for name, one in given.items()
    ],
    "Self-BLEU, a mean over 2 to 5 words, is 1 where all answers are the same. "
    "Perplexity is that of each answer under the reference.",
  )  # fmt: skip
  drawn = [
    gap_panel(
      run.name(group), {n: one["gaps"][group] for n, one in given.items()}
    )
    for group in run.groups
    if all(one["gaps"].get(group) for one in given.values())
  ]
  if not drawn:
    return [table]
  return [
    table,
    html_report.Figure(
      "How far apart the rewards of two answers to one prompt are",
      panels.alike(drawn),
      "Near 0 the reward no longer tells the policy's answers apart.",
      folded=True,
    ),
  ]


def _labels(run: Run) -> list[html_report.Section]:
  """What held-out answers would be called, at the start and at the end."""
  kinds = {"label": "by the reward", "judge_label": "by the judge"}
  return [
    part
    for kind, by in kinds.items()
    for part in label_shares.section(
      f"Labels of held-out answers, {by}",
      {name: one.get("labels", {}).get(kind)
       for name, one in run.answers.items()},
      "prompts",
    )
  ]  # fmt: skip


def gap_panel(
  group: str, gaps: Mapping[str, Sequence[float]], *, bins: int = 20
) -> panels.Panel:
  """Histograms of reward gaps, in the same bins.

  Args:
    group: whose reward.
    gaps: of pairs of answers, by policy.
    bins: up to the largest.
  """
  largest = max(max(values) for values in gaps.values())
  edges = np.linspace(0, max(largest, 1e-12), bins + 1)
  return panels.Panel(
    "distance of rewards",
    "pairs of answers",
    [
      panels.Histogram(name, np.asarray(values), edges, style.colour(k))
      for k, (name, values) in enumerate(gaps.items())
    ],
    title=group,
  )


def _stations(run: Run) -> html_report.Section:
  """Utilities at the start, at the end, and where they were best."""
  best = lambda judged: int(np.argmax(run.worst(judged)))
  at = {"start": 0, "best for the proxy's worst-off": best(False)}
  if run.judged:
    at["best for the oracle's worst-off"] = best(True)
  at["end"] = len(run.points) - 1
  errors = run.answers.get("end", {}).get("standard_error", {})
  bars = ", ".join(f"{k} ± {1.96 * v:.3f}" for k, v in errors.items())
  return html_report.Table(
    "What answers are worth to each group",
    ["", "iteration", "KL, nats", *run.keys],
    [
      [name, int(run.points[i]["step"]), run.distance[i],
       *(run.points[i][key] for key in run.keys.values())]
      for name, i in at.items()
    ],
    "Proxy is the reward that the policy learns from, oracle the true utility, "
    "which evaluations alone ask."
    + (f" 95 % over prompts at the end: {bars}." if bars else ""),
  )  # fmt: skip


def curves_of(run: Run) -> dict[str, dict[str, list[float]]]:
  """Proxy and oracle of each group, at the points."""
  found: dict[str, dict[str, list[float]]] = {}
  for key, metric in run.keys.items():
    reward, _, group = key.partition(", ")
    column = [point[metric] for point in run.points]
    found.setdefault(group, {})[reward] = column
  return found


def against_kl(
  kl: Sequence[float], curves: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[panels.Panel]:
  """Where optimizing a proxy stops to help: one panel per group.

  Args:
    kl: to the reference, in nats, [N], in the order of optimization.
    curves: per group and per reward, such as "proxy" and "oracle", its mean at
      each point, [N].

  Returns:
    Panels; those of the same rewards share a vertical axis. The highest point
    of each curve is marked.
  """
  made: dict[tuple[str, ...], list[panels.Panel]] = {}
  for group, lines in curves.items():
    marks = [
      # Where two rewards agree, both are to be seen.
      panels.Line(name, kl, values, dashed=name != "proxy", star=True)
      for name, values in lines.items()
    ]
    one = panels.Panel("KL from the start, nats", "utility", marks, title=group)
    made.setdefault((*lines,), []).append(one)
  return [panel for alike in made.values() for panel in panels.alike(alike)]


def _lines(run: Run, key: str, label: str, number: int) -> list[panels.Line]:
  """A metric in training, and on held-out prompts, in one colour."""
  colour = style.colour(number)
  return [
    figures.line(
      run.rows, f"{split}/{key}", label + more, colour, dashed=bool(more)
    )
    for split, more in (("train", ""), ("eval", ", held-out"))
    if any(f"{split}/{key}" in row for row in run.rows)
  ]


def _of_groups(run: Run, target: float | None) -> list[panels.Panel]:
  """What is logged of each group by iteration, a colour per group."""

  def groups(noun: str) -> list[panels.Line]:
    return [
      line
      for k, group in enumerate(run.groups)
      for line in _lines(run, f"{noun}/{group}", run.name(group), k)
    ]

  aim = {} if target is None else {"target": target}
  return [
    panels.Panel("iteration", "utility, proxy", groups("utility")),
    panels.Panel("iteration", "group weight", groups("group_weight")),
    panels.Panel(
      "iteration", "KL, nats per response",
      [*groups("kl"), *_lines(run, "kl", "all", len(run.groups))], levels=aim,
    ),
  ]  # fmt: skip


def _of_all(run: Run) -> list[panels.Panel]:
  """What is logged of all answers by iteration."""
  lines = functools.partial(_lines, run)
  return [
    panels.Panel("iteration", "KL coefficient", lines("kl_coef", "", 0)),
    panels.Panel(
      "iteration", "reward",
      [*lines("score", "weighted over groups", 0),
       *lines("shaped_score", "scaled and shaped", 1)],
    ),
    panels.Panel(
      "iteration", "tokens of a response", lines("response_tokens", "all", 0)
    ),
    panels.Panel(
      "iteration", "share of responses that ended", lines("ended", "all", 0)
    ),
  ]  # fmt: skip


def _split(times: Rows) -> html_report.Section:
  """Medians over iterations but the first, which waits for compilation."""
  later = times[1:] or times
  median = lambda key: float(np.median([row[f"speed/{key}"] for row in later]))
  seconds = {part: median(f"{part}_seconds") for part in PARTS}
  memory = "".join(
    f" {name} memory {times[-1][f'speed/{key}_memory_bytes'] / 2**30:.2f} GiB."
    for name, key in (("Host", "host"), ("Device", "device"))
    if f"speed/{key}_memory_bytes" in times[-1]
  )
  return html_report.Table(
    "Where the time of an iteration goes",
    ["part", "median, s", "share of these", "first iteration, s"],
    [
      [part, value, f"{value / sum(seconds.values()):.0%}",
       times[0][f"speed/{part}_seconds"]]
      for part, value in seconds.items()
    ],
    f"{median('response_tokens_per_second'):,.0f} response tokens per second "
    f"over all three. Medians of {len(later)} iterations, evaluations and "
    f"checkpoints aside.{memory}",
    folded=True,
  )  # fmt: skip
