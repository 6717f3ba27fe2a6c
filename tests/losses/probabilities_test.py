"""Whatever takes probabilities names one that is none, where it is known."""

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import losses, metrics

PAIRS, LABELS = np.zeros(2, np.float32), np.zeros((2, 6), np.float32)
GAPS, USER = np.zeros((2, 2), np.float32), np.zeros(2, np.int32)
COST = np.ones((6, 6), np.float32) - np.eye(6, dtype=np.float32)
UTILITIES = np.linspace(0, 1, 6, dtype=np.float32)
CALLS = {
  "soft_preference_loss": lambda p: losses.soft_preference_loss(
    PAIRS, PAIRS, chosen_prob=p
  ),
  "margin_targets": lambda p: losses.margin_targets(PAIRS, chosen_prob=p),
  "mixture_log_likelihood": lambda p: losses.mixture_log_likelihood(
    GAPS, user=USER, num_users=1, mixture_weights=p
  ),
  "user_responsibilities": lambda p: losses.user_responsibilities(
    GAPS, user=USER, num_users=1, mixture_weights=p
  ),
  "preference_diversity": lambda p: metrics.preference_diversity(PAIRS, p),
  "diversity_matrix": lambda p: metrics.diversity_matrix(p[None]),
}
OVER_LABELS = {
  "label_cross_entropy": lambda p: losses.label_cross_entropy(LABELS, p),
  "optimal_transport_loss": lambda p: losses.optimal_transport_loss(
    LABELS, p, COST
  ),
  "wasserstein_1d_loss": lambda p: losses.wasserstein_1d_loss(
    LABELS, p, UTILITIES
  ),
  "expected_utility": lambda p: losses.expected_utility(p, UTILITIES),
  "cvar_utility": lambda p: losses.cvar_utility(p, UTILITIES, alpha=0.5),
  "targeted_label_smoothing": lambda p: losses.targeted_label_smoothing(
    p, epsilon=0.1
  ),
  "uniform_label_smoothing": lambda p: losses.uniform_label_smoothing(
    p, epsilon=0.1
  ),
}
GOOD, BAD = np.array([0.25, 0.75]), np.array([-0.25, 1.25])
GIVEN = [
  *((name, call, GOOD, BAD) for name, call in CALLS.items()),
  *(
    (
      name,
      call,
      np.full((2, 6), 1 / 6),
      np.array([[1.5, -0.5, 0, 0, 0, 0]] * 2),
    )
    for name, call in OVER_LABELS.items()
  ),
]


class ProbabilitiesTest(parameterized.TestCase):
  @parameterized.named_parameters(GIVEN)
  def test_one_outside_is_named(self, call, good, bad):
    good, bad = good.astype(np.float32), bad.astype(np.float32)
    call(good)
    with self.assertRaisesRegex(ValueError, r"must be in \[0, 1\], got"):
      call(bad)

  def test_what_is_traced_is_not_looked_at(self):
    loss = jax.jit(CALLS["soft_preference_loss"])
    self.assertTrue(np.all(np.isfinite(loss(BAD.astype(np.float32)))))


if __name__ == "__main__":
  absltest.main()
