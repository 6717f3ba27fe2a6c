"""Plot vocabulary: lines, bars, histograms, intervals and heat maps as data.

A panel says what it shows; `png` draws it. One panel is one picture, so that a
page may set several side by side or below each other, as wide as its
reader's screen.
"""

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxalign.runtime.plots import style

if TYPE_CHECKING:
  from matplotlib import axes

SMOOTHED = 100  # values from which a line is drawn as its running mean
MAX_NUMBERS = 144  # cells up to which each cell of a heat map shows its value
COUNTED = ("step", "iteration", "pairs seen of a person")  # whole numbers
Limits = tuple[float, float] | None


class Line(NamedTuple):
  """One curve, or its points alone; non-finite values leave a break."""

  label: str  # in the legend, "" for none
  x: Any  # [N]
  y: Any  # [N]
  colour: str | None = None  # None for the next one of the panel
  dashed: bool = False  # with a mark at each value
  joined: bool = True
  error: Any = None  # half length of the error bars, [N]
  star: bool = False  # marks the highest point


class Bars(NamedTuple):
  """Bars from `bottom` on, with error bars or the runs they are means of."""

  label: str
  x: Any  # middle of each, [N]
  heights: Any  # [N]
  width: Any = 0.8  # a number or [N]
  colour: str | None = None
  bottom: Any = 0.0  # a number or [N]
  error: Any = None  # half length of the error bars, [N]
  runs: Any = None  # heights of each run, [R, N], drawn as dots


class Histogram(NamedTuple):
  """How often values fall between edges."""

  label: str
  values: Any
  edges: Any
  colour: str | None = None
  mean: bool = False  # marks it


class Intervals(NamedTuple):
  """A value with its interval in each row of a panel with names."""

  label: str
  values: Any  # one per row from the top down, [K]; NaN where there is none
  low: Any = None  # lower ends, [K], or None for no intervals
  high: Any = None
  shift: float = 0.0  # down from the middle of the row


class Band(NamedTuple):
  """An area between two curves."""

  label: str
  x: Any
  low: Any
  high: Any


Mark = Line | Bars | Histogram | Intervals | Band


@dataclasses.dataclass(frozen=True)
class Panel:
  """A pair of axes and what is drawn in it."""

  x: str  # what the horizontal axis measures, with its unit
  y: str
  marks: Sequence[Mark]
  title: str = ""
  # Dotted lines by label, across and upright; "_" hides a label.
  levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
  uprights: Mapping[str, float] = dataclasses.field(default_factory=dict)
  columns: Sequence[str] = ()  # names below the places 0, 1, ...
  rows: Sequence[str] = ()  # names beside `Intervals`, from the top down
  log: str = ""  # axes with a logarithmic scale, such as "x" or "xy"
  xlim: Limits = None  # None to fit
  ylim: Limits = None
  size: tuple[float, float] | None = None  # in inches, None for a usual one
  aside: bool = False  # whether the legend stands above the axes

  def figure(self) -> Any:
    """The matplotlib figure."""
    tall = 1.1 + 0.34 * max(len(self.rows), 1) if self.rows else 3.1
    drawn, axes = style.new(*(self.size or (5.0, tall)))
    at = axes[0, 0]
    colours = itertools.cycle(style.COLOURS)
    found = [_draw(at, mark, colours) for mark in self.marks]
    drawn_any = any(found)
    if not drawn_any:
      style.say_empty(at)
    self._refer(at)
    at.set_xlabel(self.x, parse_math=False)
    at.set_ylabel(self.y, parse_math=False)
    at.set_title(self.title, fontsize=10, parse_math=False)
    # None would keep the limits of a linear scale, which may lie below 0.
    limits = {"xlim": self.xlim, "ylim": self.ylim}
    at.set(**{name: ends for name, ends in limits.items() if ends is not None})
    self._scale(at, self.log if drawn_any else "")
    if at.get_legend_handles_labels()[1]:
      style.legend(at, self.aside)
    return drawn

  def _refer(self, at: "axes.Axes") -> None:
    """The lines that values are to be compared with."""
    for draw, places in (
      (at.axhline, self.levels),
      (at.axvline, self.uprights),
    ):
      for label, place in places.items():
        draw(place, color=style.GREY, linestyle=":", linewidth=1.2, label=label)

  def _scale(self, at: "axes.Axes", log: str) -> None:
    """Ticks and names."""
    for name, axis in (("x", at.xaxis), ("y", at.yaxis)):
      if name in log:
        at.set(**{f"{name}scale": "log"})
        _plain_ticks(axis)
    if not log and not self.columns and not self.rows:
      at.ticklabel_format(scilimits=(-3, 5))
    if self.x in COUNTED:
      at.locator_params(axis="x", integer=True, nbins=6)
    if self.columns:
      at.set_xticks(range(len(self.columns)), self.columns, parse_math=False)
      at.grid(visible=False, axis="x")
    if self.rows:
      # Names come with the data; a dollar sign in one is no mathematics.
      at.set_yticks(range(len(self.rows)), self.rows, parse_math=False)
      at.set_ylim(len(self.rows) - 0.5, -0.5)
      at.grid(visible=False, axis="y")

  def png(self) -> bytes:
    """The picture as a PNG file; equal panels are equal bytes."""
    return style.to_png(self.figure())


