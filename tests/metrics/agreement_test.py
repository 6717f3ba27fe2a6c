"""Drift, diversity and agreement by hand and against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import (
  diversity_matrix,
  preference_diversity,
  reward_drift,
)


class AgreementTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.source, self.shared = rng.normal(size=(3, 20)), rng.normal(size=20)
    self.probs = rng.random((4, 20))
    self.where = rng.random(20) < 0.6

  def test_drift_is_the_deviation_of_the_difference(self):
    np.testing.assert_allclose(
      reward_drift(self.source, self.shared),
      np.std(self.source - self.shared, axis=1),
      rtol=1e-12,
    )

  def test_drift_does_not_see_offsets_but_sees_scale(self):
    moved = self.shared + np.array([[5.0], [-2.0]])
    np.testing.assert_allclose(
      reward_drift(moved, self.shared), 0.0, atol=1e-12
    )
    np.testing.assert_allclose(
      reward_drift(3 * self.shared[None], self.shared),
      2 * np.std(self.shared)[None],
      rtol=1e-12,
    )

  def test_diversity_is_the_mean_distance_of_win_probabilities(self):
    p, q = self.probs[:2]
    np.testing.assert_allclose(
      preference_diversity(p, q), np.mean(np.abs(p - q)), rtol=1e-12
    )
    self.assertEqual(preference_diversity(np.zeros(3), np.ones(3)), 1.0)
    self.assertEqual(preference_diversity(p, p), 0.0)

  def test_diversity_matrix_holds_every_pair_and_is_a_metric(self):
    matrix = np.asarray(diversity_matrix(self.probs))
    for i in range(4):
      for j in range(4):
        np.testing.assert_allclose(
          matrix[i, j],
          preference_diversity(self.probs[i], self.probs[j]),
          rtol=1e-12,
        )
    through = matrix[:, :, None] + matrix[None]
    self.assertTrue(np.all(matrix[:, None, :] <= through + 1e-12))

  def test_a_single_response_has_no_drift(self):
    np.testing.assert_array_equal(
      reward_drift(self.source[:, :1], self.shared[:1]), 0.0
    )

  def test_jit_and_narrow_inputs(self):
    p = jnp.asarray(self.probs, jnp.bfloat16)
    for out in (
      reward_drift(p, p[0]),
      diversity_matrix(p),
      preference_diversity(p[0], p[1]),
    ):
      self.assertEqual(out.dtype, jnp.float32)
    np.testing.assert_allclose(
      jax.jit(diversity_matrix)(self.probs), diversity_matrix(self.probs)
    )

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, r"\(3, 20\) and \(19,\)"):
      reward_drift(self.source, self.shared[1:])
    with self.assertRaisesRegex(ValueError, "source_rewards must have 2 axes"):
      reward_drift(self.shared, self.shared)
    with self.assertRaisesRegex(TypeError, "shared_rewards must be floating"):
      reward_drift(self.source, np.arange(20))
    with self.assertRaisesRegex(ValueError, r"probs_j \(19,\)"):
      preference_diversity(self.probs[0], self.probs[1, 1:])
    with self.assertRaisesRegex(ValueError, "probs must have 2 axes"):
      diversity_matrix(self.probs[0])


if __name__ == "__main__":
  absltest.main()
