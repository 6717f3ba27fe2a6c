"""Draws how MORE weighs sources and what transport sees in labels.

python docs/draw_sources_labels.py [FOLDER]
"""

import pathlib
import sys

import jax
import matplotlib
import numpy as np

from jaxalign import losses

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

# Colours that stay apart for colour-blind readers.
COLOURS = ("#0072B2", "#009E73", "#D55E00")
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def _arrow(axes: plt.Axes, tip: np.ndarray, colour: str, width: float) -> None:
  """An arrow from the origin."""
  axes.annotate(
    "",
    tip,
    (0, 0),
    arrowprops=dict(
      arrowstyle="-|>", color=colour, lw=width, shrinkA=0, shrinkB=0
    ),
  )


def _draw_hull(axes: plt.Axes) -> None:
  """Three gradients, their mean and the shortest of their mixtures."""
  gradients = np.array([[1.0, 0.55], [0.9, -0.1], [-0.75, 0.45]])
  weights = np.asarray(
    losses.more_weights(gradients.astype(np.float32), normalise="none")
  )
  axes.fill(*gradients.T, color="0.92", zorder=0)
  for k, gradient in enumerate(gradients):
    _arrow(axes, gradient, COLOURS[k], 1.8)
    axes.annotate(
      f"source {k + 1}, λ = {weights[k]:.2f}",
      gradient,
      xytext=(0, 8 if gradient[1] > 0 else -14),
      textcoords="offset points",
      color=COLOURS[k],
      ha="center",
    )
  for tip, name, style, place in (
    (gradients.mean(0), "mean", "--", (0.15, 0.72)),
    (weights @ gradients, "shortest", "-", (-0.7, -0.12)),
  ):
    axes.plot([0, tip[0]], [0, tip[1]], style, color="black", lw=1.6)
    axes.plot(*tip, "o", color="black", ms=5)
    worst = np.min(gradients @ tip) / np.linalg.norm(tip)
    axes.annotate(
      f"{name}: least gain {worst:+.2f}",
      tip,
      xytext=place,
      ha="center",
      arrowprops=dict(arrowstyle="-", color="0.4", lw=0.8, shrinkB=4),
    )
  axes.set_title("A step against each source's gradient")
  axes.set_xlim(-1.15, 1.5)
  axes.set_ylim(-0.4, 0.85)
  axes.set_aspect("equal")
  axes.set_axis_off()


def _draw_angles(axes: plt.Axes) -> None:
  """The weight of the longer of two gradients over their angle."""
  angles = np.linspace(0, 180, 181)
  for ratio, normalise, colour, name in (
    (3.0, "l2", COLOURS[0], "l2, any lengths"),
    (3.0, "none", COLOURS[2], "none, 3 times as long"),
    (1.2, "none", COLOURS[1], "none, 1.2 times as long"),
  ):
    turned = np.deg2rad(angles)
    longer = ratio * np.stack([np.cos(turned), np.sin(turned)], -1)
    pairs = np.stack([longer, np.tile([1.0, 0.0], (181, 1))], 1)
    weigh = lambda g, normalise=normalise: losses.more_weights(
      g, normalise=normalise
    )
    weights = jax.vmap(weigh)(pairs.astype(np.float32))
    shown = slice(1, None) if normalise == "l2" else slice(None)
    axes.plot(
      angles[shown], weights[shown, 0], color=colour, lw=1.8, label=name
    )
  axes.set_xlabel("angle between the two gradients (degrees)")
  axes.set_ylabel("weight of the longer one")
  axes.set_xticks([0, 45, 90, 135, 180])
  axes.set_ylim(-0.03, 0.6)
  axes.set_title("Two sources, from agreement to conflict")
  axes.legend(frameon=False, title="normalise", loc="lower right")
  for side in ("top", "right"):
    axes.spines[side].set_visible(False)


def draw_more_weights(path: pathlib.Path) -> None:
  """What the shortest mixture of gradients is, and how weights move."""
  figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
  _draw_hull(axes[0])
  _draw_angles(axes[1])
  figure.savefig(path, dpi=150)
  plt.close(figure)


def draw_transport_geometry(path: pathlib.Path) -> None:
  """Cross-entropy and transport over predictions of three ordered labels."""
  names = ("good", "middling", "bad")
  target = np.array([0.8, 0.1, 0.1], np.float32)
  cost = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))
  cost = cost.astype(np.float32)
  steps = 80
  grid = np.stack(
    [
      (i + 0.02, j + 0.02, steps - i - j + 0.02)
      for i in range(steps + 1)
      for j in range(steps + 1 - i)
    ]
  )
  grid = (grid / grid.sum(-1, keepdims=True)).astype(np.float32)
  spots = np.array([[0.15, 0.75, 0.1], [0.15, 0.1, 0.75]], np.float32)
  entropy = jax.jit(losses.label_cross_entropy)
  transport = jax.jit(
    lambda x, t: losses.optimal_transport_loss(x, t, cost, epsilon=0.1)
  )
  figure, all_axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
  for axes, loss, title, unit in (
    (all_axes[0], entropy, "Cross-entropy", "nats"),
    (all_axes[1], transport, "Optimal transport, ε = 0.1", "steps"),
  ):
    values = loss(np.log(grid), np.broadcast_to(target, grid.shape))
    places = grid @ CORNERS
    shades = axes.tricontourf(
      *places.T,
      np.minimum(values, np.quantile(values, 0.97)),
      levels=14,
      cmap="Greys",
      alpha=0.8,
    )
    figure.colorbar(shades, ax=axes, shrink=0.75, format="%.1f", label=unit)
    axes.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="black", lw=1)
    at_spots = loss(np.log(spots), np.broadcast_to(target, spots.shape))
    for spot, value, colour in zip(spots, at_spots, COLOURS[1:], strict=True):
      axes.plot(*(spot @ CORNERS), "o", ms=9, color=colour, mec="black")
      axes.annotate(
        f"{value:.2f}",
        spot @ CORNERS,
        xytext=(9, 5),
        textcoords="offset points",
        bbox=dict(boxstyle="round,pad=0.15", fc="white", ec="none", alpha=0.8),
      )
    axes.plot(*(target @ CORNERS), "*", ms=17, color="#F0E442", mec="black")
    for corner, name, shift in zip(
      CORNERS, names, ((-0.02, -0.06), (0.02, -0.06), (0, 0.05)), strict=True
    ):
      axes.annotate(name, corner + shift, ha="center", va="center")
    axes.set_title(title, pad=14)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 0.95)
  figure.savefig(path, dpi=150)
  plt.close(figure)


PICTURES = {
  "losses_more_weights.png": draw_more_weights,
  "losses_transport_geometry.png": draw_transport_geometry,
}


def main() -> None:
  """Writes every picture to the folder given, docs/images by default."""
  default = pathlib.Path(__file__).parent / "images"
  folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
  folder.mkdir(parents=True, exist_ok=True)
  for name, draw in PICTURES.items():
    draw(folder / name)


if __name__ == "__main__":
  main()
