"""Pictures of how clear preferences are."""

from typing import Any

import numpy as np

from jaxalign.runtime.plots import style


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
