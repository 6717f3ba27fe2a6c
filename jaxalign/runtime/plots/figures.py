"""Figures of preferences, rewards, calibration and training, as panels.

Each function computes what is drawn and gives panels of `panels`; the writer of
a page draws them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style
from jaxalign.runtime.plots.panels import (
  Band,
  Bars,
  Histogram,
  Intervals,
  Line,
  Panel,
)

NOISE = 1.96  # standard errors of a 95 % interval


def _finite(values: Any) -> np.ndarray:
  """Flat float64 without NaN and Inf."""
  flat = np.asarray(values, np.float64).ravel()
  return flat[np.isfinite(flat)]


def line(
  rows: Sequence[Mapping[str, float]],
  key: str,
  label: str,
  colour: str | None = None,
  *,
  dashed: bool = False,
) -> Line:
  """The curve of one metric over steps; rows without it are left out."""
  points = [(row["step"], row[key]) for row in rows if key in row]
  steps, values = zip(*points, strict=True) if points else ((), ())
  return Line(label, steps, values, colour, dashed)


def training_curves(
  rows: Sequence[Mapping[str, float]],
  keys: Sequence[str] | None = None,
  *,
  unit: str = "step",
) -> list[Panel]:
  """Metrics over steps, one panel per noun, its splits or parts together.

  Metrics are called `split/noun` or `split/noun/part`. `keys` says which ones,
  in this order; one that is in no row raises ValueError.
  """
  present = sorted({key for row in rows for key in row} - {"step"})
  for key in keys or ():
    if key not in present:
      raise ValueError(
        f"no row has {key!r}; there are: {', '.join(present) or 'none'}"
      )
  shown = present if keys is None else list(keys)
  panels_of: dict[str, list[str]] = {}
  for key in shown:
    panels_of.setdefault(_name(key)[1], []).append(key)
  splits = sorted({_name(key)[0] for key in shown}, reverse=True)

  def curve(number: int, key: str) -> Line:
    split, _, part = _name(key)
    # One split has one colour in all panels; so has one part.
    return line(rows, key, part or split, style.colour(
      number if part else splits.index(split)
    ))  # fmt: skip

  return [
    Panel(unit, noun.replace("_", " "), [curve(*at) for at in enumerate(keys)])
    for noun, keys in panels_of.items()
  ]


def _name(key: str) -> tuple[str, str, str]:
  """Split, noun and part of a metric's name; a part may be empty."""
  split, _, noun = key.partition("/")
  noun, _, part = (noun or split).partition("/")
  return split, noun, part


def lengths(series: Mapping[str, Any], *, label: str, bins: int = 40) -> Panel:
  """Positive quantities on a logarithmic axis; a 0 is drawn as a 1."""
  values = {name: np.maximum(_finite(v), 1.0) for name, v in series.items()}
  every = np.concatenate([*values.values(), np.empty(0)])
  low, high = (every.min(), every.max()) if every.size else (1.0, 10.0)
  edges = np.geomspace(low / 1.1, high * 1.1, bins + 1)
  return Panel(
    label,
    "pairs",
    [
      Histogram(
        f"{name}: median {np.median(v) if v.size else 0:,.0f}", v, edges
      )
      for name, v in values.items()
    ],
    log="x",
  )


def longer_wins(ratio: Any, wins: Any, *, num_bins: int = 10) -> Panel:
  """How often the longer response wins, by how much longer it is.

  `ratio` of the longer length to the shorter, >= 1, and `wins`, one half for a
  tie, are [N]; bins hold equally many pairs and have 95 % intervals.
  """
  ratio, wins = (np.asarray(part, np.float64).ravel() for part in (ratio, wins))
  if ratio.shape != wins.shape:
    raise ValueError(
      f"ratio and wins must be as long, got {ratio.shape} and {wins.shape}"
    )
  parts = np.array_split(np.argsort(ratio, kind="stable"), num_bins)
  parts = [part for part in parts if part.size]
  rates = np.array([wins[part].mean() for part in parts])
  sizes = np.array([part.size for part in parts])
  return Panel(
    "length of the longer response / the shorter",
    "share in which the longer was chosen",
    [
      Line(
        "",
        [np.exp(np.log(ratio[part]).mean()) for part in parts],
        rates,
        joined=False,
        error=NOISE * np.sqrt(rates * (1 - rates) / sizes),
      )
    ],
    levels={"no bias": 0.5},
    log="x",
    ylim=(0, 1),
  )


