"""Intervals over people: against rows put together by hand, and coverage."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import bootstrap_interval, clustered_interval

RATIO = lambda total, count: total / count


def by_hand(x, cluster, num_clusters, key, num_samples, level=0.95):
  """Means over the rows of drawn clusters, one resample after the other."""
  draw = lambda key: jax.random.randint(key, (num_clusters,), 0, num_clusters)
  means = []
  for drawn in np.asarray(jax.vmap(draw)(jax.random.split(key, num_samples))):
    rows = np.concatenate([x[cluster == u] for u in drawn])
    means.append(np.mean(rows.astype(np.float64)))
  tail = (1 - level) / 2
  return np.quantile(means, [tail, 1 - tail])


def crowd(key, people=40, pairs=15, spread=0.25):
  """Right or wrong of pairs whose people are predicted unlike well."""
  own, each = jax.random.split(key)
  share = 0.65 + spread * jax.random.uniform(own, (people,), minval=-1.0)
  right = jax.random.uniform(each, (people, pairs)) < share[:, None]
  return right.astype(jnp.float32).ravel()


class ClusteredIntervalTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.cluster = rng.integers(0, 9, 60)
    self.x = (rng.normal(size=60) + self.cluster).astype(np.float32)

  @parameterized.parameters(0.95, 0.5)
  def test_equals_rows_put_together_by_hand(self, level):
    got = clustered_interval(
      RATIO,
      self.x,
      np.ones_like(self.x),
      cluster=self.cluster,
      num_clusters=9,
      key=jax.random.key(4),
      num_samples=150,
      level=level,
    )
    expected = by_hand(
      self.x, self.cluster, 9, jax.random.key(4), 150, level=level
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)

  def test_a_cluster_per_row_is_the_bootstrap_over_rows(self):
    key = lambda: jax.random.key(2)
    got = clustered_interval(
      lambda total: total / 60,
      self.x,
      cluster=np.arange(60),
      num_clusters=60,
      key=key(),
    )
    expected = bootstrap_interval(jnp.mean, self.x, key=key())
    np.testing.assert_allclose(got, expected, rtol=1e-5)

  def test_names_and_order_of_clusters_change_little(self):
    interval = lambda *arrays, cluster: clustered_interval(
      RATIO, *arrays, cluster=cluster, num_clusters=9, key=jax.random.key(0),
      num_samples=2000,
    )  # fmt: skip
    ones = np.ones_like(self.x)
    low, high = interval(self.x, ones, cluster=self.cluster)
    order = np.random.default_rng(1).permutation(60)
    again = interval(self.x[order], ones, cluster=self.cluster[order])
    np.testing.assert_allclose(again, (low, high), rtol=1e-5)
    renamed = interval(self.x, ones, cluster=8 - self.cluster)
    np.testing.assert_allclose(renamed, (low, high), atol=0.1 * (high - low))

  def test_rows_of_nobody_count_for_nobody(self):
    interval = lambda *arrays, cluster: clustered_interval(
      RATIO, *arrays, cluster=cluster, num_clusters=9, key=jax.random.key(0)
    )
    more = np.append(self.x, np.float32([1e30, np.nan]))
    got = interval(
      more, np.ones_like(more), cluster=np.append(self.cluster, [-1, 9])
    )
    expected = interval(self.x, np.ones_like(self.x), cluster=self.cluster)
    np.testing.assert_array_equal(got, expected)

  def test_statistics_may_be_arrays_of_several_totals(self):
    wide = np.stack([self.x, 2 * self.x, -self.x], axis=1)
    got = clustered_interval(
      lambda total: total / 60.0,
      wide,
      cluster=self.cluster,
      num_clusters=9,
      key=jax.random.key(1),
      num_samples=80,
    )
    self.assertEqual(got.low.shape, (3,))
    np.testing.assert_allclose(got.low[1], 2 * got.low[0], rtol=1e-5)
    np.testing.assert_allclose(got.high[2], -got.low[0], rtol=1e-5)

  def test_covers_the_truth_where_the_bootstrap_over_pairs_does_not(self):
    people, pairs, times = 40, 15, 400
    who = np.repeat(np.arange(people), pairs)
    ones = jnp.ones(people * pairs)

    def intervals(key):
      drawn, first, second = jax.random.split(key, 3)
      right = crowd(drawn, people, pairs)
      over_people = clustered_interval(
        RATIO, right, ones, cluster=who, num_clusters=people, key=first,
        num_samples=200,
      )  # fmt: skip
      over_pairs = bootstrap_interval(
        jnp.mean, right, key=second, num_samples=200
      )
      return over_people, over_pairs

    keys = jax.random.split(jax.random.key(7), times)
    # A transformed loop counts as a second use of the keys it is over.
    with jax.debug_key_reuse(False):
      found = jax.jit(jax.vmap(intervals))(keys)
    covered = [np.mean((low < 0.65) & (high > 0.65)) for low, high in found]
    # 95 % wanted; 400 repetitions have a standard error of about 1 %.
    self.assertBetween(covered[0], 0.91, 0.98)
    self.assertLess(covered[1], 0.85)

  def test_errors(self):
    interval = functools.partial(
      clustered_interval, RATIO, key=jax.random.key(0), num_clusters=9
    )
    with self.assertRaisesRegex(ValueError, "at least one array"):
      interval(cluster=self.cluster)
    with self.assertRaisesRegex(ValueError, "num_clusters must be at least 2"):
      clustered_interval(
        RATIO, self.x, cluster=self.cluster, num_clusters=1,
        key=jax.random.key(0),
      )  # fmt: skip
    with self.assertRaisesRegex(ValueError, "leading axis of x"):
      interval(self.x, cluster=self.cluster[1:])
    with self.assertRaisesRegex(TypeError, "cluster must be integer"):
      interval(self.x, cluster=self.x)
    with self.assertRaisesRegex(ValueError, "level"):
      interval(self.x, cluster=self.cluster, level=0.0)
    with self.assertRaisesRegex(ValueError, "num_samples"):
      interval(self.x, cluster=self.cluster, num_samples=1)


if __name__ == "__main__":
  absltest.main()
