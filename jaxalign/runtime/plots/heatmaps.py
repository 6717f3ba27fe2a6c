"""Pictures of matrices: one colour per cell."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style

MAX_NUMBERS = 144  # cells up to which each shows its value


def heat_map(
  values: Any,
  rows: Sequence[str],
  columns: Sequence[str],
  *,
  label: str,
  low: float = 0.0,
  high: float = 1.0,
  numbers: bool = True,
) -> bytes:
  """A matrix as colours, and as numbers where they fit.

  Args:
    values: [R, C]; NaN leaves a cell empty.
    rows: name of each row, from the top down; an empty one shows nothing.
    columns: name of each column.
    label: what is shown, with its unit.
    low: value of the palest colour.
    high: value of the darkest colour.
    numbers: whether cells show their values; never in more than MAX_NUMBERS.

  Returns:
    PNG file.

  Raises:
    ValueError: the names do not fit the matrix.
  """
  cells = np.asarray(values, np.float64)
  if cells.shape != (len(rows), len(columns)):
    raise ValueError(
      f"values must be [{len(rows)}, {len(columns)}], one row and column per "
      f"name, got {cells.shape}"
    )
  tall = min(0.42 * max(len(rows), 2), 5.0)
  drawn, panels = style.new(2.6 + 0.8 * max(len(columns), 2), 1.1 + tall)
  panel = panels[0, 0]
  panel.grid(visible=False)
  if not cells.size:
    style.say_empty(panel)
    return style.to_png(drawn)
  image = panel.imshow(
    cells,
    aspect="auto",
    cmap="Blues",
    vmin=low,
    vmax=high,
    interpolation="nearest",
  )
  # Names come with the data; a dollar sign in one is no mathematics.
  shown = [i for i, name in enumerate(rows) if name]
  panel.set_yticks(shown, [rows[i] for i in shown], parse_math=False)
  panel.set_xticks(range(len(columns)), columns, parse_math=False)
  panel.tick_params(length=0)
  if numbers and cells.size <= MAX_NUMBERS:
    middle = (low + high) / 2
    for (row, column), value in np.ndenumerate(cells):
      if np.isfinite(value):
        panel.text(
          column,
          row,
          f"{value:.2f}",
          ha="center",
          va="center",
          fontsize=9,
          color="white" if value > middle else style.GREY,
        )
  bar = drawn.colorbar(image, ax=panel)
  bar.outline.set_visible(False)
  # It runs along the bar: a flat map needs it in lines.
  bar.set_label(textwrap.fill(label, int(14 * (0.5 + tall))), fontsize=9)
  bar.ax.tick_params(labelsize=9, colors=style.GREY)
  return style.to_png(drawn)