def ranked_counts(counts: Sequence[int], *, label: str, unit: str) -> Panel:
  """Positive counts from the largest down, both axes logarithmic."""
  ranked = np.sort(np.asarray(counts, np.float64))[::-1]
  top = 100 * ranked[0] / ranked.sum() if ranked.size else 0
  at = np.arange(1, ranked.size + 1)
  return Panel(
    label, unit, [Line(f"largest: {top:.1f} % of all", at, ranked)], log="xy"
  )


def vote_shares(shares: Any, *, bins: int = 20) -> Panel:
  """How the share of votes for the chosen response is spread, ties half."""
  edges = np.linspace(0, 1, bins + 1)
  bars = Histogram("", _finite(shares), edges)
  return Panel("share of votes for the chosen response", "pairs", [bars])


def reliability(curve: Sequence[Any]) -> list[Panel]:
  """Observed against predicted win rate per bin, and how full the bins are.

  The band is where the observed rate of a perfectly calibrated model lies in
  95 of 100 samples of this size: p ± 1.96·√(p(1−p)/n), p the mean prediction
  of the bin and n its count. Bars show the gap between the two rates.

  Args:
    curve: of `metrics.reliability_curve`: `edges` [num_bins + 1], `confidence`,
      `accuracy`, `count` [num_bins].
  """
  edges, confidence, accuracy, count = (
    np.asarray(part, np.float64) for part in curve
  )
  num_bins = edges.size - 1
  if not (confidence.shape == accuracy.shape == count.shape == (num_bins,)):
    raise ValueError(
      "curve must be edges [n + 1], confidence, accuracy, count [n], got "
      f"shapes {edges.shape}, {confidence.shape}, {accuracy.shape}, "
      f"{count.shape}"
    )
  full = count > 0
  p, won, n = confidence[full], accuracy[full], count[full]
  spread = NOISE * np.sqrt(p * (1 - p) / np.maximum(n, 1))
  wide = np.diff(edges)
  marks = [
    Line("calibrated", (0, 1), (0, 1), style.GREY, dashed=True),
    Band("sampling noise", p, np.maximum(p - spread, 0),
         np.minimum(p + spread, 1)),
    Bars("gap", p, won - p, 0.6 * wide[full], style.ORANGE, bottom=p),
    Line("observed", p, won, style.BLUE),
  ]  # fmt: skip
  ends, predicted = (edges[0], edges[-1]), "predicted win probability"
  bars = Bars("", (edges[:-1] + edges[1:]) / 2, count, 0.92 * wide)
  return [
    Panel(predicted, "observed win rate", marks if full.any() else [],
          xlim=ends, ylim=(0, 1), size=(5.0, 4.2)),
    Panel(predicted, "predictions", [bars], xlim=ends, size=(5.0, 4.2)),
  ]  # fmt: skip


def reward_histograms(chosen: Any, rejected: Any, *, bins: int = 40) -> Panel:
  """How the rewards of chosen and of rejected responses are spread."""
  values = {"chosen": _finite(chosen), "rejected": _finite(rejected)}
  every = np.concatenate([*values.values()])
  edges = np.histogram_bin_edges(every, bins) if every.size else (0.0, 1.0)
  marks = [
    Histogram(f"{name}: mean {v.mean() if v.size else 0:.3g}", v, edges,
              mean=True)
    for name, v in values.items()
  ]  # fmt: skip
  return Panel("reward", "responses", marks)


def gap_histogram(gaps: Any, *, bins: int = 40) -> Panel:
  """How far apart the rewards of a pair are, and how often the wrong way.

  `bins` lie on the longer side of zero, and none straddles it. NaN and Inf are
  left out; ties are not drawn but stated.
  """
  values = _finite(gaps)
  marks: list[Any] = []
  if values.size:
    width = max(float(np.abs(values).max()), 1e-12) / bins
    below, above = (
      int(np.ceil(max(float(side), 0.0) / width))
      for side in (-values.min(), values.max())
    )
    edges = width * np.arange(-below, max(above, 1) + 1)
    sides = {
      "right": (values > 0, style.BLUE),
      "wrong": (values < 0, style.ORANGE),
    }
    for name, (where, colour) in sides.items():
      label = f"{name} order: {100 * where.mean():.1f} % of {values.size:,}"
      marks.append(Histogram(label, values[where], edges, colour))
    ties = (values == 0).mean()
    if ties > 0:
      marks.append(Line(f"ties: {100 * ties:.1f} %", (0,), (0,), style.GREY))
  where = {"_zero": 0.0}
  return Panel("reward gap, chosen − rejected", "pairs", marks, uprights=where)


