"""Pictures of predicted label distributions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style


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
