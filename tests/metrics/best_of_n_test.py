"""The best of n against every subset, counted out."""

import itertools

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import best_of_n_kl, best_of_n_values


class BestOfNTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.proxy = rng.normal(size=(3, 6))
    self.values = rng.normal(size=(3, 6, 2))

  def test_mean_over_all_subsets(self):
    sizes = (1, 2, 4, 6)
    found = best_of_n_values(self.proxy, self.values, sizes=sizes)
    self.assertEqual(found.shape, (3, 4, 2))
    for prompt, (column, n) in itertools.product(range(3), enumerate(sizes)):
      picked = [
        self.values[prompt, max(subset, key=lambda i: self.proxy[prompt, i])]
        for subset in itertools.combinations(range(6), n)
      ]
      np.testing.assert_allclose(
        found[prompt, column], np.mean(picked, axis=0), rtol=1e-12
      )

  def test_one_value_per_sample(self):
    found = best_of_n_values(self.proxy, self.proxy, sizes=(1, 6))
    np.testing.assert_allclose(found[:, 0], self.proxy.mean(axis=1))
    np.testing.assert_allclose(found[:, 1], self.proxy.max(axis=1))

  def test_order_of_samples_changes_nothing(self):
    order = np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(
      best_of_n_values(
        self.proxy[:, order], self.values[:, order], sizes=(2, 3)
      ),
      best_of_n_values(self.proxy, self.values, sizes=(2, 3)),
      rtol=1e-12,
    )

  def test_kl_is_that_of_the_highest_of_n_uniform_draws(self):
    # Ranks are uniform, and their density under best-of-n is n u^(n-1).
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    for n in (1, 2, 4, 16):
      density = n * u ** (n - 1)
      kl = np.mean(density * np.log(density))
      np.testing.assert_allclose(best_of_n_kl(np.int32(n)), kl, atol=1e-5)
    self.assertEqual(best_of_n_kl(np.array([1, 2])).shape, (2,))

  @parameterized.parameters(
    ((0,), r"sizes must be in \[1, 6\], got 0"),
    ((7,), r"sizes must be in \[1, 6\], got 7"),
  )
  def test_sizes_out_of_range(self, sizes, message):
    with self.assertRaisesRegex(ValueError, message):
      best_of_n_values(self.proxy, self.values, sizes=sizes)

  def test_shapes_that_do_not_fit(self):
    with self.assertRaisesRegex(ValueError, r"shape of proxy \(3, 6\), got"):
      best_of_n_values(self.proxy, self.values[:, :5], sizes=(1,))
    with self.assertRaisesRegex(TypeError, "proxy"):
      best_of_n_values(self.proxy.astype(int), self.values, sizes=(1,))


if __name__ == "__main__":
  absltest.main()
