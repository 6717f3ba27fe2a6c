"""Gridworld navigation in which every group has a goal of its own."""

from typing import NamedTuple

import numpy as np

# Stay, and one cell up, down, left or right; a wall is like staying.
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


class Grid(NamedTuple):
  """A world of S cells, A moves and K groups.

  Attributes:
    next_cell: where each move leads, int32 [S, A].
    rewards: what each group gets on arriving in a cell, 1 in its own goal and 0
      elsewhere, float32 [K, S].
    starts: cells in which paths begin, equally often, int32 [X].
  """

  next_cell: np.ndarray
  rewards: np.ndarray
  starts: np.ndarray


def draw_grid(
  *, size: int, num_groups: int, num_starts: int, seed: int
) -> Grid:
  """A square grid with goals and starts in different cells.

  Args:
    size: cells per side.
    num_groups: K, one goal each.
    num_starts: X.
    seed: of the places.

  Returns:
    The grid.

  Raises:
    ValueError: there are fewer cells than goals and starts.
  """
  if num_groups < 1 or num_starts < 1 or num_groups + num_starts > size**2:
    raise ValueError(
      f"a grid of {size} x {size} cells must hold at least one goal and one "
      f"start, all apart, got {num_groups} and {num_starts}"
    )
  places = np.random.default_rng(seed).permutation(size**2)
  row, column = np.divmod(np.arange(size**2), size)
  moved = [
    np.clip(row + down, 0, size - 1) * size
    + np.clip(column + right, 0, size - 1)
    for down, right in MOVES
  ]
  rewards = np.zeros((num_groups, size**2), np.float32)
  rewards[np.arange(num_groups), places[:num_groups]] = 1.0
  return Grid(
    next_cell=np.stack(moved, axis=1).astype(np.int32),
    rewards=rewards,
    starts=places[num_groups : num_groups + num_starts].astype(np.int32),
  )


def path_rewards(grid: Grid, horizon: int) -> np.ndarray:
  """Mean reward per step of every path, by enumeration.

  A path is a sequence of moves, so a policy on the grid is a policy over these
  Y = A^horizon answers, and the walk that draws every move at random is the
  uniform one.

  Args:
    grid: the world.
    horizon: moves per path.

  Returns:
    float64 [K, X, Y], in [0, 1].
  """
  moves = grid.next_cell.shape[1]
  path = np.arange(moves**horizon)
  cell = np.repeat(grid.starts[:, None], len(path), axis=1)
  total = np.zeros((len(grid.rewards), *cell.shape))
  for step in range(horizon):
    cell = grid.next_cell[cell, path // moves**step % moves]
    total += grid.rewards[:, cell]
  return total / horizon