def _plain_ticks(axis: Any) -> None:
  """Numbers as people write them, at 1, 2 and 5 times powers of ten."""
  from matplotlib import ticker

  axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
  axis.set_major_formatter(
    ticker.FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:g}")
  )
  axis.set_minor_formatter(ticker.NullFormatter())


def _draw(at: "axes.Axes", mark: Mark, colours: Any) -> bool:
  """Draws a mark; whether there was anything to draw."""
  label = mark.label or None
  match mark:
    case Line():
      return _draw_line(at, mark, mark.colour or next(colours))
    case Bars():
      colour = mark.colour or next(colours)
      x, heights = _floats(mark.x), _floats(mark.heights)
      at.bar(
        x,
        heights,
        mark.width,
        mark.bottom,
        color=(colour, 0.45 if mark.runs is not None else 0.8),
        label=label,
        yerr=mark.error,
        ecolor=style.GREY,
        capsize=3,
      )
      if mark.runs is not None:
        # Beside each other, so that equal runs are seen to be several.
        offsets = np.linspace(-0.25, 0.25, len(mark.runs)) * mark.width
        places = (x + offsets[:, None]).ravel()
        at.scatter(places, _floats(mark.runs).ravel(), s=9, color=colour)
      return bool(x.size)
    case Histogram():
      colour, values = mark.colour or next(colours), _floats(mark.values)
      if values.size:
        at.hist(
          values,
          mark.edges,
          histtype="stepfilled",
          facecolor=(colour, 0.35),
          edgecolor=colour,
          label=label,
        )
      if values.size and mark.mean:
        at.axvline(values.mean(), color=colour, linestyle="--")
      return bool(values.size)
    case Intervals():
      return _draw_intervals(at, mark, next(colours))
    case Band():
      at.fill_between(
        _floats(mark.x),
        _floats(mark.low),
        _floats(mark.high),
        color=style.GREY,
        alpha=0.18,
        linewidth=0,
        label=label,
      )
      return bool(_floats(mark.x).size)


