"""Pictures of a training run: values over steps, in panels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.runtime.plots import style

SMOOTHED = 100  # values from which a line is drawn as its running mean


class Line(NamedTuple):
  """One curve of a panel.

  Attributes:
    label: what the legend calls it.
    steps: where it has values, [N].
    values: [N]; a non-finite one leaves a break in the line.
    colour: of the line.
    dashed: whether it is dashed, with a mark at each value.
  """

  label: str
  steps: Sequence[float]
  values: Sequence[float]
  colour: str
  dashed: bool = False


class Panel(NamedTuple):
  """Curves over the same steps.

  Attributes:
    label: what is measured, with its unit.
    lines: the curves.
    target: height of a dotted line that the curves are meant to reach, or None.
  """

  label: str
  lines: Sequence[Line]
  target: float | None = None


def line(
  rows: Sequence[Mapping[str, float]],
  key: str,
  label: str,
  colour: str,
  *,
  dashed: bool = False,
) -> Line:
  """The curve of one metric.

  Args:
    rows: dicts with "step" and metrics, as `writer.read_rows` gives them; the
      metric may be absent from a row.
    key: of the metric.
    label: what the legend calls it.
    colour: of the line.
    dashed: whether it is dashed, with a mark at each value.

  Returns:
    The line.
  """
  points = [(row["step"], row[key]) for row in rows if key in row]
  return Line(
    label, [p[0] for p in points], [p[1] for p in points], colour, dashed
  )


def over_steps(panels: Sequence[Panel], *, columns: int = 2) -> bytes:
  """Curves over steps.

  A line of `SMOOTHED` values or more is a running mean over a twenty-fifth of
  them, with the values themselves pale behind it.

  Args:
    panels: in reading order.
    columns: panels side by side.

  Returns:
    PNG file.
  """
  from matplotlib import ticker

  columns = max(1, min(columns, len(panels)))
  lines = max(1, -(-len(panels) // columns))
  drawn, axes = style.new(
    4.4 * columns, 2.7 * lines, lines, columns, sharex=True
  )
  for place, panel in zip(axes.flat, panels, strict=False):
    for curve in panel.lines:
      steps = np.asarray(curve.steps, np.float64)
      values = np.asarray(curve.values, np.float64)
      values = np.where(np.isfinite(values), values, np.nan)
      if values.size >= SMOOTHED:
        place.plot(steps, values, color=curve.colour, alpha=0.2, linewidth=0.7)
        values = running_mean(values, values.size // 25)
      place.plot(
        steps,
        values,
        color=curve.colour,
        linewidth=1.4,
        linestyle="--" if curve.dashed else "-",
        # A line of one point would be invisible.
        marker="o" if curve.dashed or values.size < 15 else None,
        markersize=3.5,
        label=curve.label,
      )
    if panel.target is not None:
      place.axhline(
        panel.target,
        color=style.GREY,
        linestyle=":",
        linewidth=1.4,
        label="target",
      )
    place.set(xlabel="step", ylabel=panel.label)
    place.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    place.xaxis.set_tick_params(labelbottom=True)
    place.ticklabel_format(axis="y", scilimits=(-3, 5))
    style.legend(place)
  for place in axes.flat[len(panels) :]:
    place.set_visible(not panels)
  if not panels:
    style.say_empty(axes[0, 0])
  return style.to_png(drawn)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
  """Means over a window about each value, smaller at both ends.

  Args:
    values: [N]; NaN counts in no mean and stays NaN.
    width: values of the window; an even one counts as the next odd one.

  Returns:
    float64 [N].
  """
  half = width // 2
  there = np.isfinite(values)
  total = np.cumsum([0.0, *np.where(there, values, 0.0)])
  count = np.cumsum([0, *there])
  low = np.maximum(np.arange(values.size) - half, 0)
  high = np.minimum(np.arange(values.size) + half + 1, values.size)
  means = (total[high] - total[low]) / np.maximum(count[high] - count[low], 1)
  return np.where(there, means, np.nan)


def training_curves(
  rows: Sequence[Mapping[str, float]],
  *,
  keys: Sequence[str] | None = None,
  columns: int = 2,
) -> bytes:
  """Metrics over steps, one panel per metric, its splits or parts together.

  Args:
    rows: dicts with "step" and metrics called `split/noun` or
      `split/noun/part`, as `writer.read_rows` gives them; a metric may be
      absent from a row, and a non-finite value leaves a break in the line.
    keys: which metrics, in this order; all by default, sorted.
    columns: panels side by side.

  Returns:
    PNG file.

  Raises:
    ValueError: a key is in no row.
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
    at = number if part else splits.index(split)
    colour = style.COLOURS[at % len(style.COLOURS)]
    return line(rows, key, part or split, colour)

  return over_steps(
    [
      Panel(
        noun.replace("_", " "),
        [curve(number, key) for number, key in enumerate(group)],
      )
      for noun, group in panels_of.items()
    ],
    columns=columns,
  )


def _name(key: str) -> tuple[str, str, str]:
  """Split, noun and part of a metric's name; a part may be empty."""
  split, _, noun = key.partition("/")
  noun, _, part = (noun or split).partition("/")
  return split, noun, part
