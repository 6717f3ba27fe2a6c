"""Transport against NumPy, linear programming and closed forms."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import sinkhorn, sinkhorn_divergence, wasserstein_1d
from tests import parallel_modes, references

X = np.linspace(0, 1, 5)
SQUARED = (X[:, None] - X[None, :]) ** 2
A = np.array([0.1, 0.2, 0.4, 0.2, 0.1])
B = np.array([0.3, 0.25, 0.2, 0.15, 0.1])

# Compiling is what these tests spend their time on, so nearly all of them pose
# six problems of five atoms to the same two programs.
SOLVE = jax.jit(sinkhorn, static_argnames="num_iters")


def _total(a, b, cost, epsilon):
  out = sinkhorn(a, b, cost, epsilon=epsilon, num_iters=100)
  return jnp.sum(out.regularised_cost), jnp.sum(out.transport_cost)


JACOBIAN = jax.jit(jax.jacrev(_total, (0, 1, 2)))


def solve(a, b, cost, epsilon):
  """Broadcasts to six problems and solves them."""
  a, b = (np.broadcast_to(x, (6, 5)) for x in (a, b))
  return SOLVE(a, b, cost, epsilon=epsilon, num_iters=100)


def histograms(seed, n, d, zeros=False):
  rng = np.random.default_rng(seed)
  logits = 1.5 * rng.normal(size=(n, d))
  a = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  if not zeros:
    return a, rng.dirichlet(np.ones(d), size=n)
  return a, rng.multinomial(4, np.ones(d) / d, size=n) / 4


class SinkhornTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(
    (0.5, 0.1409371, 0.1689289, 0.0511736),
    (0.1, 0.0635563, 0.1055862, 0.0866997),
    (0.05, 0.0452237, 0.0790690, 0.0975181),
    (0.01, 0.0313336, 0.0429105, 0.1000000),
  )
  def test_published_values(self, epsilon, transport, regularised, corner):
    out = solve(A, B, SQUARED, epsilon)
    np.testing.assert_allclose(out.transport_cost, transport, atol=1.1e-7)
    np.testing.assert_allclose(out.regularised_cost, regularised, atol=1.1e-7)
    np.testing.assert_allclose(out.plan[:, 0, 0], corner, atol=1.1e-7)
    self.assertLess(np.max(out.marginal_error), 1e-14)

  @parameterized.parameters(1.0, 0.5, 0.1)
  def test_two_points_have_a_closed_form(self, epsilon):
    even = np.array([0.5, 0.5, 0.0, 0.0, 0.0])
    out = solve(even, even, 1 - np.eye(5), epsilon)
    corner = 0.5 / (1 + np.exp(-1 / epsilon))
    np.testing.assert_allclose(out.plan[:, 0, 0], corner, rtol=1e-12)
    np.testing.assert_allclose(
      out.transport_cost, 1 - 2 * corner, rtol=1e-9, atol=1e-15
    )

  def test_matches_reference_with_and_without_empty_atoms(self):
    cost = np.random.default_rng(1).random((5, 5))
    a, b = histograms(0, 6, 5, zeros=True)
    a[1] = [0.0, 0.5, 0.0, 0.3, 0.2]
    a[0], b[0] = A, B
    out = solve(a, b, cost, 0.1)
    for i in range(6):
      plan, transport, regularised = references.sinkhorn(a[i], b[i], cost, 0.1)
      np.testing.assert_allclose(out.plan[i], plan, atol=1e-12)
      np.testing.assert_allclose(out.transport_cost[i], transport, atol=1e-12)
      np.testing.assert_allclose(
        out.regularised_cost[i], regularised, atol=1e-12
      )

  def test_agrees_with_an_independent_library(self):
    # Importing it imports a package that warns about its own end, and it
    # promotes ranks and dtypes by itself.
    with (
      warnings.catch_warnings(),
      jax.numpy_rank_promotion("allow"),
      jax.numpy_dtype_promotion("standard"),
    ):
      warnings.simplefilter("ignore")
      from ott.geometry import geometry
      from ott.solvers import linear

      out = linear.solve(
        geometry.Geometry(jnp.asarray(SQUARED), epsilon=0.05),
        jnp.asarray(A),
        jnp.asarray(B),
        lse_mode=True,
        threshold=1e-13,
        max_iterations=5000,
      )
      expected, plan = np.asarray(out.reg_ot_cost), np.asarray(out.matrix)
    got = solve(A, B, SQUARED, 0.05)
    np.testing.assert_allclose(got.regularised_cost, expected, rtol=1e-9)
    np.testing.assert_allclose(got.plan[0], plan, atol=1e-10)

  def test_large_and_small_epsilon_have_known_limits(self):
    cost = np.random.default_rng(1).random((5, 5))
    a, b = histograms(0, 6, 5)
    wide = solve(a, b, cost, 1e6)
    np.testing.assert_allclose(wide.plan, a[:, :, None] * b[:, None], rtol=1e-5)
    thin = solve(a, b, cost, 1e-4)
    for i in range(6):
      np.testing.assert_allclose(
        thin.transport_cost[i],
        references.transport_cost(a[i], b[i], cost),
        atol=2e-3,
      )
    for epsilon in (1e6, 1e-4):
      for leaf in jax.tree.leaves(JACOBIAN(a, b, cost, epsilon)):
        self.assertTrue(np.all(np.isfinite(leaf)))

  def test_float32_gradient_is_that_of_the_converged_problem(self):
    # Half of the problems live on six atoms, the other half on sixteen.
    a, b = histograms(2, 32, 16)
    six = np.arange(16) % 3 == 0
    a[:16], b[:16] = 0, 0
    a[:16, six], b[:16, six] = histograms(3, 16, 6, zeros=True)
    position = np.linspace(0, 1, 16)
    cost = np.abs(position[:, None] - position[None])
    gradient = lambda out: (
      a
      * (
        np.asarray(out.potential_a)
        - np.sum(a * np.asarray(out.potential_a), -1, keepdims=True)
      )
    )
    single = [jnp.asarray(x, jnp.float32) for x in (a, b, cost)]
    for epsilon in (0.2, 0.05, 0.01):
      exact = SOLVE(a, b, cost, epsilon=epsilon, num_iters=200)
      # Both marginals met by a plan of this form is what optimality means.
      np.testing.assert_allclose(np.asarray(exact.plan).sum(1), b, atol=1e-12)
      out = SOLVE(*single, epsilon=jnp.float32(epsilon), num_iters=20)
      self.assertEqual(out.plan.dtype, jnp.float32)
      np.testing.assert_allclose(np.sum(out.plan, -1), a, rtol=2e-6)
      error = np.linalg.norm(gradient(out) - gradient(exact))
      self.assertLess(error, 1e-4 * np.linalg.norm(gradient(exact)))

  def test_second_derivatives_of_every_output_in_both_modes(self):
    rng = np.random.default_rng(3)
    theta = np.concatenate([rng.normal(size=8), rng.random(16), [0.2]])
    weights = rng.normal(size=(2, 4, 4))

    def outputs(theta):
      out = sinkhorn(
        jax.nn.softmax(theta[:4]),
        jax.nn.softmax(theta[4:8]),
        jnp.reshape(theta[8:24], (4, 4)),
        epsilon=theta[24],
        num_iters=100,
      )
      return jnp.stack(
        [
          out.regularised_cost,
          out.transport_cost,
          jnp.sum(out.plan * weights[0]),
          jnp.sum(out.potential_a * weights[1, 0]),
          jnp.sum(out.potential_b * weights[1, 1]),
        ]
      )

    value = jax.jit(outputs)
    reverse = jax.jit(jax.jacrev(outputs))
    second = jax.jit(jax.jacfwd(jax.jacrev(outputs)))
    hessian = second(theta)
    for i, step in enumerate(1e-4 * np.eye(25)):
      low, high = theta - step, theta + step
      np.testing.assert_allclose(
        reverse(theta)[:, i],
        (value(high) - value(low)) / 2e-4,
        rtol=1e-5,
        atol=1e-6,
      )
      difference = (reverse(high) - reverse(low)) / 2e-4
      np.testing.assert_allclose(
        hessian[:, :, i], difference, rtol=1e-4, atol=1e-5
      )
    twice = jax.jit(jax.jacrev(lambda x: jnp.sum(jax.jacrev(outputs)(x), 0)))
    np.testing.assert_allclose(
      twice(theta), np.sum(hessian, 0), rtol=1e-7, atol=1e-9
    )
    # Nearly one-hot masses, and plans in parts that exchange nothing.
    for extreme in ((80.0, 0.01), (800.0, 0.01), (5.0, 1e-4), (0.0, 1e5)):
      far = theta.copy()
      far[:8] *= extreme[0]
      far[24] = extreme[1]
      for f in (value, reverse, second):
        self.assertTrue(np.all(np.isfinite(f(far))), extreme)

  def test_envelope_gradients_are_the_potentials_and_the_plan(self):
    a, b = histograms(0, 6, 5)
    cost = np.broadcast_to(SQUARED, (6, 5, 5))
    out = SOLVE(a, b, cost, epsilon=0.1, num_iters=100)
    got, _ = JACOBIAN(a, b, cost, 0.1)
    expected = (out.potential_a, out.potential_b, out.plan)
    for g, e in zip(got, expected, strict=True):
      np.testing.assert_allclose(g, e, atol=1e-12)

  def test_empty_atoms_and_whatever_they_cost_change_nothing(self):
    a, b = histograms(0, 6, 5)
    b = np.where([1, 0, 1, 0, 1], b, 0)
    b /= b.sum(-1, keepdims=True)
    out = solve(a, b, SQUARED, 0.05)
    short = sinkhorn(a, b[:, ::2], SQUARED[:, ::2], epsilon=0.05, num_iters=100)
    np.testing.assert_allclose(out.plan[..., ::2], short.plan, atol=1e-10)
    np.testing.assert_array_equal(out.plan[..., 1::2], 0.0)
    odd = SQUARED + 50.0 * np.array([0, 1, 0, 2, 0])
    np.testing.assert_allclose(
      solve(a, b, odd, 0.05).transport_cost, short.transport_cost, rtol=1e-9
    )
    clean, dirty = JACOBIAN(a, b, SQUARED, 0.05), JACOBIAN(a, b, odd, 0.05)
    for x, y in zip(clean, dirty, strict=True):
      np.testing.assert_allclose(x[0], y[0], atol=1e-9)
      np.testing.assert_array_equal(x[2][:, 1::2], 0.0)

  def test_an_empty_atom_has_the_slope_at_which_it_would_enter(self):
    b = np.array([0.5, 0.0, 0.3, 0.0, 0.2])
    out = solve(A, b, SQUARED, 0.1)
    step = 1e-7
    entering = b + step * (np.eye(5)[1] - np.eye(5)[0])
    slope = solve(A, entering, SQUARED, 0.1).regularised_cost
    slope = (slope - out.regularised_cost) / step
    np.testing.assert_allclose(
      out.potential_b[:, 1] - out.potential_b[:, 0], slope, rtol=1e-5
    )

  def test_point_masses_leave_one_coupling(self):
    out = solve(A, np.eye(5)[2], SQUARED, 0.05)
    expected = A @ SQUARED[:, 2]
    np.testing.assert_allclose(out.transport_cost, expected, rtol=1e-12)
    np.testing.assert_allclose(out.regularised_cost, expected, rtol=1e-12)

  def test_transposed_and_permuted_problems_agree(self):
    cost = np.random.default_rng(4).random((5, 5))
    order = np.array([3, 0, 4, 1, 2])
    out = solve(A, B, cost, 0.1)
    turned = solve(B, A, cost.T, 0.1)
    np.testing.assert_allclose(turned.plan.mT, out.plan, atol=1e-12)
    mixed = solve(A[order], B, cost[order], 0.1)
    np.testing.assert_allclose(mixed.plan, out.plan[:, order], atol=1e-12)

  def test_vmap_loop_and_eager_agree(self):
    a, b = histograms(5, 6, 5, zeros=True)
    whole = solve(a, b, SQUARED, 0.02)
    single = lambda *x: sinkhorn(*x, epsilon=0.02, num_iters=100)
    cost = np.broadcast_to(SQUARED, (6, 5, 5))
    mapped = jax.jit(jax.vmap(single))(a, b, cost)
    for x, y in zip(whole, mapped, strict=True):
      np.testing.assert_allclose(y, x, atol=1e-12)
    for x, y in zip(whole, single(a[2], b[2], SQUARED), strict=True):
      np.testing.assert_allclose(y, x[2], atol=1e-12)

  def test_a_row_of_zeros_is_zero_with_finite_gradient(self):
    a, b = histograms(0, 6, 5)
    a[1], b[1] = 0, 0
    out = solve(a, b, SQUARED, 0.1)
    self.assertEqual(out.regularised_cost[1], 0.0)
    self.assertEqual(out.transport_cost[1], 0.0)
    for leaf in jax.tree.leaves(JACOBIAN(a, b, SQUARED, 0.1)):
      self.assertTrue(np.all(np.isfinite(leaf)))

  def test_a_bad_row_does_not_touch_its_neighbours(self):
    a, b = histograms(0, 6, 5)
    expected = np.array(solve(a, b, SQUARED, 0.1).regularised_cost)
    a[1] = np.nan
    got = np.array(solve(a, b, SQUARED, 0.1).regularised_cost)
    self.assertTrue(np.isnan(got[1]))
    np.testing.assert_array_equal(np.delete(got, 1), np.delete(expected, 1))

  def test_gradient_inside_shard_map(self):
    a, b = histograms(6, 6, 5)
    cost = np.broadcast_to(SQUARED, (6, 5, 5))
    spec = jax.sharding.PartitionSpec
    parallel_modes.need_devices(6)
    mesh = jax.make_mesh(
      (6,),
      ("data",),
      axis_types=(jax.sharding.AxisType.Auto,),
      devices=jax.devices()[:6],
    )
    mapped = jax.shard_map(
      lambda *x: jax.lax.psum(_total(*x, 0.1)[1], "data"),
      mesh=mesh,
      in_specs=spec("data"),
      out_specs=spec(),
    )
    np.testing.assert_allclose(
      jax.jit(jax.grad(mapped))(a, b, cost),
      JACOBIAN(a, b, cost, 0.1)[1][0],
      atol=1e-12,
    )

  def test_bfloat16_is_raised(self):
    narrow = (jnp.asarray(x, jnp.bfloat16) for x in (A, B, SQUARED))
    out = jax.eval_shape(
      lambda *x: sinkhorn(*x, epsilon=0.1, num_iters=5), *narrow
    )
    self.assertEqual({x.dtype for x in out}, {jnp.dtype(jnp.float32)})

  def test_errors(self):
    solve = lambda a=A, b=B, c=SQUARED, **k: sinkhorn(
      a, b, c, **{"epsilon": 0.1, "num_iters": 5, **k}
    )
    with self.assertRaisesRegex(ValueError, r"cost must be.*cost \(4, 5\)"):
      solve(c=SQUARED[1:])
    with self.assertRaisesRegex(
      ValueError, r"batch axes.*a \(1, 5\), b \(5,\)"
    ):
      solve(a=A[None])
    with self.assertRaisesRegex(ValueError, r"batch axes.*cost \(2, 5, 5\)"):
      solve(c=np.stack([SQUARED] * 2))
    with self.assertRaisesRegex(ValueError, r"expected \[..., d\]"):
      solve(a=np.float64(1.0))
    with self.assertRaisesRegex(TypeError, "a must be floating"):
      solve(a=np.ones(5, np.int32))
    with self.assertRaisesRegex(ValueError, "epsilon must be positive, got 0"):
      solve(epsilon=0.0)
    with self.assertRaisesRegex(ValueError, "num_iters must be at least 1"):
      solve(num_iters=0)


class SinkhornDivergenceTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_zero_at_equality_positive_elsewhere_and_debiased(self):
    a, b = histograms(0, 6, 5)

    @jax.jit
    def both(theta, b, epsilon):
      fn = lambda t: sinkhorn_divergence(
        jax.nn.softmax(t),
        b,
        SQUARED,
        SQUARED,
        SQUARED,
        epsilon=epsilon,
        num_iters=100,
      )
      value, pull = jax.vjp(fn, theta)
      return value, pull(jnp.ones_like(value))[0]

    for epsilon in (1.0, 0.05, 0.01):
      value, slope = both(np.log(a), a, epsilon)
      np.testing.assert_allclose(value, 0.0, atol=1e-12)
      np.testing.assert_allclose(slope, 0.0, atol=1e-9)
      self.assertTrue(np.all(both(np.log(a), b, epsilon)[0] > 0))
    theta, target = (np.broadcast_to(x, (6, 5)) for x in (np.log(A), B))
    exact = references.transport_cost(A, B, SQUARED)
    np.testing.assert_allclose(exact, 0.03125, atol=1e-9)
    got = both(theta, target, 1e-3)[0]
    np.testing.assert_allclose(got, exact, atol=1e-3)
    # Half the squared energy distance is left when the plans are products.
    energy = A @ SQUARED @ B - (A @ SQUARED @ A + B @ SQUARED @ B) / 2
    np.testing.assert_allclose(both(theta, target, 1e4)[0], energy, rtol=1e-3)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"cost must be.*cost \(4, 5\)"):
      sinkhorn_divergence(
        A, B, SQUARED, SQUARED, SQUARED[1:], epsilon=0.1, num_iters=5
      )


class Wasserstein1dTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_published_atoms(self):
    positions = np.array([0, 1, 2, 5, 0.5, 1.5, 1.5, 3])
    p, q = np.repeat([0.25, 0.0], 4), np.repeat([0.0, 0.25], 4)
    for power, expected in ((1, 0.875), (2, 1.1875)):
      np.testing.assert_allclose(
        wasserstein_1d(p, q, positions, power=power), expected, rtol=1e-12
      )
    np.testing.assert_allclose(wasserstein_1d(A, B, X), 0.125, rtol=1e-12)
    np.testing.assert_allclose(
      wasserstein_1d(A, B, X, power=2), 0.03125, rtol=1e-12
    )

  def test_gaussians_by_their_quantiles(self):
    from scipy.stats import norm

    quantile = norm.ppf((np.arange(300) + 0.5) / 300)
    positions = np.concatenate([1 + 1.2 * quantile, 0.5 * quantile])
    p, q = np.repeat([1 / 300, 0.0], 300), np.repeat([0.0, 1 / 300], 300)
    np.testing.assert_allclose(
      wasserstein_1d(p, q, positions, power=2), 1.49, atol=0.01
    )

  @parameterized.parameters(1, 2)
  def test_matches_linear_programming(self, power):
    p, q = histograms(1, 4, 6, zeros=True)
    positions = np.random.default_rng(2).normal(size=6)  # not sorted
    cost = np.abs(positions[:, None] - positions[None]) ** power
    np.testing.assert_allclose(
      wasserstein_1d(p, q, positions, power=power),
      [references.transport_cost(*x, cost) for x in zip(p, q, strict=True)],
      atol=1e-9,
    )

  @parameterized.parameters(1, 2)
  def test_is_the_small_epsilon_limit_of_sinkhorn(self, power):
    p, q = histograms(3, 6, 5)
    cost = np.abs(X[:, None] - X[None]) ** power
    out = solve(p, q, cost, 1e-3)
    np.testing.assert_allclose(
      wasserstein_1d(p, q, X, power=power), out.transport_cost, atol=1e-3
    )

  @parameterized.parameters(1, 2)
  def test_gradients_permutations_batches_and_empty_atoms(self, power):
    fn = lambda p, q, x: wasserstein_1d(p, q, x, power=power)
    p, q = histograms(4, 3, 6)
    x = np.random.default_rng(5).normal(size=6)
    total = lambda t, x: jnp.sum(fn(jax.nn.softmax(t), q, x))
    forward = jax.jit(jax.jacfwd(total, (0, 1)))(np.log(p), x)
    reverse = jax.jit(jax.grad(total, (0, 1)))(np.log(p), x)
    value = jax.jit(total)
    for i, step in enumerate(1e-6 * np.eye(6)):
      by_position = value(np.log(p), x + step) - value(np.log(p), x - step)
      by_mass = value(np.log(p) + step, x) - value(np.log(p) - step, x)
      for grad in (forward, reverse):
        np.testing.assert_allclose(grad[1][i], by_position / 2e-6, atol=1e-7)
        np.testing.assert_allclose(
          np.sum(grad[0][:, i]), by_mass / 2e-6, atol=1e-7
        )
    hessian = jax.jit(jax.hessian(total))(np.log(p), x)
    self.assertTrue(np.all(np.isfinite(hessian)))
    order = np.random.default_rng(6).permutation(6)
    expected = fn(p, q, x)
    np.testing.assert_allclose(
      fn(p[:, order], q[:, order], x[order]), expected, rtol=1e-12
    )
    np.testing.assert_allclose(
      jax.jit(jax.vmap(fn))(p, q, np.tile(x, (3, 1))), expected, rtol=1e-12
    )
    empty = lambda y: np.concatenate([y, np.zeros((3, 1))], axis=-1)
    np.testing.assert_allclose(
      fn(empty(p), empty(q), np.append(x, 1e6)), expected, rtol=1e-7
    )
    np.testing.assert_allclose(fn(p, p, x), 0.0, atol=1e-15)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "power must be 1 or 2, got 3"):
      wasserstein_1d(A, B, X, power=3)
    with self.assertRaisesRegex(ValueError, r"p \(5,\), q \(4,\)"):
      wasserstein_1d(A, B[1:], X)
    with self.assertRaisesRegex(ValueError, r"positions \(4,\)"):
      wasserstein_1d(A, B, X[1:])
    with self.assertRaisesRegex(TypeError, "positions must be floating"):
      wasserstein_1d(A, B, np.arange(5))


if __name__ == "__main__":
  absltest.main()