def label_shares(
  curve: Sequence[Any], labels: Sequence[str], predicted: Any, crowd: Any
) -> list[Panel]:
  """Calibration of predicted shares, and the mean share of each label.

  `curve` holds edges, the mean predicted share, the mean share of the crowd and
  the number of predictions by bin; `predicted` and `crowd` are mean shares [d].
  """
  _, confidence, observed, count = (np.asarray(x, float) for x in curve)
  shares = {"predicted": np.asarray(predicted), "crowd": np.asarray(crowd)}
  for name, values in shares.items():
    if values.shape != (len(labels),):
      raise ValueError(
        f"{name} must be one share for each of {len(labels)} labels, got shape "
        f"{values.shape}"
      )
  full = count > 0
  exact = Line("calibrated", (0, 1), (0, 1), style.GREY, dashed=True)
  means = [
    Intervals("predicted", predicted, shift=-0.15),
    Intervals("crowd", crowd, shift=0.15),
  ]
  seen = Line("all labels", confidence[full], observed[full], style.BLUE)
  return [
    Panel("predicted share", "crowd's share", [exact, seen], xlim=(0, 1),
          ylim=(0, 1)),
    Panel("mean share", "", means,
          rows=labels),
  ]  # fmt: skip


def against_strength(
  strength: Any,
  values: Any,
  *,
  label: str,
  level: float | None = None,
  unit: str = "reward units",
  interval: tuple[Any, Any] | None = None,
) -> Panel:
  """A quantity of groups of pairs by mean strength, ascending, both [G].

  `interval` has the ends of a 95 % interval of each, [G].
  """
  marks: list[Any] = [Line("", strength, values)]
  reach = [level or 0.0, *np.ravel(values).tolist()]
  if interval is not None:
    marks.insert(0, Band("95 % interval", strength, *interval))
    reach += np.ravel(interval[1]).tolist()
  top = 1.08 * max(reach)
  return Panel(
    f"strength, {unit}",
    label,
    marks,
    levels={} if level is None else {"chance": level},
    uprights={"_zero": 0.0},
    ylim=(0, top or 1),
  )


def feature_planes(planes: Mapping[str, tuple[Any, Any]]) -> list[Panel]:
  """Chosen and rejected responses on two axes, one panel per state.

  A state, such as "before", has points [N, 2, 2] (chosen first, then the two
  coordinates) and the share of the variance that each axis holds, [2]. Stars
  mark the means; pairs with NaN or Inf are left out.
  """
  drawn = []
  for name, (points, shares) in planes.items():
    pairs = np.asarray(points, np.float64)
    pairs = pairs[np.isfinite(pairs).all(axis=(1, 2))]
    marks = []
    for label, side, colour in (
      ("rejected", 1, style.ORANGE),
      ("chosen", 0, style.BLUE),
    ):
      if len(pairs):
        points, mean = pairs[:, side].T, pairs[:, side].mean(axis=0)
        marks += [
          Line("", *points, colour, joined=False),
          Line(label, *mean[:, None], colour, joined=False, star=True),
        ]
    drawn.append(
      Panel(
        f"first axis, {shares[0]:.0%} of the variance",
        f"second axis, {shares[1]:.0%}",
        marks,
        title=name,
        size=(4.6, 4.2),
      )
    )
  return drawn


def group_bars(
  values: Mapping[str, Any],
  groups: Sequence[str],
  *,
  label: str,
  errors: Mapping[str, Any] | None = None,
) -> Panel:
  """What each policy is worth to each group: a cluster of bars per group.

  `values` are [R, K] of R runs, which are dots where there are several;
  `errors` half lengths of error bars, [K], where they are known.
  """
  arrays = {k: np.asarray(v, np.float64) for k, v in values.items()}
  for name, array in arrays.items():
    if array.ndim != 2 or array.shape[1] != len(groups):
      raise ValueError(
        f"values of {name!r} must be [R, {len(groups)}], got {array.shape}"
      )
  width = 0.8 / max(len(arrays), 1)
  places = np.arange(len(groups))
  marks = [
    Bars(
      name,
      places + (i - (len(arrays) - 1) / 2) * width,
      array.mean(axis=0),
      0.9 * width,
      error=(errors or {}).get(name),
      runs=array if len(array) > 1 else None,
    )
    for i, (name, array) in enumerate(arrays.items())
  ]
  wide = min(2.4 + 1.5 * len(groups), 9.0)
  return Panel(
    "",
    label,
    marks,
    columns=groups,
    levels={"_zero": 0.0},
    size=(max(wide, 5.0), 3.6),
    aside=True,
  )
