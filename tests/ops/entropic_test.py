"""The dual solver itself: its gauge, its pace and its half-steps."""

import functools

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import entropic


@functools.partial(jax.jit, static_argnames="num_iters")
def solve(a, b, m, num_iters):
  phi, gamma = entropic.potentials(a, b, m, num_iters)
  return gamma, phi, entropic.rows(b, gamma, m)[1]


class EntropicTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.a, self.b = rng.dirichlet(np.ones(6), size=(2, 40))
    position = np.linspace(0, 1, 6)
    self.cost = np.abs(position[:, None] - position[None])[None]

  def test_rows_by_hand(self):
    b, gamma, m = np.array([0.25, 0.75, 0.0]), np.array([0.0, 1.0, 9e9]), 2.0
    phi, w = entropic.rows(b, gamma, np.full((1, 3), m))
    weights = np.array([0.25, 0.75 * np.e, 0.0])
    np.testing.assert_allclose(w[0], weights / weights.sum(), rtol=1e-12)
    np.testing.assert_allclose(phi, m - np.log(weights.sum()), rtol=1e-12)

  def test_potentials_solve_both_equations_in_the_stated_gauge(self):
    m = self.cost / 0.05
    gamma, phi, _ = solve(self.a, self.b, m, 50)
    np.testing.assert_allclose(np.sum(self.b * gamma, -1), 0.0, atol=1e-12)
    ratio = np.exp(phi[:, :, None] + gamma[:, None] - m)
    np.testing.assert_allclose(
      np.einsum("nij,nj->ni", ratio, self.b), 1.0, rtol=1e-10
    )
    np.testing.assert_allclose(
      np.einsum("nij,ni->nj", ratio, self.a), 1.0, rtol=1e-9
    )

  @parameterized.parameters((0.05, 12), (0.002, 30))
  def test_few_iterations_reach_rounding(self, epsilon, num_iters):
    m = self.cost / epsilon
    _, _, w = solve(self.a, self.b, m, num_iters)
    error = np.einsum("ni,nij->nj", self.a, w) - self.b
    self.assertLess(np.max(np.sum(np.abs(error), -1)), 1e-11)

  def test_without_any_mass_the_potentials_are_zero(self):
    full, empty = np.array([0.25, 0.75]), np.zeros(2)
    a, b = np.stack([full, empty]), np.stack([full[::-1], empty])
    gamma, phi, _ = solve(a, b, np.array([[[0.0, 1.0], [2.0, 0.0]]]), 50)
    np.testing.assert_array_equal(phi[1], 0.0)
    np.testing.assert_array_equal(gamma[1], 0.0)
    self.assertGreater(np.abs(phi[0]).max(), 0.1)

  def test_more_iterations_leave_less_error(self):
    errors = []
    for num_iters in (1, 4, 12):
      _, _, w = solve(self.a, self.b, self.cost / 0.05, num_iters)
      column = np.einsum("ni,nij->nj", self.a, w)
      errors.append(np.mean(np.abs(column - self.b)))
    self.assertGreater(errors[0], 10 * errors[1])
    self.assertGreater(errors[1], 10 * errors[2])

  def test_a_large_batch_in_lots_is_that_of_small_ones(self):
    # Costs per row: from ones that a few sweeps solve to ones whose kernel is
    # beyond float64, so that all ways of solving take part.
    rng = np.random.default_rng(1)
    a, b = rng.dirichlet(np.ones(3), size=(2, 1200))
    position = np.array([0.0, 0.4, 1.0])
    cost = np.abs(position[:, None] - position[None])
    m = cost / np.geomspace(1e-4, 1, 1200)[rng.permutation(1200), None, None]
    gamma, phi, w = solve(a, b, m, 60)
    column = np.einsum("ni,nij->nj", a, w)
    self.assertLess(np.max(np.sum(np.abs(column - b), -1)), 1e-10)
    for i in range(0, 1200, 400):
      part = slice(i, i + 400)
      few = solve(a[part], b[part], m[part], 60)
      for x, y in zip(few, (gamma, phi, w), strict=True):
        np.testing.assert_allclose(y[part], x, rtol=1e-9, atol=1e-9)

  def test_one_row_to_finish_costs_no_pass_over_the_others(self):
    calls = []

    def one_try(chosen, value, done):
      jax.debug.callback(lambda x: calls.append(np.asarray(x)), chosen)
      return value + 1, done | (chosen != 7)

    tries = np.where(np.arange(10) % 3 == 1, 2, 0)
    value, done = jax.jit(lambda *x: entropic._in_lots(one_try, 2, tries, x))(
      np.zeros(10), tries == 0
    )
    jax.effects_barrier()
    # 1, 4 and 7 are open and get a try each before 7 has its second.
    self.assertEqual([list(x) for x in calls], [[1, 4], [7, 10], [7, 10]])
    np.testing.assert_array_equal(np.asarray(value)[[1, 4, 7]], [1, 1, 2])
    self.assertEqual(np.sum(value), 4)
    np.testing.assert_array_equal(np.flatnonzero(~done), [7])


if __name__ == "__main__":
  absltest.main()
