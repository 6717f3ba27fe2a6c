"""Cosines between views and between instances, by counting pairs."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import contrastive


class ViewsTest(absltest.TestCase):
  def test_means_over_counted_instances(self):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 3))
    where = np.array([True, True, False, True, True])
    got = contrastive.mean_cosines(
      (jnp.array(first, jnp.float32), jnp.array(second, jnp.float32)),
      jnp.array(where),
    )
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit(first[where]) @ unit(second[where]).T
    alike = np.diag(cosines)
    np.testing.assert_allclose(got["train/view_cosine"], alike.mean(), 1e-5)
    others = (cosines.sum() - alike.sum()) / 12
    np.testing.assert_allclose(got["train/instance_cosine"], others, 1e-5)

  def test_nothing_counts(self):
    rows = jnp.ones((2, 3))
    got = contrastive.mean_cosines((rows, rows), jnp.zeros(2, bool))
    self.assertEqual({float(x) for x in got.values()}, {0.0})


if __name__ == "__main__":
  absltest.main()
