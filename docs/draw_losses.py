"""Draws the pictures of losses.md: python docs/draw_losses.py [FOLDER]."""

import pathlib
import sys

import matplotlib
import numpy as np

from jaxalign import losses, metrics

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

# Colours that stay apart for colour-blind readers.
GROUP_COLOURS = ("#0072B2", "#009E73", "#D55E00")
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def _point(policy: np.ndarray) -> np.ndarray:
  """Where a policy over three responses lies in the triangle."""
  return policy @ CORNERS


def _utilities(
  policies: np.ndarray, rewards: np.ndarray, beta: float
) -> np.ndarray:
  """F_k of each policy, [..., K], from a uniform reference."""
  policies = np.maximum(policies, 1e-12)
  divergence = np.sum(policies * np.log(3 * policies), axis=-1)
  return policies @ rewards.T - beta * divergence[..., None]


def _path(rewards: np.ndarray, beta: float, steps: int) -> np.ndarray:
  """Best answers to weights that fall on whoever gains, [steps, 3]."""
  weights, policies = np.full(len(rewards), 1 / len(rewards)), []
  for _ in range(steps):
    logits = weights @ rewards / beta
    policy = np.exp(logits - logits.max())
    policies.append(policy / policy.sum())
    utilities = _utilities(policies[-1], rewards, beta)
    weights = np.asarray(
      losses.exponentiated_weights(
        weights.astype(np.float32),
        utilities.astype(np.float32),
        step_size=0.5,
      )
    )
  return np.array(policies)


def draw_maxmin_simplex(path: pathlib.Path) -> None:
  """Policies over three responses: what average and worst group choose."""
  beta = 0.2
  rewards = np.array([[1.0, 0.1, 0.0], [0.8, 0.5, 0.0], [0.0, 0.1, 0.9]])
  reference = np.full(3, 1 / 3)
  grid = (
    np.stack([(i, j, 150 - i - j) for i in range(151) for j in range(151 - i)])
    / 150.0
  )
  worst = _utilities(grid, rewards, beta).min(axis=-1)
  exact = metrics.maxmin_policy(reference, rewards, beta=beta)
  figure, axes = plt.subplots(figsize=(6.4, 5.8), layout="constrained")
  places = _point(grid)
  shades = axes.tricontourf(
    *places.T,
    worst,
    levels=np.linspace(-0.24, exact.value, 10),
    cmap="Greys",
    extend="min",
    alpha=0.75,
  )
  figure.colorbar(
    shades,
    ax=axes,
    shrink=0.7,
    format="%.2f",
    label="gain of the worst-off group (reward units)",
  )
  axes.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="black", lw=1)
  for place, name, shift in zip(
    CORNERS, "ABC", ((-0.05, -0.03), (0.05, -0.03), (0, 0.04)), strict=True
  ):
    axes.annotate(f"always {name}", place + shift, ha="center", va="center")
  for k, colour in enumerate(GROUP_COLOURS):
    best = np.exp(rewards[k] / beta)
    axes.plot(
      *_point(best / best.sum()),
      "o",
      ms=9,
      color=colour,
      clip_on=False,
      label=f"best for group {k + 1}",
    )
  average = np.exp(rewards.mean(axis=0) / beta)
  average /= average.sum()
  track = _point(_path(rewards, beta, 200))
  axes.plot(
    *track.T,
    "-",
    color="black",
    lw=1.2,
    label="weights moved towards the worst off",
  )
  axes.plot(
    *_point(average),
    "X",
    ms=12,
    color="white",
    mec="black",
    mew=1.5,
    label=_gain("best on average", average, rewards, beta),
  )
  axes.plot(
    *_point(exact.policy),
    "*",
    ms=18,
    color="#F0E442",
    mec="black",
    label=_gain("max-min", exact.policy, rewards, beta),
  )
  axes.set_axis_off()
  axes.set_aspect("equal")
  axes.set_xlim(-0.12, 1.12)
  axes.set_ylim(-0.08, 0.96)
  figure.legend(
    loc="outside lower center",
    ncols=2,
    fontsize=8,
    frameon=False,
    labelspacing=1.0,
  )
  figure.savefig(path, dpi=150)
  plt.close(figure)


def _gain(
  name: str, policy: np.ndarray, rewards: np.ndarray, beta: float
) -> str:
  """A legend entry with what each group gains."""
  gains = ", ".join(f"{u:.2f}" for u in _utilities(policy, rewards, beta))
  return f"{name}: groups gain {gains}"


PICTURES = {"losses_maxmin_simplex.png": draw_maxmin_simplex}


def main() -> None:
  """Writes every picture to the folder given, docs/images by default."""
  default = pathlib.Path(__file__).parent / "images"
  folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
  folder.mkdir(parents=True, exist_ok=True)
  for name, draw in PICTURES.items():
    draw(folder / name)


if __name__ == "__main__":
  main()
