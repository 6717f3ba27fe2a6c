"""DPRM's losses and utilities, and the theorems that tie them together."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  cvar_utility,
  debiased_transport_loss,
  expected_utility,
  helpful_harmless_label_set,
  label_cross_entropy,
  label_posterior,
  mixed_transport_loss,
  optimal_transport_loss,
  targeted_label_smoothing,
  wasserstein_1d_loss,
)
from jaxalign.ops import sinkhorn
from tests import references, transforms


def case(seed=0, n=6, d=6):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, d)), rng.multinomial(5, np.ones(d) / d, n) / 5


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


COST = np.array(
  [
    [0, 0.5, 2, 2, 2.5, 4],
    [0.5, 0, 1.5, 2.5, 2, 3.5],
    [2, 1.5, 0, 4, 3.5, 2],
    [2, 2.5, 4, 0, 0.5, 2],
    [2.5, 2, 3.5, 0.5, 0, 1.5],
    [4, 3.5, 2, 2, 1.5, 0],
  ]
)
# All four share two compiled programs: values, and gradients of the sums.
LOSSES = dict(
  entropy=lambda x, t: label_cross_entropy(x, t),
  transport=lambda x, t: optimal_transport_loss(x, t, COST),
  debiased=lambda x, t: debiased_transport_loss(x, t, COST),
  line=lambda x, t: wasserstein_1d_loss(x, t, np.arange(6.0)),
)
VALUES = jax.jit(lambda x, t: {k: f(x, t) for k, f in LOSSES.items()})
GRADS = jax.jit(
  lambda x, t: {
    k: jax.grad(lambda x, f=f: jnp.sum(f(x, t)))(x) for k, f in LOSSES.items()
  }
)


class LossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.logits, self.target = case()

  def test_matches_reference(self):
    got = VALUES(self.logits, self.target)
    probs = softmax(self.logits)
    for i in range(6):
      np.testing.assert_allclose(
        got["entropy"][i], -self.target[i] @ np.log(probs[i]), rtol=1e-12
      )
      _, _, expected = references.sinkhorn(probs[i], self.target[i], COST, 0.2)
      np.testing.assert_allclose(got["transport"][i], expected, rtol=1e-9)
      line = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))
      np.testing.assert_allclose(
        got["line"][i],
        references.transport_cost(probs[i], self.target[i], line),
        atol=1e-9,
      )
      squared = wasserstein_1d_loss(
        self.logits[i], self.target[i], np.arange(6.0), power=2
      )
      np.testing.assert_allclose(
        squared,
        references.transport_cost(probs[i], self.target[i], line**2),
        atol=1e-9,
      )

  def test_transport_is_close_to_the_exact_cost(self):
    probs = softmax(self.logits)
    plan = jax.jit(
      lambda p, t: sinkhorn(p, t, COST, epsilon=0.2, num_iters=100)
    )(probs, self.target)
    exact = [
      references.transport_cost(p, t, COST)
      for p, t in zip(probs, self.target, strict=True)
    ]
    np.testing.assert_allclose(plan.transport_cost, exact, atol=0.05)

  def test_a_near_miss_costs_less_than_a_far_one_but_not_in_entropy(self):
    near = np.tile([0.9, 0.1, 0, 0, 0, 0], (6, 1))
    logits = np.log(
      np.stack([[0.1, 0.9, 0, 0, 0, 0]] * 3 + [[0.1, 0, 0, 0, 0, 0.9]] * 3)
      + 1e-3
    )
    got = VALUES(logits, near)
    self.assertGreater(got["transport"][3], 5 * got["transport"][0])
    truth = np.eye(6)[[0] * 6]
    got = VALUES(logits, truth)
    np.testing.assert_allclose(got["entropy"][3], got["entropy"][0], rtol=1e-9)
    np.testing.assert_allclose(
      got["transport"][3] / got["transport"][0], 8, rtol=0.05
    )

  def test_debiased_is_least_at_the_target_and_the_plain_one_is_not(self):
    target = softmax(self.logits)
    np.testing.assert_allclose(
      VALUES(self.logits, target)["debiased"], 0.0, atol=1e-12
    )
    slopes = GRADS(self.logits, target)
    np.testing.assert_allclose(slopes["debiased"], 0.0, atol=1e-9)
    np.testing.assert_allclose(slopes["entropy"], 0.0, atol=1e-12)
    self.assertGreater(np.max(np.abs(slopes["transport"])), 1e-3)
    others = VALUES(self.logits + self.logits**2, target)["debiased"]
    self.assertTrue(np.all(others > 0))

  def test_a_common_shift_of_the_logits_changes_nothing(self):
    before = VALUES(self.logits, self.target)
    after = VALUES(self.logits + 3.0, self.target)
    for name in LOSSES:
      np.testing.assert_allclose(after[name], before[name], atol=1e-11)

  def test_permuting_labels_and_their_cost_changes_nothing(self):
    order = np.array([3, 1, 5, 0, 2, 4])
    expected = VALUES(self.logits, self.target)
    mixed = jax.jit(
      lambda x, t: optimal_transport_loss(x, t, COST[order][:, order])
    )(self.logits[:, order], self.target[:, order])
    np.testing.assert_allclose(mixed, expected["transport"], rtol=1e-9)
    np.testing.assert_allclose(
      wasserstein_1d_loss(
        self.logits[:, order], self.target[:, order], np.arange(6.0)[order]
      ),
      expected["line"],
      rtol=1e-9,
    )

  @parameterized.parameters(*LOSSES)
  def test_second_derivatives_jit_and_vmap(self, name):
    logits, others = self.logits[:3], self.logits[3:]
    # The softmax keeps the target's mass at 1, as every loss assumes.
    fn = lambda x, y: LOSSES[name](x, jax.nn.softmax(y))
    transforms.assert_second_order(fn, logits, others, rtol=1e-5)
    transforms.assert_jit_and_vmap(fn, logits, others)

  def test_a_small_epsilon_is_exact_transport_with_its_gradient(self):
    loss = jax.jit(
      jax.value_and_grad(
        lambda x: jnp.sum(
          optimal_transport_loss(x, self.target, COST, epsilon=0.01)
        )
      )
    )
    total, grad = loss(self.logits)
    probs = softmax(self.logits)
    exact = [
      references.transport_cost(p, t, COST)
      for p, t in zip(probs, self.target, strict=True)
    ]
    # The regulariser lies between 0 and ε log d, per row.
    self.assertBetween(total - np.sum(exact), 0.0, 6 * 0.01 * np.log(6))
    towards = np.random.default_rng(3).normal(size=self.logits.shape)
    high, low = (loss(self.logits + s * towards)[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(
      np.sum(grad * towards), (high - low) / 2e-5, rtol=1e-6
    )

  def test_finite_to_second_order_at_extremes(self):
    logits = jnp.asarray([[1e4, -1e4, 0, 0, 0, 0.0]], jnp.float32)
    target = jnp.asarray([[0, 1, 0, 0, 0, 0.0]], jnp.float32)
    cost = COST.astype(np.float32)
    both = lambda x: sum(
      jnp.sum(f(x, target))
      for f in (
        label_cross_entropy,
        lambda x, t: optimal_transport_loss(x, t, cost, epsilon=0.01),
        lambda x, t: debiased_transport_loss(x, t, cost),
        lambda x, t: wasserstein_1d_loss(x, t, np.arange(6, dtype=np.float32)),
      )
    )
    for f in (both, jax.grad(both), jax.hessian(both)):
      self.assertTrue(np.all(np.isfinite(jax.jit(f)(logits))))

  def test_mixture_adds_entropy_and_revives_a_label_at_zero(self):
    logits = np.array([0.0, 0, 0, 0, 0, -40])
    target = np.eye(6)[5]
    mixed = jax.jit(
      lambda x, w: mixed_transport_loss(x, target, COST), static_argnums=1
    )
    expected = optimal_transport_loss(logits, target, COST)
    expected += 0.1 * label_cross_entropy(logits, target)
    np.testing.assert_allclose(mixed(logits, 0.1), expected, rtol=1e-12)
    slope = jax.jit(jax.grad(lambda x: optimal_transport_loss(x, target, COST)))
    self.assertLess(abs(slope(logits)[5]), 1e-12)
    slope = jax.jit(jax.grad(lambda x: mixed(x, 0.1)))
    np.testing.assert_allclose(slope(logits)[5], -0.1, atol=1e-12)

  def test_bfloat16_is_raised(self):
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (*case(), COST)]
    for loss in (
      lambda x, t, c: label_cross_entropy(x, t),
      optimal_transport_loss,
      debiased_transport_loss,
      mixed_transport_loss,
      lambda x, t, c: wasserstein_1d_loss(x, t, c[0]),
    ):
      out = jax.eval_shape(loss, *narrow)
      self.assertEqual((out.shape, out.dtype), ((6,), jnp.float32))

  def test_errors(self):
    for loss in (
      lambda x, t: label_cross_entropy(x, t),
      lambda x, t: optimal_transport_loss(x, t, COST),
      lambda x, t: debiased_transport_loss(x, t, COST),
      lambda x, t: mixed_transport_loss(x, t, COST),
      lambda x, t: wasserstein_1d_loss(x, t, np.arange(6.0)),
    ):
      with self.assertRaisesRegex(ValueError, r"logits \(6, 6\).*\(6, 5\)"):
        loss(self.logits, self.target[:, 1:])
      with self.assertRaisesRegex(TypeError, "target must be floating"):
        loss(self.logits, self.target.astype(np.int32))
    with self.assertRaisesRegex(ValueError, "epsilon must be positive"):
      optimal_transport_loss(self.logits, self.target, COST, epsilon=-1.0)
    with self.assertRaisesRegex(ValueError, "cost must be"):
      optimal_transport_loss(self.logits, self.target, COST[1:])
    with self.assertRaisesRegex(ValueError, "must not be negative, got -1"):
      mixed_transport_loss(
        self.logits, self.target, COST, cross_entropy_weight=-1.0
      )
    with self.assertRaisesRegex(ValueError, "power must be 1 or 2"):
      wasserstein_1d_loss(self.logits, self.target, np.arange(6.0), power=3)
    with self.assertRaisesRegex(ValueError, "last axis of labels"):
      label_cross_entropy(np.float64(1), np.float64(1))


class UtilityTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.probs = np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 3))
    self.utilities = np.array([1, 0.5, -1, -1, -1.5, -3])

  def test_expected_utility_and_published_means(self):
    np.testing.assert_allclose(
      expected_utility(self.probs, self.utilities),
      self.probs @ self.utilities,
      rtol=1e-12,
    )
    shares = np.array([23.51, 58.14, 10.60, 2.24, 1.60, 3.90]) / 100
    np.testing.assert_allclose(
      expected_utility(shares, self.utilities), 0.256, atol=5e-4
    )

  @parameterized.parameters(0.05, 0.3, 0.7, 1.0)
  def test_cvar_matches_the_quantile_function(self, alpha):
    got = jax.jit(lambda p: cvar_utility(p, self.utilities, alpha=alpha))(
      self.probs
    )
    for i in np.ndindex(2, 3):
      np.testing.assert_allclose(
        got[i],
        references.cvar_utility(self.probs[i], self.utilities, alpha),
        atol=1e-4,
      )

  def test_cvar_by_hand_and_its_ends(self):
    probs = np.array([0.5, 0.3, 0.2])
    utilities = np.array([1.0, -2.0, 0.0])
    cvar = lambda alpha: cvar_utility(probs, utilities, alpha=alpha)
    np.testing.assert_allclose(cvar(0.3), -2.0, rtol=1e-12)
    np.testing.assert_allclose(cvar(0.4), (0.3 * -2 + 0.1 * 0) / 0.4)
    np.testing.assert_allclose(cvar(1e-6), -2.0, rtol=1e-9)
    np.testing.assert_array_equal(cvar(1.0), expected_utility(probs, utilities))
    self.assertLess(cvar(0.5), cvar(0.6))

  def test_utilities_per_row_and_permutations(self):
    order = np.array([3, 1, 5, 0, 2, 4])
    rows = np.broadcast_to(self.utilities, (2, 3, 6))
    for fn in (
      expected_utility,
      lambda p, u: cvar_utility(p, u, alpha=0.3),
    ):
      expected = fn(self.probs, self.utilities)
      np.testing.assert_allclose(fn(self.probs, rows), expected, rtol=1e-12)
      np.testing.assert_allclose(
        fn(self.probs[..., order], self.utilities[order]), expected, rtol=1e-12
      )
      mapped = jax.vmap(jax.vmap(fn, (0, None)), (0, None))
      np.testing.assert_allclose(
        mapped(self.probs, self.utilities), expected, rtol=1e-12
      )

  def test_gradients(self):
    # No edge of the mass at 0.3: the slope is one-sided only there.
    for fn in (
      expected_utility,
      lambda p, u: cvar_utility(p, u, alpha=0.3),
    ):
      total = jax.jit(lambda p, u, fn=fn: jnp.sum(fn(p, u)))
      grads = jax.jit(jax.grad(total, (0, 1)))(self.probs, self.utilities)
      for i in range(6):
        step = 1e-6 * np.eye(6)[i]
        for k, args in enumerate(
          (
            (self.probs + step, self.utilities),
            (self.probs, self.utilities + step),
          )
        ):
          if k == 1 and i in (2, 3):
            continue  # tied utilities: the order of the step decides
          low = (
            (self.probs - step, self.utilities)
            if k == 0
            else (self.probs, self.utilities - step)
          )
          slope = (total(*args) - total(*low)) / 2e-6
          np.testing.assert_allclose(np.sum(grads[k][..., i]), slope, atol=1e-6)
      hessian = jax.jit(jax.hessian(total))(self.probs, self.utilities)
      self.assertTrue(np.all(np.isfinite(hessian)))

  def test_errors(self):
    for fn in (expected_utility, lambda p, u: cvar_utility(p, u, alpha=0.5)):
      with self.assertRaisesRegex(ValueError, r"utilities \(5,\) for probs"):
        fn(self.probs, self.utilities[1:])
      with self.assertRaisesRegex(TypeError, "utilities must be floating"):
        fn(self.probs, np.arange(6))
    for alpha in (0.0, 1.1):
      with self.assertRaisesRegex(ValueError, "alpha must be in"):
        cvar_utility(self.probs, self.utilities, alpha=alpha)


class TheoremTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    labels = helpful_harmless_label_set()
    self.utilities = np.asarray(labels.utilities, np.float64)
    self.probs = np.random.default_rng(0).dirichlet(np.ones(6), size=6)

  def test_highest_reward_is_least_transport_to_the_best_label(self):
    # One coupling only leads to a point mass, so this holds at any epsilon.
    best = np.tile(np.eye(6)[0], (6, 1))
    missing = self.utilities[0] - expected_utility(self.probs, self.utilities)
    scalar = np.abs(self.utilities[:, None] - self.utilities[None])
    solve = jax.jit(
      lambda c: optimal_transport_loss(np.log(self.probs), best, c)
    )
    for cost in (COST, scalar):
      np.testing.assert_allclose(solve(cost), missing, rtol=1e-9)
    index = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))
    self.assertGreater(np.max(np.abs(solve(index) - missing)), 0.1)

  def test_transport_bounds_the_error_of_the_reward(self):
    target = np.random.default_rng(1).dirichlet(np.ones(6), size=6)
    bound = [
      references.transport_cost(p, t, COST)
      for p, t in zip(self.probs, target, strict=True)
    ]
    error = np.abs((self.probs - target) @ self.utilities)
    self.assertTrue(np.all(error <= np.array(bound) + 1e-9))

  def test_a_crowd_of_one_mind_is_a_scalar_reward_model(self):
    votes = 20 * np.eye(6)
    prior = np.full(6, 1 / 6)
    shares = label_posterior(prior, votes, prior_strength=0.0)
    np.testing.assert_allclose(
      expected_utility(shares, self.utilities), self.utilities, rtol=1e-12
    )
    # Smoothing shifts it by epsilon times the step to the runner-up.
    smooth = targeted_label_smoothing(shares, epsilon=0.1, cost=COST)
    nearest = np.argmin(COST + 1e9 * np.eye(6), axis=1)
    np.testing.assert_allclose(
      expected_utility(smooth, self.utilities),
      0.9 * self.utilities + 0.1 * self.utilities[nearest],
      rtol=1e-9,
    )


if __name__ == "__main__":
  absltest.main()
