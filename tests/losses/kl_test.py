"""KL estimates, the exact sum, the controllers and the mismatch report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from absl.testing import absltest, parameterized

from jaxalign.losses import (
  adaptive_kl_update,
  fixed_kl_update,
  full_kl,
  init_kl_controller,
  kl_estimate,
  log_prob_mismatch,
)
from tests import parallel_modes, references, transforms

LOG_PROBS = np.array([[0.5, 0.2, 0.1], [0.6, 0.2, 0.1]])
REFERENCE = np.array([[0.4, 0.3, 0.0], [0.7, 0.1, 0.3]])


class KlEstimateTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(
    ("k1", [[0.1, -0.1, 0.1], [-0.1, 0.1, -0.2]]),
    ("k2", [[0.005, 0.005, 0.005], [0.005, 0.005, 0.02]]),
    (
      "k3",
      [
        [0.0048374, 0.0051710, 0.0048374],
        [0.0051709, 0.0048374, 0.0214027],
      ],
    ),
  )
  def test_published_numbers(self, estimator, expected):
    got = kl_estimate(LOG_PROBS, REFERENCE, estimator=estimator)
    np.testing.assert_allclose(got, expected, atol=1.5e-7)
    np.testing.assert_allclose(
      got, references.kl_estimate(LOG_PROBS, REFERENCE, estimator), rtol=1e-9
    )

  @parameterized.parameters(
    ("k1", [0.38486, 0.74692, 0.34952, 0.56211]),
    ("k2", [0.07406, 0.27895, 0.06108, 0.15799]),
    ("k3", [0.06541, 0.22074, 0.05455, 0.13212]),
  )
  def test_published_random_numbers_of_tunix(self, estimator, expected):
    with jax.enable_x64(False), jax.threefry_partitionable(False):
      first, second = jax.random.split(jax.random.key(0))
      log_probs = jax.random.uniform(first, (2, 2, 4))
      ref = jax.random.uniform(second, (2, 2, 4))
      got = kl_estimate(log_probs, ref, estimator=estimator)
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-5)

  def test_k1_and_k3_are_unbiased_k2_is_not(self):
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3])
    exact = np.sum(p * np.log(p / q))
    mean = lambda name: np.sum(
      p * kl_estimate(np.log(p), np.log(q), estimator=name)
    )
    np.testing.assert_allclose(mean("k1"), exact)
    np.testing.assert_allclose(mean("k3"), exact)
    self.assertGreater(abs(mean("k2") - exact), 0.01)
    np.testing.assert_allclose(full_kl(np.log(p), np.log(q)), exact)

  def test_what_is_logged_is_not_clamped(self):
    got = kl_estimate(np.zeros(1), np.full(1, 100.0))
    np.testing.assert_array_equal(got, -100.0)

  def test_k3_is_never_negative_and_held_far_out(self):
    gaps = np.array([-1e4, -30.0, -1e-9, 0.0, 1e-9, 30.0, 1e4])
    k3 = kl_estimate(gaps, np.zeros(7), estimator="k3")
    self.assertTrue(np.all(k3 >= 0))
    np.testing.assert_allclose(k3[:2], np.expm1(20.0) - 20)
    np.testing.assert_allclose(k3[-1], 1e4 - 1)

  def test_what_each_estimate_pulls_towards(self):
    # Over five tokens, so that every expectation is a sum.
    ref = np.log([0.4, 0.3, 0.2, 0.07, 0.03])
    reward, beta = np.array([1.0, 0.0, 0.5, 2.0, -1.0]), 0.7
    best = scipy.special.log_softmax(ref + reward / beta)
    logits = np.array([0.3, -0.2, 0.1, 0.6, 0.0])

    def as_reward(logits, estimator):
      log_probs = jax.nn.log_softmax(logits)
      penalty = kl_estimate(log_probs, ref, estimator=estimator)
      score = jax.lax.stop_gradient(
        jnp.exp(log_probs) * (reward - beta * penalty)
      )
      return jnp.sum(score * log_probs)

    def as_loss(logits, estimator):
      log_probs = jax.nn.log_softmax(logits)
      drawn = jax.lax.stop_gradient(jnp.exp(log_probs))
      return jnp.sum(drawn * kl_estimate(log_probs, ref, estimator=estimator))

    pull = lambda name: np.abs(jax.grad(as_reward)(best, name)).max()
    self.assertLess(pull("k1"), 1e-12)
    self.assertGreater(min(pull("k2"), pull("k3")), 0.01)
    for estimator, distance in (
      ("k2", lambda log_probs: full_kl(log_probs, ref)),
      ("k3", lambda log_probs: full_kl(ref, log_probs)),
    ):
      expected = jax.grad(lambda x, of=distance: of(jax.nn.log_softmax(x)))
      np.testing.assert_allclose(
        jax.grad(as_loss)(logits, estimator), expected(logits), atol=1e-12
      )
    np.testing.assert_allclose(jax.grad(as_loss)(logits, "k1"), 0.0, atol=1e-12)

  @parameterized.parameters("k1", "k2", "k3")
  def test_derivatives_and_transforms(self, estimator):
    fn = functools.partial(kl_estimate, estimator=estimator)
    transforms.assert_second_order(fn, LOG_PROBS, REFERENCE)
    transforms.assert_jit_and_vmap(fn, LOG_PROBS, REFERENCE)
    far = np.array([1e4, -1e4, 0.0])
    transforms.assert_finite(fn, far, -far)
    half = jnp.ones(3, jnp.bfloat16)
    self.assertEqual(fn(half, half).dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "estimator must be one of k1, k2"):
      kl_estimate(LOG_PROBS, REFERENCE, estimator="k4")
    with self.assertRaisesRegex(ValueError, r"log_probs \(2, 3\), ref"):
      kl_estimate(LOG_PROBS, REFERENCE[:1])
    with self.assertRaisesRegex(TypeError, "ref_log_probs must be floating"):
      kl_estimate(LOG_PROBS, REFERENCE.astype(int))


class FullKlTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(
    ([0.98, 0.01, 0.01], [0.01, 0.98, 0.01], 4.4474),
    ([0.49, 0.02, 0.49], [0.01, 0.98, 0.01], 3.7361),
    ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], 0.0),
  )
  def test_published_numbers(self, p, q, expected):
    got = full_kl(np.log(p), np.log(q))
    self.assertAlmostEqual(float(got), expected, delta=6e-5)
    np.testing.assert_allclose(
      got, np.sum(scipy.special.rel_entr(p, q)), atol=1e-15
    )

  def test_impossible_tokens(self):
    p = jnp.log(jnp.array([0.5, 0.5, 0.0]))
    q = jnp.log(jnp.array([0.25, 0.75, 0.0]))
    self.assertTrue(np.isfinite(full_kl(p, q)))
    self.assertEqual(full_kl(q, p.at[0].set(-jnp.inf)), jnp.inf)

  def test_derivatives_and_transforms(self):
    logits = np.random.default_rng(0).normal(size=(2, 3, 4))
    fn = lambda a, b: full_kl(jax.nn.log_softmax(a), jax.nn.log_softmax(b))
    transforms.assert_second_order(fn, *logits)
    transforms.assert_jit_and_vmap(fn, *logits)
    transforms.assert_finite(fn, np.array([1e4, 0.0, -1e4]), np.zeros(3))

  def test_dtypes_and_errors(self):
    half = jnp.zeros(1, jnp.bfloat16)
    self.assertEqual(full_kl(half, half).dtype, jnp.float32)
    with self.assertRaisesRegex(ValueError, r"log_probs \(1,\), ref"):
      full_kl(half, jnp.zeros(2))
    with self.assertRaisesRegex(TypeError, "log_probs must be floating"):
      full_kl(np.zeros(1, int), half)


class ControllerTest(parameterized.TestCase):
  def test_published_rule(self):
    state, seen = init_kl_controller(0.15), []
    update = jax.jit(
      functools.partial(
        adaptive_kl_update, target=6.0, horizon=10_000, num_samples=512
      )
    )
    for observed in (3.0, 6.0, 6.6, 30.0):
      state = update(state, jnp.float32(observed))
      seen.append(float(state.kl_coef))
    np.testing.assert_allclose(
      seen, [0.148464, 0.148464, 0.1492241, 0.1507522], rtol=1e-6
    )

  def test_fixed_stays(self):
    state = init_kl_controller(0.05)
    self.assertIs(fixed_kl_update(state), state)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "kl_coef must not be negative"):
      init_kl_controller(-0.1)
    state = init_kl_controller(0.1)
    for knobs in (dict(target=0.0, horizon=1.0), dict(target=1.0, horizon=0)):
      with self.assertRaisesRegex(ValueError, "must be positive, got 0"):
        adaptive_kl_update(state, jnp.float32(1.0), num_samples=1, **knobs)
    with self.assertRaisesRegex(TypeError, "observed_kl must be floating"):
      adaptive_kl_update(
        state, jnp.int32(1), target=1.0, horizon=1.0, num_samples=1
      )


class MismatchTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.learner = -rng.random((8, 3))
    self.sampler = self.learner + rng.normal(size=(8, 3)) * 0.1
    self.where = rng.random((8, 3)) < 0.7

  def test_matches_numpy_over_counted_tokens(self):
    garbage = np.where(self.where, self.sampler, np.nan)
    got = jax.jit(log_prob_mismatch)(self.learner, garbage, where=self.where)
    gap = (self.learner - self.sampler)[self.where]
    np.testing.assert_allclose(got.mean_abs, np.abs(gap).mean())
    np.testing.assert_allclose(got.kl, np.mean(np.exp(gap) - 1 - gap))
    np.testing.assert_allclose(got.max_ratio, np.exp(np.abs(gap).max()))

  def test_equal_programs_and_no_tokens(self):
    for where in (self.where, self.where & False):
      got = log_prob_mismatch(self.learner, self.learner, where=where)
      np.testing.assert_array_equal(got, (0.0, 0.0, 1.0))

  def test_no_gradient(self):
    total = lambda x: sum(log_prob_mismatch(x, self.sampler, where=self.where))
    np.testing.assert_array_equal(jax.grad(total)(self.learner), 0.0)

  def test_same_in_all_modes(self):
    parallel_modes.assert_same_in_all_modes(
      lambda p, b, axis_name: (
        sum(
          log_prob_mismatch(
            b["learner"], b["sampler"], where=b["where"], axis_name=axis_name
          )
        )
        * p
      ),
      np.ones(()),
      dict(learner=self.learner, sampler=self.sampler, where=self.where),
    )

  def test_errors(self):
    with self.assertRaisesRegex(TypeError, "where must be bool"):
      log_prob_mismatch(self.learner, self.sampler, where=np.ones((8, 3)))
    with self.assertRaisesRegex(ValueError, r"sampler_log_probs \(2, 3\)"):
      log_prob_mismatch(self.learner, self.sampler[:2], where=self.where)


if __name__ == "__main__":
  absltest.main()
