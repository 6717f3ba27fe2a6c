"""Pictures of rewards, calibration and groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style


def _finite(values: Any) -> np.ndarray:
  """Flat float64 without NaN and Inf."""
  flat = np.asarray(values, np.float64).ravel()
  return flat[np.isfinite(flat)]


def _edges(*groups: np.ndarray, bins: int) -> np.ndarray:
  """Common bin edges that cover every value."""
  values = np.concatenate(groups)
  return np.histogram_bin_edges(values, bins) if values.size else np.arange(2.0)


def reliability_diagram(
  curve: Sequence[Any],
  *,
  title: str = "",
  noise_sigmas: float = 1.96,
) -> bytes:
  """Observed against predicted win rate per bin, and how full the bins are.

  The band is where the observed rate of a perfectly calibrated model lies in
  95 of 100 samples of this size: p ± 1.96·√(p(1−p)/n), p the mean prediction
  of the bin and n its count. Bars show the gap between the two rates.

  Args:
    curve: `edges` [num_bins + 1], `confidence`, `accuracy`, `count`
      [num_bins], in this order, as `metrics.reliability_curve` gives them.
    title: heading inside the picture; none by default.
    noise_sigmas: half width of the band in standard errors.

  Returns:
    PNG file. Bins without predictions are left out.

  Raises:
    ValueError: the four arrays do not fit together.
  """
  from matplotlib import ticker

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
  drawn, panels = style.new(5.2, 5.6, 2, 1, sharex=True, height_ratios=(4, 1))
  upper, lower = panels[:, 0]
  upper.plot(
    (0, 1),
    (0, 1),
    color=style.GREY,
    linewidth=1,
    linestyle="--",
    label="calibrated",
  )
  full = count > 0
  p, won, n = confidence[full], accuracy[full], count[full]
  if full.any():
    spread = noise_sigmas * np.sqrt(p * (1 - p) / n)
    upper.fill_between(
      p,
      np.clip(p - spread, 0, 1),
      np.clip(p + spread, 0, 1),
      color=style.GREY,
      alpha=0.18,
      linewidth=0,
      label="sampling noise",
    )
    upper.bar(
      p,
      won - p,
      bottom=p,
      width=0.6 * np.diff(edges)[full],
      color=style.ORANGE,
      alpha=0.35,
      label="gap",
    )
    upper.plot(
      p, won, color=style.BLUE, marker="o", markersize=4, label="observed"
    )
    lower.bar(
      (edges[:-1] + edges[1:]) / 2,
      count,
      0.92 * np.diff(edges),
      color=style.BLUE,
    )
  else:
    style.say_empty(upper)
  upper.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), title=title)
  upper.set_ylabel("observed win rate")
  style.legend(upper)
  lower.set_ylabel("predictions")
  lower.set_xlabel("predicted win probability")
  lower.yaxis.set_major_locator(ticker.MaxNLocator(3, integer=True))
  return style.to_png(drawn)


def reward_histograms(
  chosen: Any,
  rejected: Any,
  *,
  bins: int = 40,
  title: str = "",
) -> bytes:
  """How the rewards of chosen and of rejected responses are spread.

  Args:
    chosen: rewards of preferred responses, [...]; NaN and Inf are left out.
    rejected: rewards of the others, [...].
    bins: number of bins, common to both.
    title: heading inside the picture; none by default.

  Returns:
    PNG file, with both means marked.
  """
  drawn, panels = style.new(6.4, 3.6)
  panel = panels[0, 0]
  values = {"chosen": _finite(chosen), "rejected": _finite(rejected)}
  edges = _edges(*values.values(), bins=bins)
  for (name, rewards), colour in zip(
    values.items(), style.COLOURS, strict=False
  ):
    if not rewards.size:
      continue
    panel.hist(
      rewards,
      edges,
      histtype="stepfilled",
      facecolor=(colour, 0.3),
      edgecolor=colour,
      label=f"{name}: mean {rewards.mean():.3g}, n {rewards.size:,}",
    )
    panel.axvline(rewards.mean(), color=colour, linestyle="--")
  if any(rewards.size for rewards in values.values()):
    style.legend(panel)
  else:
    style.say_empty(panel)
  panel.set(xlabel="reward", ylabel="responses", title=title)
  return style.to_png(drawn)


def gap_histogram(gaps: Any, *, bins: int = 40, title: str = "") -> bytes:
  """How far apart the rewards of a pair are, and how often the wrong way.

  Args:
    gaps: reward of chosen minus rejected, [...]; NaN and Inf are left out.
    bins: number of bins on the longer side of zero; no bin straddles zero.
    title: heading inside the picture; none by default.

  Returns:
    PNG file; pairs ranked the wrong way are drawn in another colour, ties
    are not drawn but stated.
  """
  drawn, panels = style.new(6.4, 3.6)
  panel = panels[0, 0]
  values = _finite(gaps)
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
      panel.hist(
        values[where],
        edges,
        color=colour,
        alpha=0.75,
        label=f"{name} order: {100 * where.mean():.1f} % of {values.size:,}",
      )
    panel.axvline(0, color=style.GREY, linewidth=1)
    ties = (values == 0).mean()
    if ties > 0:
      panel.plot([], [], " ", label=f"ties: {100 * ties:.1f} %")
    style.legend(panel)
  else:
    style.say_empty(panel)
  panel.set(xlabel="reward gap, chosen − rejected", ylabel="pairs", title=title)
  return style.to_png(drawn)


def group_intervals(
  names: Sequence[str],
  values: Any,
  low: Any,
  high: Any,
  *,
  label: str,
  title: str = "",
) -> bytes:
  """One value per group with its interval, the worst group marked.

  Args:
    names: the groups, from the top down.
    values: [K], higher is better; NaN where a group has none.
    low: lower ends of the intervals, [K].
    high: upper ends, [K].
    label: what is measured, with its unit.
    title: heading inside the picture; none by default.

  Returns:
    PNG file.

  Raises:
    ValueError: the lengths differ.
  """
  middle, lower, upper = (
    np.asarray(part, np.float64) for part in (values, low, high)
  )
  if not middle.shape == lower.shape == upper.shape == (len(names),):
    raise ValueError(
      f"names, values, low and high must be as long, got {len(names)}, "
      f"{middle.shape}, {lower.shape}, {upper.shape}"
    )
  drawn, panels = style.new(6.4, 1.1 + 0.34 * max(len(names), 1))
  panel = panels[0, 0]
  rows = np.arange(len(names))
  if np.isfinite(middle).any():
    worst = int(np.nanargmin(middle))
    colours = [style.ORANGE if row == worst else style.BLUE for row in rows]
    panel.hlines(rows, lower, upper, colors=colours, linewidth=2)
    panel.scatter(middle, rows, c=colours, s=32, zorder=3)
    panel.axvline(middle[worst], color=style.ORANGE, linestyle=":", linewidth=1)
  else:
    style.say_empty(panel)
  # Names come with the data; a dollar sign in one is no mathematics.
  panel.set_yticks(rows, names, parse_math=False)
  panel.set_ylim(max(len(names), 1) - 0.5, -0.5)
  panel.grid(visible=False, axis="y")
  panel.set(xlabel=label, title=title)
  return style.to_png(drawn)


# Pictures of predicted label distributions.


def label_shares(
  curve: Sequence[Any], labels: Sequence[str], predicted: Any, crowd: Any
) -> bytes:
  """Calibration of predicted shares, and the mean share of each label.

  Args:
    curve: edges [num_bins + 1], mean predicted share, mean share of the crowd
      and number of predictions [num_bins].
    labels: names, from the top down.
    predicted: mean predicted share of each label, [d].
    crowd: mean share of the crowd, [d].

  Returns:
    PNG file. Bins without predictions are left out.

  Raises:
    ValueError: shares and labels are not as many.
  """
  _, confidence, observed, count = (np.asarray(x, float) for x in curve)
  shares = {"predicted": np.asarray(predicted), "crowd": np.asarray(crowd)}
  for name, values in shares.items():
    if values.shape != (len(labels),):
      raise ValueError(
        f"{name} must be one share for each of {len(labels)} labels, got shape "
        f"{values.shape}"
      )
  drawn, panels = style.new(
    8.4, max(3.4, 1.4 + 0.42 * len(labels)), 1, 2, width_ratios=(1, 1.2)
  )
  left, right = panels[0]
  left.plot((0, 1), (0, 1), color=style.GREY, linewidth=1, linestyle="--")
  full = count > 0
  if full.any():
    left.plot(confidence[full], observed[full], color=style.BLUE, linewidth=1)
    left.scatter(
      confidence[full],
      observed[full],
      s=12 + 120 * count[full] / count.max(),
      color=style.BLUE,
    )
  else:
    style.say_empty(left)
  left.set(
    xlim=(0, 1), ylim=(0, 1), xlabel="predicted share", ylabel="crowd's share"
  )
  rows = np.arange(len(labels))
  for (name, values), colour, offset in zip(
    shares.items(), (style.BLUE, style.ORANGE), (-0.19, 0.19), strict=True
  ):
    right.barh(rows + offset, values, 0.36, color=colour, label=name)
  # Names come with the data; a dollar sign in one is no mathematics.
  right.set_yticks(rows, labels, parse_math=False)
  right.set_ylim(len(labels) - 0.5, -0.5)
  right.grid(visible=False, axis="y")
  right.set(xlabel="mean share")
  style.legend(right)
  return style.to_png(drawn)


# Pictures of how clear preferences are.


def against_strength(
  strength: Any, values: Any, *, label: str, level: float | None = None
) -> bytes:
  """A quantity of groups of pairs by the strength of their preference.

  Args:
    strength: mean of each group in reward units, ascending, [G].
    values: the quantity, [G].
    label: what it is, with its unit.
    level: drawn as a horizontal line, None for none.

  Returns:
    PNG file.

  Raises:
    ValueError: the lengths differ.
  """
  x, y = (np.asarray(part, np.float64).ravel() for part in (strength, values))
  if x.shape != y.shape:
    raise ValueError(
      f"strength and values must be as long, got {x.shape} and {y.shape}"
    )
  drawn, panels = style.new(6.4, 3.2)
  panel = panels[0, 0]
  if x.size:
    panel.axvline(0, color=style.GREY, linewidth=1)
    panel.plot(x, y, color=style.BLUE, marker="o", markersize=4)
  else:
    style.say_empty(panel)
  if level is not None:
    panel.axhline(level, color=style.GREY, linewidth=1, linestyle="--")
  panel.set(xlabel="strength, reward units", ylabel=label)
  panel.set_ylim(bottom=0)
  return style.to_png(drawn)


# Pictures of features: where chosen and rejected responses lie.


def feature_planes(
  planes: Mapping[str, tuple[Any, Any]], *, title: str = ""
) -> bytes:
  """Chosen and rejected responses on two axes, one panel per state.

  Args:
    planes: per state, such as "before" and "after", the points [N, 2, 2]
      (chosen first, then the two coordinates) and the share of the variance
      that each axis holds, [2].
    title: heading inside the picture; none by default.

  Returns:
    PNG file. Crosses mark the means; pairs with NaN or Inf are left out.
  """
  drawn, panels = style.new(4.2 * max(len(planes), 1), 4.0, 1, len(planes))
  for panel, (name, (points, shares)) in zip(
    panels[0], planes.items(), strict=True
  ):
    pairs = np.asarray(points, np.float64)
    pairs = pairs[np.isfinite(pairs).all(axis=(1, 2))]
    if not len(pairs):
      style.say_empty(panel)
      continue
    sides = zip(("rejected", "chosen"), (1, 0), strict=True)
    for label, side in sides:
      colour = (style.BLUE, style.ORANGE)[side]
      panel.scatter(
        *pairs[:, side].T, s=9, color=colour, alpha=0.45, linewidths=0
      )
      panel.scatter(
        *pairs[:, side].mean(axis=0),
        s=90,
        marker="X",
        color=colour,
        edgecolors="white",
        label=label,
        zorder=3,
      )
    style.legend(panel)
    panel.set(
      title=name,
      xlabel=f"first axis, {shares[0]:.0%} of the variance",
      ylabel=f"second axis, {shares[1]:.0%}",
    )
  drawn.suptitle(title or None)
  return style.to_png(drawn)
