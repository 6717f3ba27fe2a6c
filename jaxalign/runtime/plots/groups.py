"""Pictures of what several policies are worth to several groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.runtime.plots import style


def group_bars(
  values: Mapping[str, Any], groups: Sequence[str], *, label: str
) -> bytes:
  """What each policy is worth to each group: means as bars, runs as points.

  Args:
    values: per policy [R, K] of R runs.
    groups: names of the K groups.
    label: what is measured, with its unit.

  Returns:
    PNG file.

  Raises:
    ValueError: a policy has another number of groups.
  """
  arrays = {k: np.asarray(v, np.float64) for k, v in values.items()}
  for name, array in arrays.items():
    if array.ndim != 2 or array.shape[1] != len(groups):
      raise ValueError(
        f"values of {name!r} must be [R, {len(groups)}], got {array.shape}"
      )
  drawn, panels = style.new(1.6 + 1.9 * len(groups), 3.6)
  panel = panels[0, 0]
  width = 0.8 / max(len(arrays), 1)
  places = np.arange(len(groups))
  for i, (name, array) in enumerate(arrays.items()):
    at = places + (i - (len(arrays) - 1) / 2) * width
    colour = style.COLOURS[i % len(style.COLOURS)]
    panel.bar(
      at, array.mean(axis=0), 0.9 * width, color=(colour, 0.45), label=name
    )
    # Beside each other, so that equal runs are seen to be several.
    offsets = np.linspace(-0.25, 0.25, len(array)) * width
    panel.scatter(
      (at + offsets[:, None]).ravel(), array.ravel(), s=9, color=colour
    )
  if arrays:
    panel.legend(
      fontsize=9,
      frameon=False,
      loc="lower left",
      bbox_to_anchor=(0, 1),
      ncols=3,
    )
  else:
    style.say_empty(panel)
  panel.set_xticks(places, groups, parse_math=False)
  panel.grid(visible=False, axis="x")
  panel.set_ylabel(label)
  return style.to_png(drawn)


def rewards_against_kl(
  kl: Any,
  curves: Mapping[str, Mapping[str, Any]],
  *,
  label: str,
  root: bool = False,
) -> bytes:
  """Where optimising a proxy stops to help: one panel per group.

  Args:
    kl: to the reference, in nats, [N], in the order of optimisation.
    curves: per group and per reward, such as "proxy" and "oracle", its mean at
      each point, [N].
    label: what the rewards are measured in.
    root: a second row of panels against the root of the KL, a distance in
      which gains begin in proportion; estimates below 0 count as 0.

  Returns:
    PNG file. The highest point of each curve is marked: past that of the
    oracle, more of the proxy does harm.

  Raises:
    ValueError: a curve is not as long as `kl`, or there is no group.
  """
  nats = np.asarray(kl, np.float64)
  if not curves:
    raise ValueError("curves must have at least one group, got none")
  distances = {"KL to the reference, nats": nats}
  if root:
    distances["root of the KL, √nats"] = np.sqrt(np.maximum(nats, 0.0))
  drawn, panels = style.new(
    1.0 + 3.4 * len(curves),
    3.4 * len(distances),
    len(distances),
    len(curves),
    sharex="row",
  )
  for row, (distance, at) in zip(panels, distances.items(), strict=True):
    for panel, (group, lines) in zip(row, curves.items(), strict=True):
      for i, (name, line) in enumerate(lines.items()):
        heights = np.asarray(line, np.float64)
        if heights.shape != nats.shape:
          raise ValueError(
            f"{name!r} of {group!r} must be as long as kl, got {heights.shape} "
            f"and {nats.shape}"
          )
        colour = style.COLOURS[i % len(style.COLOURS)]
        # Where two rewards agree, both are to be seen.
        panel.plot(
          at,
          heights,
          color=colour,
          linestyle="--" if i else "-",
          marker="o",
          ms=3,
          label=name,
        )
        top = int(np.argmax(heights))
        panel.plot(
          at[top], heights[top], marker="*", ms=11, color=colour, linestyle=""
        )
      panel.set(xlabel=distance)
      panel.set_title(group, fontsize=10, parse_math=False)
      style.legend(panel)
    row[0].set_ylabel(label)
  return style.to_png(drawn)
