"""Prototypes: unit length, Adam's step, the queue, how many are in use."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import contrastive


class PrototypesTest(absltest.TestCase):
  def test_a_step_follows_adam_and_pushes_what_counts(self):
    start = contrastive.init_prototypes(3, 4, queue_size=2)
    np.testing.assert_allclose(
      np.linalg.norm(start.centres, axis=1), 1, rtol=1e-6
    )
    rng = np.random.default_rng(0)
    slopes = jnp.array(rng.normal(size=(3, 4)), jnp.float32)
    views = tuple(jnp.array(rng.normal(size=(3, 4)), jnp.float32) for _ in "ab")
    after = contrastive.moved_prototypes(
      start, slopes, views, jnp.array([True, False, True]), learning_rate=0.1
    )
    moved = start.centres - 0.1 * np.sign(slopes)  # Adam's first step
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(after.centres, moved, atol=1e-5)
    np.testing.assert_array_equal(after.queue.view_a, views[0][::2])
    np.testing.assert_array_equal(after.queue.view_b, views[1][::2])

  def test_without_a_queue_there_is_none(self):
    start = contrastive.init_prototypes(3, 4, queue_size=0)
    rows = jnp.ones((2, 4))
    after = contrastive.moved_prototypes(
      start,
      jnp.zeros((3, 4)),
      (rows, rows),
      jnp.ones(2, bool),
      learning_rate=0.1,
    )
    self.assertEqual(after.queue, ())
    np.testing.assert_allclose(after.centres, start.centres, atol=1e-6)

  def test_number_in_use_is_that_of_equally_shared_ones(self):
    centres = jnp.eye(4)
    rows = jnp.eye(4)[jnp.array([0, 0, 1, 1, 3])]
    where = jnp.array([True] * 4 + [False])
    used = contrastive.num_used(centres, rows, where)
    self.assertAlmostEqual(float(used), 2.0, places=5)


if __name__ == "__main__":
  absltest.main()
