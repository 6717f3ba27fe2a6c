"""Matrix scaling against its equations, column by column."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import scaling
from tests import references


def problems(count=12, atoms=5, seed=0):
  rng = np.random.default_rng(seed)
  a, b = rng.dirichlet(np.ones(atoms), size=(2, count))
  position = np.linspace(0, 1, atoms)
  return a.T, b.T, np.abs(position[:, None] - position[None])


@functools.partial(jax.jit, static_argnames=("num_iters", "steps"))
def solve(a, b, m, num_iters=50, steps=20):
  of = scaling.kernel(m)
  v, swept = scaling.sweep(a, b, of, num_iters)
  v, done = scaling.newton(a, b, of, v, swept | ~of.fits, steps)
  return v, swept, done, *scaling.potentials(a, b, of, v)


def plan(a, b, m, phi, gamma):
  m = m[..., None] if m.ndim == 2 else m
  return a[:, None] * b[None] * np.exp(phi[:, None] + gamma[None] - m)


class KernelTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_shifts_leave_the_cost_of_every_plan_alone(self):
    m = np.random.default_rng(0).normal(size=(4, 5)) * 30
    of = scaling.kernel(jnp.asarray(m))
    np.testing.assert_allclose(
      of.rows + of.columns[:, 0][None] - of.exponent, m, atol=1e-12
    )
    self.assertEqual(np.max(of.exponent), 0.0)
    self.assertTrue(of.fits)
    halved = of.at(jnp.float64(2.0))
    np.testing.assert_allclose(halved, np.exp(of.exponent / 2))

  def test_what_all_rows_of_a_column_have_in_common_does_not_count(self):
    m = (
      np.zeros((3, 3)) + np.array([0.0, 1e6, 3e5]) - np.array([[7e5], [0], [1]])
    )
    self.assertLess(scaling.kernel(jnp.asarray(m)).span, 1e-9)

  def test_a_kernel_that_would_underflow_does_not_fit(self):
    for dtype, fits, too_far in (
      (np.float32, 110, 130),
      (np.float64, 900, 1100),
    ):
      for span, expected in ((fits, True), (too_far, False)):
        m = jnp.asarray(span * (1 - np.eye(3)), dtype)
        of = scaling.kernel(jnp.stack([m, 0 * m], axis=-1))
        np.testing.assert_array_equal(of.fits, [expected, True])
        if expected:
          k = of.at(jnp.ones((), dtype))
          self.assertGreater(np.min(k), np.finfo(dtype).tiny)
          self.assertLess(np.max(k), np.inf)


class ScalingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters((0.3, True), (0.05, False), (0.01, False))
  def test_both_marginals_are_met(self, epsilon, by_sweeps):
    a, b, cost = problems()
    m = cost / epsilon
    _, swept, done, phi, gamma = solve(a, b, m)
    self.assertEqual(np.all(swept), by_sweeps)
    self.assertTrue(np.all(done))
    np.testing.assert_allclose(np.sum(b * gamma, 0), 0, atol=1e-12)
    p = plan(a, b, m, phi, gamma)
    np.testing.assert_allclose(p.sum(1), a, atol=1e-13)
    np.testing.assert_allclose(p.sum(0), b, atol=1e-13)
    for i in range(3):
      expected, *_ = references.sinkhorn(a[:, i], b[:, i], cost, epsilon)
      np.testing.assert_allclose(p[..., i], expected, atol=1e-6)

  def test_a_cost_for_each_problem_and_one_for_all_agree(self):
    a, b, cost = problems()
    m = cost / 0.05
    one = solve(a, b, m)
    each = solve(a, b, np.repeat(m[..., None], a.shape[1], axis=2))
    np.testing.assert_array_equal(each[2], one[2])
    for x, y in zip(one[3:], each[3:], strict=True):
      np.testing.assert_allclose(y, x, atol=1e-9)

  def test_columns_do_not_know_each_other(self):
    a, b, cost = problems()
    alone = solve(a[:, :4], b[:, :4], cost / 0.05)
    beside = a.copy()
    beside[:, 5] = np.nan
    among = solve(beside, b, cost / 0.05)
    self.assertFalse(among[2][5])
    for x, y in zip(alone, among, strict=True):
      np.testing.assert_allclose(y[..., :4], x, rtol=1e-12, atol=1e-14)

  def test_done_columns_and_those_that_do_not_fit_stay(self):
    a, b, cost = problems()
    of = scaling.kernel(jnp.asarray(cost / 0.05))
    start = jnp.asarray(b)
    done = np.arange(a.shape[1]) < 5
    v, now = scaling.newton(a, b, of, start, done, 30)
    np.testing.assert_array_equal(v[:, :5], b[:, :5])
    self.assertTrue(np.all(now))
    self.assertGreater(np.min(np.max(np.abs(v - b)[:, 5:], 0)), 1e-3)
    v, swept = scaling.sweep(a, b, of._replace(fits=jnp.asarray(False)), 30)
    np.testing.assert_array_equal(swept, False)

  def test_newton_converges_from_far_and_sweeps_extrapolate(self):
    a, b, cost = problems()
    of = scaling.kernel(jnp.asarray(cost / 0.03))
    kernel = np.exp(of.exponent)
    error = lambda v: np.abs(v * (kernel.T @ (a / (kernel @ v))) - b).sum(0)
    far = b * np.exp(3 * np.sin(np.arange(5)))[:, None]
    v, done = scaling.newton(a, b, of, far, 0 * a[0] > 0, 40)
    self.assertTrue(np.all(done))
    self.assertLess(np.max(error(v)), 1e-14)
    v, plain = scaling.sweep(a, b, of, 3)[0], b / 1
    for _ in range(3 * scaling.SWEEPS):
      plain = b / (kernel.T @ (a / (kernel @ plain)))
    self.assertLess(np.median(error(v)), 0.3 * np.median(error(plain)))

  def test_atoms_without_mass_get_the_potential_at_which_they_would_enter(self):
    a, b, cost = problems()
    b[1], a[3] = 0, 0
    a, b = a / a.sum(0), b / b.sum(0)
    m = cost / 0.1
    *_, done, phi, gamma = solve(a, b, m)
    self.assertTrue(np.all(done))
    ratio = np.exp(phi[:, None] + gamma[None] - m[..., None])
    np.testing.assert_allclose((b[None] * ratio).sum(1), 1, rtol=1e-9)
    np.testing.assert_allclose((a[:, None] * ratio).sum(0), 1, rtol=1e-9)

  def test_float32_reaches_its_own_rounding(self):
    a, b, cost = problems(count=64)
    narrow = [x.astype(np.float32) for x in (a, b, cost / 0.05)]
    *_, done, phi, gamma = solve(*narrow)
    self.assertTrue(np.all(done))
    p = plan(*(np.asarray(x, np.float64) for x in (*narrow, phi, gamma)))
    self.assertLess(np.max(np.abs(p.sum(0) - b).sum(0)), 2e-5)


if __name__ == "__main__":
  absltest.main()
