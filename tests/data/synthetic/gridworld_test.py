"""Walks on a grid, and all their paths."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.synthetic import gridworld


class GridworldTest(parameterized.TestCase):
  def test_moves_stay_on_the_grid(self):
    grid = gridworld.draw_grid(size=3, num_groups=2, num_starts=2, seed=0)
    np.testing.assert_array_equal(grid.next_cell[4], [4, 1, 7, 3, 5])
    np.testing.assert_array_equal(grid.next_cell[0], [0, 0, 3, 0, 1])
    np.testing.assert_array_equal(grid.next_cell[8], [8, 5, 8, 7, 8])

  def test_goals_and_starts_are_apart_and_drawn(self):
    places = []
    for seed in range(5):
      grid = gridworld.draw_grid(size=2, num_groups=2, num_starts=2, seed=seed)
      goals = grid.rewards.argmax(axis=1)
      np.testing.assert_array_equal(grid.rewards.sum(axis=1), 1)
      places.append((*goals.tolist(), *grid.starts.tolist()))
      self.assertLen({*places[-1]}, 4)
    self.assertGreater(len({*places}), 1)

  def test_every_path_by_walking_it(self):
    grid = gridworld.draw_grid(size=3, num_groups=2, num_starts=2, seed=1)
    found = gridworld.path_rewards(grid, 3)
    self.assertEqual(found.shape, (2, 2, 125))
    for start in range(2):
      for path in range(125):
        cell, total = grid.starts[start], np.zeros(2)
        for move in (path % 5, path // 5 % 5, path // 25):
          cell = grid.next_cell[cell, move]
          total += grid.rewards[:, cell]
        np.testing.assert_allclose(found[:, start, path], total / 3)

  @parameterized.parameters((0, 1), (1, 0), (3, 2))
  def test_no_room(self, groups, starts):
    with self.assertRaisesRegex(
      ValueError, f"2 x 2 cells .* got {groups} and {starts}"
    ):
      gridworld.draw_grid(size=2, num_groups=groups, num_starts=starts, seed=0)


if __name__ == "__main__":
  absltest.main()
