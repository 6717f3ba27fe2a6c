"""Votes to targets: posterior, smoothing, label sets."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  HELPFUL_HARMLESS_LABELS,
  add_votes,
  additive_label_set,
  helpful_harmless_label_set,
  label_posterior,
  targeted_label_smoothing,
  uniform_label_smoothing,
)
from tests import references, transforms


class LabelSetTest(parameterized.TestCase):
  def test_published_utilities_and_the_metric_they_imply(self):
    labels = helpful_harmless_label_set()
    np.testing.assert_allclose(labels.utilities, [1, 0.5, -1, -1, -1.5, -3])
    np.testing.assert_allclose(
      labels.cost,
      [
        [0, 0.5, 2, 2, 2.5, 4],
        [0.5, 0, 1.5, 2.5, 2, 3.5],
        [2, 1.5, 0, 4, 3.5, 2],
        [2, 2.5, 4, 0, 0.5, 2],
        [2.5, 2, 3.5, 0.5, 0, 1.5],
        [4, 3.5, 2, 2, 1.5, 0],
      ],
    )
    self.assertLen(HELPFUL_HARMLESS_LABELS, 6)

  def test_any_label_set_is_a_metric_that_bounds_utilities(self):
    labels = additive_label_set((0, 1, 3), (0, 0.5), (0, 2, 7), best=2.0)
    cost, utilities = np.asarray(labels.cost), np.asarray(labels.utilities)
    self.assertEqual(cost.shape, (18, 18))
    np.testing.assert_allclose(cost, cost.T)
    self.assertTrue(np.all((cost > 0) | np.eye(18, dtype=bool)))
    through = cost[:, :, None] + cost[None, :, :]
    self.assertTrue(np.all(cost[:, None, :] <= through + 1e-6))
    gaps = np.abs(utilities[:, None] - utilities[None])
    self.assertTrue(np.all(gaps <= cost + 1e-6))
    np.testing.assert_allclose(cost[0], 2.0 - utilities, atol=1e-6)

  def test_errors(self):
    for penalties in ((), ((0.0,), ())):
      with self.assertRaisesRegex(ValueError, "needs levels"):
        additive_label_set(*penalties)


class LabelPosteriorTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.prior = rng.dirichlet(np.ones(4))
    self.votes = rng.integers(0, 9, size=(3, 4)).astype(float)

  def test_is_the_dirichlet_mean_and_its_beta_means(self):
    got = label_posterior(self.prior, self.votes, prior_strength=5.0)
    alpha = 5 * self.prior[None] + self.votes
    np.testing.assert_allclose(
      got, alpha / alpha.sum(-1, keepdims=True), rtol=1e-12
    )
    beta = 5 * (1 - self.prior[None]) + self.votes.sum(-1, keepdims=True)
    beta = beta - self.votes
    np.testing.assert_allclose(got, alpha / (alpha + beta), rtol=1e-12)

  def test_limits_of_the_prior_strength(self):
    shares = self.votes / self.votes.sum(-1, keepdims=True)
    fn = lambda k, v=self.votes: label_posterior(
      self.prior, v, prior_strength=k
    )
    np.testing.assert_allclose(fn(0.0), shares, rtol=1e-12)
    np.testing.assert_allclose(
      fn(1e12), np.broadcast_to(self.prior, (3, 4)), rtol=1e-7
    )
    nothing = np.zeros((3, 4))
    np.testing.assert_array_equal(
      fn(0.0, nothing), np.broadcast_to(self.prior, (3, 4))
    )
    grad = jax.grad(lambda v: jnp.sum(fn(0.0, v) ** 2))(nothing)
    np.testing.assert_array_equal(grad, 0.0)

  def test_adding_votes_is_one_update_or_many(self):
    start = 5 * np.broadcast_to(self.prior, (3, 4))
    kept = add_votes(add_votes(start, self.votes), 2 * self.votes)
    np.testing.assert_allclose(
      label_posterior(self.prior, kept, prior_strength=0.0),
      label_posterior(self.prior, 3 * self.votes, prior_strength=5.0),
      rtol=1e-12,
    )

  def test_decay_forgets_geometrically(self):
    state = np.zeros(4)
    for i in range(3):
      state = add_votes(state, np.eye(4)[i], decay=0.5)
    np.testing.assert_allclose(state, [0.25, 0.5, 1.0, 0.0])

  def test_derivatives_transforms_and_narrow_inputs(self):
    prior = np.broadcast_to(self.prior, (3, 4))
    posterior = lambda p, v: label_posterior(p, v, prior_strength=5.0)
    decayed = lambda p, v: add_votes(p, v, decay=0.5) ** 2
    for fn in (posterior, decayed):
      transforms.assert_second_order(fn, prior, self.votes)
      transforms.assert_jit_and_vmap(fn, prior, self.votes)
      transforms.assert_finite(fn, prior, 1e4 * self.votes)
    narrow = jnp.asarray(self.votes, jnp.bfloat16)
    for out in (posterior(narrow[0], narrow), add_votes(narrow, narrow)):
      self.assertEqual(out.dtype, jnp.float32)

  def test_permuting_labels_permutes_shares(self):
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
      label_posterior(
        self.prior[order], self.votes[:, order], prior_strength=2.0
      ),
      label_posterior(self.prior, self.votes, prior_strength=2.0)[:, order],
      rtol=1e-12,
    )

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "pseudo_counts must be floating"):
      add_votes(np.ones(4, np.int32), self.votes[0])
    with self.assertRaisesRegex(ValueError, "prior_strength must be >= 0"):
      label_posterior(self.prior, self.votes, prior_strength=-1.0)
    with self.assertRaisesRegex(ValueError, r"prior must be \(4,\) or"):
      label_posterior(self.prior[:3], self.votes, prior_strength=1.0)
    with self.assertRaisesRegex(TypeError, "votes must be floating"):
      label_posterior(
        self.prior, self.votes.astype(np.int32), prior_strength=1.0
      )
    with self.assertRaisesRegex(ValueError, "last axis of labels"):
      label_posterior(self.prior, np.float64(1), prior_strength=1.0)
    with self.assertRaisesRegex(ValueError, r"decay must be in \[0, 1\]"):
      add_votes(self.votes, self.votes, decay=1.1)
    with self.assertRaisesRegex(ValueError, r"votes \(4,\)"):
      add_votes(self.votes, self.votes[0])


class UniformLabelSmoothingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.probs = np.random.default_rng(0).dirichlet(np.ones(4), size=3)

  def test_label_by_label(self):
    got = jax.jit(lambda p: uniform_label_smoothing(p, epsilon=0.2))(self.probs)
    for row, out in zip(self.probs, got, strict=True):
      for share, smoothed in zip(row, out, strict=True):
        self.assertAlmostEqual(float(smoothed), 0.8 * share + 0.05, places=14)
    np.testing.assert_allclose(got.sum(-1), 1.0)
    np.testing.assert_array_equal(
      uniform_label_smoothing(self.probs, epsilon=0.0), self.probs
    )

  def test_order_of_labels_derivatives_and_transforms(self):
    fn = lambda p: uniform_label_smoothing(p, epsilon=0.2)
    np.testing.assert_allclose(fn(self.probs[:, ::-1]), fn(self.probs)[:, ::-1])
    transforms.assert_second_order(fn, self.probs)
    transforms.assert_jit_and_vmap(fn, self.probs)
    transforms.assert_finite(fn, np.eye(4))

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "probs must be floating"):
      uniform_label_smoothing(np.eye(3, dtype=np.int32), epsilon=0.1)
    with self.assertRaisesRegex(ValueError, "epsilon must be in.*0.6"):
      uniform_label_smoothing(self.probs, epsilon=0.6)
    with self.assertRaisesRegex(ValueError, "d >= 2"):
      uniform_label_smoothing(self.probs[:, :1], epsilon=0.1)


class TargetedLabelSmoothingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_matches_reference_with_ties_of_every_kind(self):
    rng = np.random.default_rng(0)
    probs = rng.multinomial(12, [0.9, 0.04, 0.03, 0.03], size=40) / 12
    probs = rng.permuted(probs, axis=1)
    probs[:4] = np.eye(4)
    prior = np.array([0.3, 0.2, 0.3, 0.2])
    cost = rng.integers(1, 4, size=(4, 4)).astype(float)
    for p in (None, prior):
      for c in (None, cost):
        got = targeted_label_smoothing(probs, epsilon=0.1, prior=p, cost=c)
        expected = [
          references.targeted_label_smoothing(x, 0.1, p, c) for x in probs
        ]
        np.testing.assert_allclose(got, expected, atol=1e-15)

  def test_one_hot_by_hand(self):
    certain = np.eye(6)[4]
    fn = lambda **k: np.asarray(
      targeted_label_smoothing(certain, epsilon=0.1, **k)
    )
    np.testing.assert_allclose(fn(), [0.1, 0, 0, 0, 0.9, 0], atol=1e-15)
    cost = np.asarray(helpful_harmless_label_set().cost, np.float64)
    np.testing.assert_allclose(fn(cost=cost), [0, 0, 0, 0.1, 0.9, 0], atol=1e-9)
    prior = np.array([0.1, 0.1, 0.5, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(
      fn(cost=cost, prior=prior), [0, 0, 0.1, 0, 0.9, 0], atol=1e-9
    )

  def test_less_certain_rows_are_untouched_bit_for_bit(self):
    probs = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]])
    np.testing.assert_array_equal(
      targeted_label_smoothing(probs, epsilon=0.1), probs
    )
    certain = np.eye(3)
    np.testing.assert_array_equal(
      targeted_label_smoothing(certain, epsilon=0.0), certain
    )

  def test_sum_is_kept_and_jit_and_vmap_agree(self):
    probs = np.random.default_rng(1).dirichlet(np.full(5, 0.1), size=20)
    fn = lambda p: targeted_label_smoothing(p, epsilon=0.2)
    got = fn(probs)
    np.testing.assert_allclose(np.sum(got, -1), 1.0, rtol=1e-12)
    self.assertLessEqual(np.max(got), 0.8 + 1e-12)
    np.testing.assert_array_equal(jax.jit(jax.vmap(fn))(probs), got)

  def test_gradient_is_that_of_moved_mass(self):
    jacobian = jax.jacfwd(lambda p: targeted_label_smoothing(p, epsilon=0.1))(
      np.array([0.97, 0.02, 0.01])
    )
    np.testing.assert_array_equal(jacobian, [[0, 0, 0], [1, 1, 0], [0, 0, 1]])

  def test_second_derivatives_and_narrow_inputs(self):
    probs = np.array([[0.97, 0.02, 0.01], [0.5, 0.3, 0.2]])
    fn = lambda p: targeted_label_smoothing(p, epsilon=0.1)
    transforms.assert_second_order(lambda p: fn(p) ** 2, probs)
    narrow = fn(jnp.asarray(np.eye(3), jnp.bfloat16))
    self.assertEqual(narrow.dtype, jnp.float32)
    np.testing.assert_allclose(narrow[0], [0.9, 0.1, 0], atol=1e-6)

  def test_errors(self):
    probs = np.eye(3)
    with self.assertRaisesRegex(TypeError, "probs must be floating"):
      targeted_label_smoothing(np.eye(3, dtype=np.int32), epsilon=0.1)
    with self.assertRaisesRegex(TypeError, "prior must be floating"):
      targeted_label_smoothing(probs, epsilon=0.1, prior=np.ones(3, np.int32))
    with self.assertRaisesRegex(TypeError, "cost must be floating"):
      targeted_label_smoothing(
        probs, epsilon=0.1, cost=np.eye(3, dtype=np.int32)
      )
    for epsilon in (-0.1, 0.6):
      with self.assertRaisesRegex(ValueError, r"epsilon must be in \[0, 0.5\]"):
        targeted_label_smoothing(probs, epsilon=epsilon)
    with self.assertRaisesRegex(ValueError, "d >= 2"):
      targeted_label_smoothing(probs[:, :1], epsilon=0.1)
    with self.assertRaisesRegex(ValueError, r"cost must be \(3, 3\)"):
      targeted_label_smoothing(probs, epsilon=0.1, cost=np.eye(2))
    with self.assertRaisesRegex(ValueError, "prior must be"):
      targeted_label_smoothing(probs, epsilon=0.1, prior=np.ones(2))


if __name__ == "__main__":
  absltest.main()
