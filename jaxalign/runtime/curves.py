"""The picture of a training run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker

from jaxalign.runtime import canvas


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
  columns = max(1, min(columns, len(panels_of)))
  lines = max(1, -(-len(panels_of) // columns))
  drawn, panels = canvas.new(
    4.4 * columns, 2.7 * lines, lines, columns, sharex=True
  )
  for panel, (noun, group) in zip(panels.flat, panels_of.items(), strict=False):
    for number, key in enumerate(group):
      split, _, part = _name(key)
      points = [(row["step"], row[key]) for row in rows if key in row]
      steps, values = np.asarray(points, np.float64).T
      panel.plot(
        steps,
        np.where(np.isfinite(values), values, np.nan),
        # One split has one colour in all panels; so has one part.
        color=canvas.COLOURS[
          (number if part else splits.index(split)) % len(canvas.COLOURS)
        ],
        linewidth=1.4,
        # A line of one point would be invisible.
        marker="o" if steps.size < 15 else None,
        markersize=3.5,
        label=part or split,
      )
    panel.set(xlabel="step", ylabel=noun.replace("_", " "))
    panel.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    panel.xaxis.set_tick_params(labelbottom=True)
    panel.ticklabel_format(axis="y", scilimits=(-3, 5))
    canvas.legend(panel)
  for panel in panels.flat[len(panels_of) :]:
    panel.set_visible(not panels_of)
  if not panels_of:
    canvas.say_empty(panels[0, 0])
  return canvas.to_png(drawn)


def _name(key: str) -> tuple[str, str, str]:
  """Split, noun and part of a metric's name; a part may be empty."""
  split, _, noun = key.partition("/")
  noun, _, part = (noun or split).partition("/")
  return split, noun, part
