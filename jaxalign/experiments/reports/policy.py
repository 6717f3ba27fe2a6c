"""The page of a policy run: whom it serves, how far it went, where time went.

It shows what `metrics.jsonl` and `speed.jsonl` hold and nothing else, so that
it can be written anew at any time, also of a run that was killed and resumed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from jaxalign.experiments.policy import config as policy_config
from jaxalign.runtime.io import metric_writer
from jaxalign.runtime.plots import curves, groups, html_report, style

PARTS = ("sampling", "scoring", "learning")
HEALTH = (  # what says whether learning is sound, in this order
  "loss",
  "value_loss",
  "explained_variance",
  "entropy",
  "approx_kl",
  "clip_fraction",
)
Section = html_report.Table | html_report.Figure | html_report.Text


class Run(NamedTuple):
  """What there is to show.

  Attributes:
    rows: of metrics.jsonl, training and evaluations.
    points: those with a KL and the utilities at it: evaluations, or without any
      the iterations themselves.
    proxy: what comes before a group's name in `points`.
    groups: names of the source's outputs.
    judged: names of the judge's outputs, none without a judge.
  """

  rows: Sequence[Mapping[str, float]]
  points: Sequence[Mapping[str, float]]
  proxy: str
  groups: Sequence[str]
  judged: Sequence[str]

  def column(self, key: str) -> list[float]:
    """A metric at all points."""
    return [point[key] for point in self.points]

  @property
  def worst(self) -> list[float]:
    """Proxy utility of whichever group is worst off, at all points."""
    return [min(p[self.proxy + g] for g in self.groups) for p in self.points]

  @property
  def distance(self) -> list[float]:
    """KL per response to the reference, nats, at all points."""
    return self.column(self.proxy.partition("/")[0] + "/kl")


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
  rows = metric_writer.read_rows(workdir / "metrics.jsonl")
  times = metric_writer.read_rows(workdir / "speed.jsonl")
  trained = [row for row in rows if "train/kl" in row]
  points = [row for row in rows if "eval/kl" in row]
  judged = () if config.judge is None or not points else config.judge.names
  run = Run(
    rows,
    points or trained,
    "eval/utility/" if points else "train/utility/",
    config.source.names,
    judged,
  )
  sections: list[Section] = [
    _stations(run),
    html_report.Figure(
      "Groups, distance and answers by iteration",
      curves.over_steps(_panels(run, config.kl.target)),
      "Lines are of the answers that were learned from, dashes of those to "
      "held-out prompts. A group's KL is that on its own prompts, where there "
      "are any.",
    ),
    html_report.Figure(
      "Utility against distance from the start",
      groups.rewards_against_kl(
        run.distance, _against_kl(run), label="utility", root=True
      ),
      "Proxy is what the policy was moved towards, oracle what the judge says "
      "of the same answers. Stars are the highest points: past the oracle's, "
      "more of the proxy does harm.",
    ),
    html_report.Figure(
      "Learning",
      curves.training_curves(
        trained,
        keys=[f"train/{k}" for k in HEALTH if f"train/{k}" in trained[-1]],
        columns=3,
      ),
      "Means over the optimiser steps of an iteration.",
    ),
    _split(times),
    html_report.Figure(
      "Time of an iteration", curves.over_steps(_speed_panels(times))
    ),
  ]
  summary = _in_words(run, len(trained))
  html_report.write_report(
    workdir / "report.html",
    title="From rewards to a policy",
    summary=summary,
    sections=sections,
    warnings=warnings,
  )
  return summary


def _in_words(run: Run, iterations: int) -> str:
  """What a reader wants to know first."""
  where = "held-out prompts" if "eval/" in run.proxy else "its own prompts"
  text = (
    f"{iterations} iterations. On {where} the utility of the worst-off group "
    f"went from {run.worst[0]:.3f} to {run.worst[-1]:.3f}, at a KL of "
    f"{run.distance[-1]:.2f} nats per response."
  )
  if run.judged:
    first, last = (
      min(point[f"eval/judge/{name}"] for name in run.judged)
      for point in (run.points[0], run.points[-1])
    )
    text += f" To the judge it went from {first:.3f} to {last:.3f}."
  return text


def _stations(run: Run) -> html_report.Table:
  """Utilities at the start, at the end, and where they were best."""
  keys = {f"proxy, {g}": run.proxy + g for g in run.groups}
  keys |= {f"oracle, {g}": f"eval/judge/{g}" for g in run.judged}
  at = {"start": 0, "best for the proxy's worst-off": int(np.argmax(run.worst))}
  if run.judged:
    judged = [[p[f"eval/judge/{g}"] for g in run.judged] for p in run.points]
    at["best for the oracle's worst-off"] = int(
      np.argmax(np.min(judged, axis=1))
    )
  at["end"] = len(run.points) - 1
  return html_report.Table(
    title="What answers are worth to each group",
    columns=["", "iteration", "KL, nats", *keys],
    rows=[
      [
        name,
        int(run.points[i]["step"]),
        run.distance[i],
        *(run.points[i][key] for key in keys.values()),
      ]
      for name, i in at.items()
    ],
    note="Proxy is the source that the policy is moved towards, oracle the "
    "judge, which evaluations alone ask.",
  )


def _panels(run: Run, target: float | None) -> list[curves.Panel]:
  """Everything that is logged by iteration, a colour per group."""
  colour = lambda k: style.COLOURS[k % len(style.COLOURS)]
  line = lambda key, label, colour, dashed=False: curves.line(
    run.rows, key, label, colour, dashed=dashed
  )

  def of_groups(noun: str) -> list[curves.Line]:
    return [
      line(f"train/{noun}/{group}", group, colour(k))
      for k, group in enumerate(run.groups)
      if any(f"train/{noun}/{group}" in row for row in run.rows)
    ]

  def held_out(key: str, label: str, colour: str) -> list[curves.Line]:
    present = any(key in row for row in run.rows)
    return [line(key, label, colour, True)] if present else []

  def both(noun: str) -> list[curves.Line]:
    return [
      line(f"train/{noun}", "training", style.BLUE),
      *held_out(f"eval/{noun}", "held-out", style.BLUE),
    ]

  utilities = of_groups("utility")
  for k, group in enumerate(run.groups):
    utilities += held_out(
      f"eval/utility/{group}", f"{group}, held-out", colour(k)
    )
  return [
    curves.Panel("utility to the source", utilities),
    curves.Panel("group weight", of_groups("group_weight")),
    curves.Panel(
      "KL, nats per response",
      [
        *of_groups("kl"),
        line("train/kl", "all", style.GREY),
        *held_out("eval/kl", "all, held-out", style.GREY),
      ],
      target,
    ),
    curves.Panel(
      "KL coefficient", [line("train/kl_coef", "training", style.BLUE)]
    ),
    curves.Panel(
      "reward",
      [
        line("train/score", "weighted over groups", style.BLUE),
        line("train/shaped_score", "scaled and shaped", style.ORANGE),
      ],
    ),
    curves.Panel("tokens of a response", both("response_tokens")),
    curves.Panel("share of responses that ended", both("ended")),
  ]


def _against_kl(run: Run) -> dict[str, dict[str, list[float]]]:
  """Proxy and oracle of each group, at the points."""
  found: dict[str, dict[str, list[float]]] = {}
  for group in run.groups:
    found.setdefault(group, {})["proxy"] = run.column(run.proxy + group)
  for group in run.judged:
    found.setdefault(group, {})["oracle"] = run.column(f"eval/judge/{group}")
  return found


def _split(times: Sequence[Mapping[str, float]]) -> html_report.Table:
  """Medians over iterations but the first, which waits for compilation."""
  later = times[1:] or times
  seconds = {
    part: float(np.median([row[f"speed/{part}_seconds"] for row in later]))
    for part in PARTS
  }
  rate = np.median([row["speed/response_tokens_per_second"] for row in later])
  memory = "".join(
    f" {name} memory {times[-1][f'speed/{key}_memory_bytes'] / 2**30:.2f} GiB."
    for name, key in (("Host", "host"), ("Device", "device"))
    if f"speed/{key}_memory_bytes" in times[-1]
  )
  return html_report.Table(
    title="Where the time of an iteration goes",
    columns=["part", "median, s", "share of these", "first iteration, s"],
    rows=[
      [
        part,
        value,
        f"{value / sum(seconds.values()):.0%}",
        times[0][f"speed/{part}_seconds"],
      ]
      for part, value in seconds.items()
    ],
    note=f"{rate:,.0f} response tokens per second over all three. Medians of "
    f"{len(later)} iterations, evaluations and checkpoints aside.{memory}",
  )


def _speed_panels(times: Sequence[Mapping[str, float]]) -> list[curves.Panel]:
  """Seconds of the parts and response tokens per second, by iteration."""
  later = times[1:] or times
  rate = "speed/response_tokens_per_second"
  return [
    curves.Panel(
      "seconds",
      [
        curves.line(later, f"speed/{part}_seconds", part, style.COLOURS[k])
        for k, part in enumerate(PARTS)
      ],
    ),
    curves.Panel(
      "response tokens/s", [curves.line(later, rate, "all parts", style.GREY)]
    ),
  ]
