"""Pictures of features: where chosen and rejected responses lie."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style


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
