"""Unit rows and balanced assignments, with a queue and on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.ops import balanced_assignments, unit_rows
from tests import parallel_modes, references, transforms


class UnitRowsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.x = np.random.default_rng(0).normal(size=(3, 4))

  def test_matches_reference_whatever_the_scale(self):
    scale = np.array([[1e-300], [1.0], [1e300]])
    np.testing.assert_allclose(
      unit_rows(self.x * scale), references.unit(self.x), rtol=1e-12
    )

  def test_a_zero_row_stays_zero_with_zero_gradient(self):
    x = jnp.zeros((2, 3)).at[1, 0].set(2.0)
    np.testing.assert_array_equal(unit_rows(x), [[0, 0, 0], [1, 0, 0]])
    grad = jax.grad(lambda x: jnp.sum(unit_rows(x)))(x)
    np.testing.assert_allclose(grad, [[0, 0, 0], [0, 0.5, 0.5]])

  def test_derivatives_and_transforms(self):
    transforms.assert_second_order(unit_rows, self.x)
    transforms.assert_jit_and_vmap(unit_rows, self.x)
    transforms.assert_finite(unit_rows, self.x * np.array([[0], [1e4], [-1e4]]))

  def test_dtypes(self):
    self.assertEqual(unit_rows(jnp.ones(2, jnp.bfloat16)).dtype, jnp.float32)
    with self.assertRaisesRegex(TypeError, "x must be floating"):
      unit_rows(np.ones(2, int))


class BalancedAssignmentsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.scores = np.random.default_rng(0).normal(size=(16, 4)) * 3

  @parameterized.parameters(1, 3)
  def test_matches_reference(self, num_iters):
    np.testing.assert_allclose(
      balanced_assignments(self.scores, num_iters=num_iters),
      references.balanced_assignments(self.scores, num_iters),
      rtol=1e-10,
    )

  def test_rows_are_exact_and_columns_become_equal(self):
    q = balanced_assignments(self.scores, num_iters=100)
    np.testing.assert_allclose(q.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(q.sum(axis=0), 4.0, rtol=1e-6)

  def test_a_queue_fills_columns_and_is_masked(self):
    queue = np.random.default_rng(1).normal(size=(5, 4))
    where = np.array([True, True, False, True, False])
    got = balanced_assignments(
      self.scores,
      num_iters=3,
      queue=np.where(where[:, None], queue, np.nan),
      queue_where=where,
    )
    want = references.balanced_assignments(self.scores, 3, queue[where])
    np.testing.assert_allclose(got, want, rtol=1e-10)
    empty = balanced_assignments(
      self.scores, num_iters=3, queue=queue, queue_where=where & False
    )
    plain = balanced_assignments(self.scores, num_iters=3)
    np.testing.assert_allclose(empty, plain, rtol=1e-12)

  def test_masked_rows_fill_nothing(self):
    where = np.arange(16) < 10
    got = balanced_assignments(
      np.where(where[:, None], self.scores, np.nan), num_iters=3, where=where
    )
    want = references.balanced_assignments(self.scores[:10], 3)
    np.testing.assert_allclose(got[:10], want, rtol=1e-10)
    self.assertTrue(np.all(np.isfinite(got)))
    nothing = balanced_assignments(
      self.scores, num_iters=3, where=where & False
    )
    self.assertTrue(np.all(np.isfinite(nothing)))

  def test_extreme_scores_stay_finite(self):
    q = balanced_assignments(self.scores * 1e4, num_iters=3)
    np.testing.assert_allclose(q.sum(axis=1), 1.0, rtol=1e-12)

  def test_no_gradient(self):
    loss = lambda s: jnp.sum(balanced_assignments(s, num_iters=3) ** 2)
    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(self.scores)), 0.0)

  def test_same_in_all_modes_with_a_shared_queue(self):
    def loss(params, batch, axis_name):
      q = balanced_assignments(
        batch["scores"],
        num_iters=3,
        where=batch["where"],
        queue=params["queue"],
        axis_name=axis_name,
      )
      return jnp.mean(jnp.square(q) * params["scale"])

    parallel_modes.assert_same_in_all_modes(
      loss,
      dict(scale=np.ones(()), queue=self.scores[:3] - 1),
      dict(scores=self.scores, where=np.arange(16) != 3),
    )

  @parameterized.parameters(
    (ValueError, "num_iters must be at least 1, got 0", dict(num_iters=0)),
    (ValueError, r"where must be \(16,\)", dict(where=np.ones(3, bool))),
    (TypeError, "where must be bool", dict(where=np.ones(16))),
    (ValueError, r"queue must be \[Q, 4\]", dict(queue=np.ones((2, 3)))),
    (ValueError, "needs queue", dict(queue_where=np.ones(2, bool))),
  )
  def test_errors(self, error, message, change):
    with self.assertRaisesRegex(error, message):
      balanced_assignments(self.scores, **(dict(num_iters=3) | change))

  def test_integer_scores_raise(self):
    with self.assertRaisesRegex(TypeError, "scores must be floating"):
      balanced_assignments(np.ones((2, 2), int), num_iters=1)


if __name__ == "__main__":
  absltest.main()