def _draw_line(at: "axes.Axes", line: Line, colour: str) -> bool:
  x, y = _floats(line.x), _floats(line.y)
  if x.shape != y.shape:
    raise ValueError(
      f"line {line.label!r}: x and y must be as long, got {x.shape} and "
      f"{y.shape}"
    )
  y = np.where(np.isfinite(y), y, np.nan)
  if y.size >= SMOOTHED and line.joined:
    at.plot(x, y, color=colour, alpha=0.2, linewidth=0.7)
    y = running_mean(y, y.size // 25)
  # A line of one point would be invisible.
  marked = line.dashed or not line.joined or y.size < 15
  at.errorbar(
    x,
    y,
    yerr=line.error,
    color=colour,
    linewidth=1.4,
    linestyle=("--" if line.dashed else "-") if line.joined else "",
    marker="o" if marked else None,
    markersize=3.5,
    capsize=3,
    label=line.label or None,
    # A cloud of points leaves its mean to be seen.
    alpha=1.0 if line.joined or line.label or line.error is not None else 0.35,
  )
  if line.star and np.isfinite(y).any():
    top = int(np.nanargmax(y))
    star = {"marker": "*", "ms": 14, "markeredgecolor": "white", "zorder": 4}
    at.plot(x[top], y[top], color=colour, linestyle="", clip_on=False, **star)
  return bool(y.size)


def _draw_intervals(at: "axes.Axes", mark: Intervals, colour: str) -> bool:
  values = _floats(mark.values)
  rows = np.arange(values.size) + mark.shift
  if mark.low is not None:
    ends = _floats(mark.low), _floats(mark.high)
    at.hlines(rows, *ends, colors=colour, linewidth=2)
  label = mark.label or None
  at.scatter(values, rows, color=colour, s=32, zorder=3, label=label)
  return bool(np.isfinite(values).any())


@dataclasses.dataclass(frozen=True)
class HeatMap:
  """A matrix from 0, pale, to 1, dark, with numbers where they fit."""

  values: Any  # [R, C]; NaN leaves a cell empty
  rows: Sequence[str]  # names from the top down; an empty one shows nothing
  columns: Sequence[str]
  label: str  # what is shown, with its unit
  numbers: bool = True

  def __post_init__(self) -> None:
    """Raises ValueError where the names do not fit the matrix."""
    shape, wanted = np.shape(self.values), (len(self.rows), len(self.columns))
    if shape != wanted:
      raise ValueError(
        f"values must be {[*wanted]}, one row and column per name, got {shape}"
      )

  def figure(self) -> Any:
    """The matplotlib figure."""
    cells = _floats(self.values)
    tall = min(0.42 * max(len(self.rows), 2), 5.0)
    wide = 2.6 + 0.9 * max(len(self.columns), 2)
    drawn, axes = style.new(wide, 1.1 + tall)
    panel = axes[0, 0]
    panel.grid(visible=False)
    if not cells.size:
      style.say_empty(panel)
      return drawn
    image = panel.imshow(
      cells,
      aspect="auto",
      cmap="Blues",
      vmin=0.0,
      vmax=1.0,
      interpolation="nearest",
    )
    shown = [i for i, name in enumerate(self.rows) if name]
    names = [textwrap.fill(self.rows[i], 24) for i in shown]
    panel.set_yticks(shown, names, parse_math=False)
    columns = [textwrap.fill(name, 13) for name in self.columns]
    panel.set_xticks(range(len(columns)), columns, parse_math=False)
    panel.tick_params(length=0)
    if self.numbers and cells.size <= MAX_NUMBERS:
      for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
          panel.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if value > 0.5 else style.GREY,
          )
    bar = drawn.colorbar(image, ax=panel)
    bar.outline.set_visible(False)
    # It runs along the bar: a flat map needs it in lines.
    fitted = textwrap.fill(self.label, int(14 * (0.5 + tall)))
    bar.set_label(fitted, fontsize=9)
    bar.ax.tick_params(labelsize=9, colors=style.GREY)
    return drawn

  def png(self) -> bytes:
    """The picture as a PNG file; equal maps are equal bytes."""
    return style.to_png(self.figure())


Picture = Panel | HeatMap


def alike(panels: Sequence[Panel], axes: str = "y") -> list[Panel]:
  """Panels that share the ends of these axes, so that they can be compared."""
  limits = {}
  for name in axes:
    ends = np.array([_ends(panel, name) for panel in panels])
    ends = ends[np.isfinite(ends).all(axis=1)]
    if len(ends):
      low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
      limits[f"{name}lim"] = (low, high)
  return [dataclasses.replace(panel, **limits) for panel in panels]


def _ends(panel: Panel, name: str) -> tuple[float, float]:
  """The ends that matplotlib gives the axis of a panel, NaN if it is empty."""
  axes = panel.figure().axes[0]
  if not np.isfinite(axes.dataLim.bounds).all():
    return np.nan, np.nan
  low, high = axes.get_xlim() if name == "x" else axes.get_ylim()
  return float(low), float(high)


def _floats(values: Any) -> np.ndarray:
  return np.asarray(values, np.float64)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
  """Means of [N] over a window about each value, smaller at both ends.

  NaN counts in no mean and stays NaN; an even width counts as the next odd one.
  """
  half = width // 2
  there = np.isfinite(values)
  total = np.cumsum([0.0, *np.where(there, values, 0.0)])
  count = np.cumsum([0, *there])
  low = np.maximum(np.arange(values.size) - half, 0)
  high = np.minimum(np.arange(values.size) + half + 1, values.size)
  means = (total[high] - total[low]) / np.maximum(count[high] - count[low], 1)
  return np.where(there, means, np.nan)
