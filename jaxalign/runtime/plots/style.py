"""Figure style: size, colours, axes, PNG bytes.

Matplotlib's object interface only: no global figure list, no display. It is
imported with the first picture, as a run that draws none need not wait for it.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  from matplotlib import axes, figure

# Okabe and Ito's colours, distinct under every kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY = (
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#56B4E9",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
GREY, SOFT = "#4a4f57", "#e3e6ea"
_DPI = 144


def colour(number: int) -> str:
  """The colour of the line with this number, again from the first on."""
  return COLOURS[number % len(COLOURS)]


def new(
  width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple["figure.Figure", np.ndarray]:
  """A figure of `width` by `height` inches and its axes, [rows, columns]."""
  from matplotlib import figure
  from matplotlib.backends import backend_agg

  drawn = figure.Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
  backend_agg.FigureCanvasAgg(drawn)
  panels = drawn.subplots(rows, columns, squeeze=False, **options)
  for panel in panels.flat:
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GREY)
    panel.tick_params(colors=GREY, labelsize=9)
    panel.grid(color=SOFT, linewidth=0.8)
    panel.set_axisbelow(True)
  return drawn, panels


def to_png(drawn: "figure.Figure") -> bytes:
  """The picture as a PNG file; equal pictures are equal bytes."""
  buffer = io.BytesIO()
  # Matplotlib would write its version into the file.
  drawn.savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def legend(panel: "axes.Axes", aside: bool = False) -> None:
  """A legend, over the data or above the axes; names are plain text."""
  above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4}
  made = panel.legend(
    fontsize=9, framealpha=0.85, edgecolor="none", **(above if aside else {})
  )
  for text in made.get_texts():
    text.set_parse_math(False)


def say_empty(panel: "axes.Axes") -> None:
  """A sentence in place of data."""
  middle = {"ha": "center", "va": "center", "transform": panel.transAxes}
  panel.text(0.5, 0.5, "nothing to show", color=GREY, **middle)
