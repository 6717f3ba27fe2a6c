"""Min-norm weights: certified by their duality gap, then against oracles."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import min_norm_weights
from tests import parallel_modes, references

SOLVE = jax.jit(jax.vmap(min_norm_weights))


def vectors(kind, seed, n, size, width=48):
  rng = np.random.default_rng(seed)
  g = rng.normal(size=(n, size, width))
  if kind == "correlated":
    return g[..., :8] + 1
  if kind == "scaled":
    return g * 10.0 ** rng.uniform(-4, 2, size=(n, size, 1))
  if kind == "conflicting":
    side = np.where(rng.random((n, size, 1)) < 0.5, 1, -1)
    return 0.3 * g + g[:, :1] * side
  if kind == "duplicated":
    g[:, 1::2] = g[:, ::2][:, : size // 2]
  return g


def gap(gram, weights):
  """How far ‖g‖² can be above its minimum, over the shortest vector's."""
  products = np.einsum("...ij,...j->...i", gram, weights)
  value = np.sum(weights * products, -1)
  shortest = np.min(np.diagonal(gram, axis1=-2, axis2=-1), -1)
  return np.max((value - np.min(products, -1)) / shortest)


class MinNormTest(parameterized.TestCase):
  @parameterized.product(
    kind=("plain", "correlated", "scaled", "conflicting", "duplicated"),
    size=(5, 64),
  )
  def test_duality_gap_certifies_the_optimum(self, kind, size):
    g = vectors(kind, 0, 12, size)
    gram = np.einsum("nid,njd->nij", g, g)
    single = np.asarray(SOLVE(jnp.asarray(gram, jnp.float32)), np.float64)
    with jax.enable_x64(True):
      double = np.asarray(SOLVE(gram))
    for weights in (single, double):
      self.assertTrue(np.all(weights >= 0))
      np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    self.assertLess(gap(gram, double), 1e-9)
    norm = lambda w: np.einsum("ni,nij,nj->n", w, gram, w)
    shortest = np.min(np.diagonal(gram, axis1=1, axis2=2), -1)
    excess = (norm(single) - norm(double)) / shortest
    self.assertLess(np.max(excess), 1e-6)
    if kind != "scaled":  # there a gap is the rounding of the long vectors
      self.assertLess(gap(gram, single), 2e-6)

  @parameterized.parameters("plain", "correlated", "conflicting")
  def test_matches_quadratic_programming(self, kind):
    g = vectors(kind, 1, 12, 5)
    gram = np.einsum("nid,njd->nij", g, g)
    with jax.enable_x64(True):
      got = SOLVE(gram)
    for i in range(4):
      np.testing.assert_allclose(
        got[i], references.min_norm_weights(gram[i]), atol=1e-5
      )

  def test_is_never_worse_than_frank_wolfe_and_better_in_conflict(self):
    g = vectors("conflicting", 2, 12, 64)
    gram = np.einsum("nid,njd->nij", g, g)
    with jax.enable_x64(True):
      exact = np.asarray(SOLVE(gram))
    approximate = np.stack(
      [references.frank_wolfe_weights(x, 50) for x in gram]
    )
    norm = lambda w: np.einsum("ni,nij,nj->n", w, gram, w)
    self.assertTrue(np.all(norm(exact) <= norm(approximate) * (1 + 1e-12)))
    self.assertGreater(gap(gram, approximate), 1e3 * gap(gram, exact))

  @parameterized.parameters(
    ([[-4, 1, 1], [6, 1, 1]], [0.6, 0.4], [0, 1, 1]),
    ([[1, 0], [0, 1]], [0.5, 0.5], [0.5, 0.5]),
    ([[1, 0], [2, 0]], [1, 0], [1, 0]),
    ([[1, 1], [-1, 1]], [0.5, 0.5], [0, 1]),
    ([[1, 0], [-1, 0]], [0.5, 0.5], [0, 0]),
    ([[3, 4]], [1], [3, 4]),
  )
  def test_published_and_closed_forms(self, g, weights, direction):
    g = np.array(g, np.float32)
    got = np.asarray(min_norm_weights(g @ g.T))
    np.testing.assert_allclose(got, weights, atol=1e-6)
    np.testing.assert_allclose(got @ g, direction, atol=1e-6)
    self.assertTrue(np.all(g @ (got @ g) >= (got @ g) @ (got @ g) - 1e-5))

  def test_permuting_the_vectors_permutes_the_weights(self):
    g = vectors("plain", 3, 12, 5)
    gram = np.einsum("nid,njd->nij", g, g)
    order = np.array([2, 0, 4, 1, 3])
    with jax.enable_x64(True):
      np.testing.assert_allclose(
        SOLVE(gram[:, order][:, :, order]), SOLVE(gram)[:, order], atol=1e-12
      )

  @parameterized.parameters(
    (np.zeros((3, 3)), [1 / 3, 1 / 3, 1 / 3]),
    (np.diag([0.0, 1.0, 0.0]), [0.5, 0.0, 0.5]),
    (np.diag([0.0, 1e-30, 1e30]), [1.0, 0.0, 0.0]),
    (np.ones((3, 3)), None),
  )
  def test_degenerate_grams(self, gram, expected):
    weights = min_norm_weights(jnp.asarray(gram, jnp.float32))
    np.testing.assert_allclose(np.sum(weights), 1.0, rtol=1e-6)
    if expected is not None:
      np.testing.assert_allclose(weights, expected, rtol=1e-6)

  def test_masked_vectors_get_zero_whatever_they_hold(self):
    g = vectors("conflicting", 4, 1, 5)[0].astype(np.float32)
    gram = g @ g.T
    where = np.array([True, False, True, True, False])
    expected = min_norm_weights(gram[where][:, where])
    fn = jax.jit(lambda x, w: min_norm_weights(x, where=w))
    for garbage in (np.nan, np.inf, 0.0):
      dirty = np.where(where[:, None] & where[None], gram, np.float32(garbage))
      got = fn(dirty, where)
      np.testing.assert_allclose(got[where], expected, atol=1e-5)
      np.testing.assert_array_equal(got[~where], 0.0)
    np.testing.assert_array_equal(fn(gram, np.zeros(5, bool)), 0.0)
    np.testing.assert_allclose(
      fn(np.zeros((5, 5), np.float32), where), where / 3, rtol=1e-6
    )

  def test_a_gram_that_is_not_finite_is_not_hidden(self):
    gram = np.eye(3, dtype=np.float32)
    gram[0, 1] = np.nan
    self.assertTrue(np.all(np.isnan(min_norm_weights(gram))))

  def test_no_gradient_in_either_mode(self):
    g = jnp.asarray(vectors("plain", 5, 1, 3)[0], jnp.float32)
    fn = lambda g: min_norm_weights(jnp.dot(g, g.T))[0]
    np.testing.assert_array_equal(jax.grad(fn)(g), 0.0)
    _, tangent = jax.jvp(fn, (g,), (jnp.ones_like(g),))
    self.assertEqual(tangent, 0.0)

  def test_runs_per_device_and_globally_inside_shard_map(self):
    g = vectors("conflicting", 6, 12, 5)[:8].astype(np.float32)
    gram = np.einsum("nid,njd->nij", g, g)
    spec = jax.sharding.PartitionSpec
    parallel_modes.need_devices(8)
    mesh = jax.make_mesh(
      (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )

    def step(x):
      mean = jax.lax.pmean(x[0], "data")
      return min_norm_weights(x[0])[None], min_norm_weights(mean)

    local, shared = jax.jit(
      jax.shard_map(
        step, mesh=mesh, in_specs=spec("data"), out_specs=(spec("data"), spec())
      )
    )(gram)
    np.testing.assert_allclose(local, SOLVE(gram), atol=3e-5)
    np.testing.assert_allclose(
      shared, min_norm_weights(gram.mean(0)), atol=1e-5
    )

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"gram must be \[K, K\].*\(2, 3\)"):
      min_norm_weights(np.ones((2, 3), np.float32))
    with self.assertRaisesRegex(ValueError, "gram must have 2 axes"):
      min_norm_weights(np.ones(3, np.float32))
    with self.assertRaisesRegex(ValueError, r"where must be \[2\]"):
      min_norm_weights(np.eye(2, dtype=np.float32), where=np.ones(3, bool))
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      min_norm_weights(np.eye(2, dtype=np.float32), where=np.ones(2))
    with self.assertRaisesRegex(TypeError, "gram must be floating"):
      min_norm_weights(np.eye(2, dtype=np.int32))


if __name__ == "__main__":
  absltest.main()
