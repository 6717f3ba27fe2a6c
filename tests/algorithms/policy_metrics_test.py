"""Metrics of a batch by hand: groups, and how far the sampler is off."""

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import policy_metrics
from tests.algorithms import bigram


class PolicyMetricsTest(absltest.TestCase):
  def test_kl_of_a_group_is_that_of_its_own_prompts_that_count(self):
    batch = {
      "where": jnp.array([True, True, False, True]),
      "group": jnp.array([0, 1, 0, -1], jnp.int32),
    }
    divergence = jnp.array([[1.0, 3.0], [5.0, 5.0], [9.0, 9.0], [7.0, 7.0]])
    found = policy_metrics.by_group(
      batch,
      divergence,
      jnp.array([0.5, -0.5]),
      jnp.array([0.25, 0.75]),
      bigram.config(),
      None,
    )
    self.assertEqual(float(found["train/kl/a"]), 2.0)
    self.assertEqual(float(found["train/kl/b"]), 5.0)
    self.assertEqual(float(found["train/utility/b"]), -0.5)
    self.assertEqual(float(found["train/group_weight/a"]), 0.25)

  def test_the_sampler_is_compared_where_tokens_count(self):
    found = policy_metrics.mismatch(
      {"sampler_log_probs": jnp.array([[[-1.0, -9.0]]])},
      {"model_log_probs": jnp.array([[[-1.5, -2.0]]])},
      jnp.array([[[True, False]]]),
      None,
    )
    np.testing.assert_allclose(found["train/mismatch_mean_abs"], 0.5)


if __name__ == "__main__":
  absltest.main()
