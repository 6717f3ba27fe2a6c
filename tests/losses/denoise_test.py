"""Strengths, flips and targets against NumPy and the report's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.losses import (
  bradley_terry_loss,
  drawn_flip_mask,
  ensemble_probability,
  flip_margin_targets,
  flip_mask,
  flip_targets,
  margin_targets,
  preference_strength,
  shaped_margin,
  smooth_margin_targets,
  smooth_targets,
  soft_preference_loss,
  strength_slice,
)
from tests import references, transforms

MARGINS = np.array(
  [
    [1.2, 0.8, 1.0, 1.4],
    [-0.5, 0.3, -0.2, 0.0],
    [0.1, -0.1, 0.3, -0.3],
    [-2.0, -1.5, -1.0, -1.5],
  ]
).T  # four models, four pairs
STRENGTH = np.array([1.1, -0.1, 0.0, -1.5])
# Mean strengths of twenty equal groups of helpful-harmless pairs, as read off
# the report's figure 2; a quarter of the pairs are below zero.
GROUPS = np.array(
  [-1.22, -0.58, -0.33, -0.17, -0.04, 0.07, 0.18, 0.28, 0.39, 0.50]
  + [0.60, 0.73, 0.85, 1.00, 1.15, 1.35, 1.58, 1.88, 2.32, 3.43]
)


def loss_of(targets, gap):
  return soft_preference_loss(
    jnp.full(jnp.shape(targets.margin), gap),
    jnp.zeros(jnp.shape(targets.margin)),
    chosen_prob=targets.chosen_prob,
    margin=targets.margin,
  )


class PreferenceStrengthTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_published_numbers(self):
    got = preference_strength(MARGINS)
    np.testing.assert_allclose(got.mean, STRENGTH, atol=1e-12)
    np.testing.assert_allclose(
      got.std, [0.2236068, 0.2915476, 0.2236068, 0.3535534], atol=1e-7
    )

  def test_matches_reference(self):
    margins = np.random.default_rng(0).normal(size=(10, 7))
    want = references.preference_strength(margins)
    for g, w in zip(jax.jit(preference_strength)(margins), want, strict=True):
      np.testing.assert_allclose(g, w, rtol=1e-12)

  def test_order_of_models_does_not_matter_and_sign_flips_the_mean(self):
    got, swapped = (preference_strength(x) for x in (MARGINS, -MARGINS[::-1]))
    np.testing.assert_allclose(swapped.mean, -got.mean, atol=1e-15)
    np.testing.assert_allclose(swapped.std, got.std)

  def test_models_that_agree_have_no_spread_and_finite_gradients(self):
    transforms.assert_finite(
      lambda m: preference_strength(m).std, np.full((4, 2), 1e4)
    )
    np.testing.assert_array_equal(preference_strength(np.ones((1, 3))).std, 0)

  def test_derivatives_and_transforms(self):
    transforms.assert_second_order(preference_strength, MARGINS)
    transforms.assert_jit_and_vmap(preference_strength, MARGINS)
    transforms.assert_second_order(ensemble_probability, MARGINS)
    transforms.assert_jit_and_vmap(ensemble_probability, MARGINS)

  def test_vote_of_an_ensemble_is_the_mean_of_probabilities(self):
    votes = ensemble_probability(MARGINS)
    np.testing.assert_allclose(
      votes, [0.7479354, 0.4755373, 0.5, 0.1882489], atol=1e-7
    )
    np.testing.assert_allclose(
      jax.nn.sigmoid(STRENGTH),
      [0.7502601, 0.4750208, 0.5, 0.1824255],
      atol=1e-7,
    )
    transforms.assert_finite(ensemble_probability, MARGINS * 1e4)

  def test_dtypes_and_errors(self):
    half = preference_strength(jnp.ones((2, 3), jnp.bfloat16))
    self.assertEqual(half.std.dtype, jnp.float32)
    for fn in (preference_strength, ensemble_probability):
      with self.assertRaisesRegex(TypeError, "margins must be floating"):
        fn(np.ones((2, 3), int))
      with self.assertRaisesRegex(ValueError, r"margins must be \[M, N\]"):
        fn(np.ones((0, 3)))


class FlipMaskTest(parameterized.TestCase):
  def test_the_weakest_flip_ties_by_index(self):
    strength = np.array([0.0, -1.0, 0.0, 0.0, 2.0])
    np.testing.assert_array_equal(
      flip_mask(strength, fraction=0.6), [True, True, True, False, False]
    )

  @parameterized.parameters(
    (0.1, 10, 1), (0.3, 10, 3), (0.29, 100, 29), (1, 3, 3)
  )
  def test_count_survives_binary_fractions(self, fraction, size, count):
    strength = np.linspace(1, 0, size, dtype=np.float32)
    mask = jax.jit(lambda s: flip_mask(s, fraction=fraction))(strength)
    np.testing.assert_array_equal(mask, np.arange(size) >= size - count)

  @settings(max_examples=25, deadline=None)
  @given(
    st.lists(
      st.floats(-5, 5, width=32, allow_subnormal=False), min_size=8, max_size=8
    ),
    st.integers(0, 8),
  )
  def test_no_kept_pair_is_weaker_than_a_flipped_one(self, strength, count):
    strength = np.array(strength, np.float32)
    mask = np.asarray(flip_mask(strength, fraction=count / 8))
    self.assertEqual(mask.sum(), count)
    if 0 < count < 8:
      self.assertLessEqual(strength[mask].max(), strength[~mask].min())

  def test_sign_of_the_published_margins(self):
    np.testing.assert_array_equal(
      flip_mask(STRENGTH, fraction=0.5), [False, True, False, True]
    )

  def test_no_gradient(self):
    weigh = lambda s: jnp.sum(jnp.where(flip_mask(s, fraction=0.5), 2.0, 1.0))
    np.testing.assert_array_equal(jax.grad(weigh)(jnp.arange(4.0)), 0.0)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "fraction.*1.2"):
      flip_mask(STRENGTH, fraction=1.2)
    with self.assertRaisesRegex(ValueError, "strength must have 1 axes"):
      flip_mask(MARGINS, fraction=0.1)
    with self.assertRaisesRegex(TypeError, "strength must be floating"):
      flip_mask(np.arange(4), fraction=0.1)


class DrawnFlipMaskTest(parameterized.TestCase):
  def test_shares_are_the_probability_of_the_other_label(self):
    strength = np.repeat(np.array([-2.0, 0.0, 1.0, 3.0], np.float32), 20_000)
    drawn = jax.jit(drawn_flip_mask)(jax.random.key(0), strength)
    shares = np.asarray(drawn).reshape(4, -1).mean(1)
    # Five standard errors of a share of 20,000.
    np.testing.assert_allclose(
      shares, references.sigmoid(-strength[::20_000]), atol=5 * 0.5 / 141
    )

  def test_in_expectation_the_label_is_soft(self):
    gap = 0.7
    soft = soft_preference_loss(
      jnp.full(4, gap),
      jnp.zeros(4),
      chosen_prob=references.sigmoid(STRENGTH).astype(np.float32),
    )
    flips = [
      loss_of(flip_targets(STRENGTH, flipped=np.full(4, all_of_them)), gap)
      for all_of_them in (False, True)
    ]
    wrong = references.sigmoid(-STRENGTH)
    np.testing.assert_allclose(
      (1 - wrong) * flips[0] + wrong * flips[1], soft, rtol=1e-5
    )

  def test_a_key_is_a_draw_and_ends_are_certain(self):
    strength = np.zeros(64, np.float32)
    draws = [
      np.asarray(drawn_flip_mask(jax.random.key(seed), strength))
      for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    self.assertTrue((draws[0] != draws[2]).any())
    ends = np.array([-1e4, 1e4], np.float32)
    np.testing.assert_array_equal(
      drawn_flip_mask(jax.random.key(0), ends), [True, False]
    )

  def test_errors(self):
    key = jax.random.key(0)
    with self.assertRaisesRegex(ValueError, "strength must have 1 axes"):
      drawn_flip_mask(key, MARGINS)
    with self.assertRaisesRegex(TypeError, "strength must be floating"):
      drawn_flip_mask(key, np.arange(4))


class StrengthSliceTest(parameterized.TestCase):
  def test_tenths_are_a_partition_by_rank(self):
    strength = np.random.default_rng(0).normal(size=37).astype(np.float32)
    strength[5] = strength[6]
    edges = np.arange(11) / 10
    parts = np.stack(
      [
        strength_slice(strength, low=low, high=high)
        for low, high in zip(edges[:-1], edges[1:], strict=True)
      ]
    )
    np.testing.assert_array_equal(parts.sum(0), 1)
    order = np.argsort(strength, kind="stable")
    for part, low, high in zip(parts, edges[:-1], edges[1:], strict=True):
      at = slice(int(low * 37 + 1e-9), int(high * 37 + 1e-9))
      np.testing.assert_array_equal(np.flatnonzero(part), np.sort(order[at]))

  def test_all_of_it_and_jit(self):
    whole = jax.jit(lambda s: strength_slice(s, low=0.0, high=1.0))(STRENGTH)
    np.testing.assert_array_equal(whole, True)

  @parameterized.parameters((0.5, 0.5), (-0.1, 0.5), (0.2, 1.1), (0.6, 0.3))
  def test_errors(self, low, high):
    with self.assertRaisesRegex(ValueError, "low and high.*got"):
      strength_slice(STRENGTH, low=low, high=high)


class ShapedMarginTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def reference(self, strength, shape, scale, cap):
    out = []
    for mu in strength:
      grown = {
        "linear": mu,
        "asinh": np.sign(mu) * np.log(abs(mu) + np.sqrt(mu * mu + 1)),
        "tanh": (np.exp(2 * mu) - 1) / (np.exp(2 * mu) + 1),
      }[shape]
      out.append(min(max(scale * grown, -cap), cap))
    return np.array(out)

  @parameterized.product(
    shape=("linear", "asinh", "tanh"), scale=(0.0, 0.5, 2.0), cap=(0.3, None)
  )
  def test_matches_reference(self, shape, scale, cap):
    got = jax.jit(
      lambda s: shaped_margin(s, shape=shape, scale=scale, cap=cap)
    )(STRENGTH)
    want = self.reference(
      STRENGTH, shape, scale, np.inf if cap is None else cap
    )
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)

  @parameterized.parameters("linear", "asinh", "tanh")
  def test_odd_with_slope_of_its_scale_and_finite(self, shape):
    of = lambda s: shaped_margin(s, shape=shape, scale=0.7)
    np.testing.assert_allclose(of(-STRENGTH), -of(STRENGTH))
    self.assertAlmostEqual(float(jax.grad(of)(0.0)), 0.7)
    transforms.assert_second_order(of, STRENGTH)
    transforms.assert_finite(of, 1e4 * STRENGTH)
    transforms.assert_jit_and_vmap(of, STRENGTH)

  def test_the_default_is_the_report(self):
    np.testing.assert_array_equal(shaped_margin(STRENGTH), STRENGTH)

  @parameterized.parameters(
    (dict(shape="cubic"), "shape must be one of"),
    (dict(scale=-1.0), "scale must be >= 0"),
    (dict(cap=0.0), "cap must be > 0"),
  )
  def test_errors(self, given, message):
    with self.assertRaisesRegex(ValueError, message):
      shaped_margin(STRENGTH, **given)
    with self.assertRaisesRegex(TypeError, "strength must be floating"):
      shaped_margin(np.arange(4))


class TargetsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_what_each_policy_implies(self):
    flipped = flip_mask(STRENGTH, fraction=0.5)
    for targets, prob, margin in (
      (margin_targets(STRENGTH), [1, 1, 1, 1], STRENGTH),
      (flip_targets(STRENGTH, flipped=flipped), [1, 0, 1, 0], 0 * STRENGTH),
      (flip_margin_targets(STRENGTH, flipped=flipped), [1, 0, 1, 0], STRENGTH),
      (smooth_targets(STRENGTH), [1, 0.8, 1, 0.8], 0 * STRENGTH),
      (smooth_margin_targets(STRENGTH), [1, 0.8, 1, 0.8], STRENGTH),
    ):
      np.testing.assert_allclose(targets.chosen_prob, prob)
      np.testing.assert_allclose(targets.margin, margin)

  def test_a_flipped_pair_is_the_swapped_pair_with_the_margin_negated(self):
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 4))
    flipped = flip_mask(STRENGTH, fraction=0.5)
    targets = flip_margin_targets(STRENGTH, flipped=flipped)
    got = soft_preference_loss(
      chosen,
      rejected,
      chosen_prob=targets.chosen_prob,
      margin=targets.margin,
    )
    want = bradley_terry_loss(
      jnp.where(flipped, rejected, chosen),
      jnp.where(flipped, chosen, rejected),
      margin=jnp.where(flipped, -STRENGTH, STRENGTH),
    )
    np.testing.assert_allclose(got, want, rtol=1e-12)
    self.assertGreater(-STRENGTH[3], 0)  # |μ|: the ensemble's own gap

  def test_smoothing_has_the_margin_inside_both_terms(self):
    chosen, rejected = np.random.default_rng(1).normal(size=(2, 4))
    targets = smooth_margin_targets(STRENGTH, smoothing=0.2)
    gap = chosen - rejected - STRENGTH
    share = 0.2 * (STRENGTH < 0)
    want = -(1 - share) * np.log(references.sigmoid(gap)) - share * np.log(
      references.sigmoid(-gap)
    )
    got = soft_preference_loss(
      chosen,
      rejected,
      chosen_prob=targets.chosen_prob,
      margin=targets.margin,
    )
    np.testing.assert_allclose(got, want, rtol=1e-12)

  def test_first_losses_of_the_report(self):
    # At a gap of 0, over the report's mean strengths by group: plain 0.693,
    # margin about 1.21, a tenth flipped with margin about 1.30.
    flipped = flip_mask(GROUPS, fraction=0.1)
    plain = flip_targets(GROUPS, flipped=flipped & False)
    self.assertAlmostEqual(float(jnp.mean(loss_of(plain, 0.0))), 0.6931, 4)
    margin = jnp.mean(loss_of(margin_targets(GROUPS), 0.0))
    self.assertAlmostEqual(float(margin), 1.206, 3)
    both = jnp.mean(loss_of(flip_margin_targets(GROUPS, flipped=flipped), 0.0))
    self.assertAlmostEqual(float(both), 1.296, 3)

  def test_smoothing_floor_is_the_entropy_of_the_label(self):
    targets = smooth_targets(-jnp.ones(1), smoothing=0.2)
    self.assertAlmostEqual(
      float(loss_of(targets, np.log(4.0))[0]), 0.5004, places=4
    )
    np.testing.assert_allclose(
      jax.grad(lambda g: loss_of(targets, g)[0])(np.log(4.0)), 0.0, atol=1e-12
    )

  def test_labels_that_were_soft_already(self):
    votes = np.array([0.7, 0.7, 0.5, 1.0])
    flipped = flip_mask(STRENGTH, fraction=0.5)
    np.testing.assert_allclose(
      flip_targets(STRENGTH, flipped=flipped, chosen_prob=votes).chosen_prob,
      [0.7, 0.3, 0.5, 0.0],
    )
    np.testing.assert_allclose(
      smooth_targets(STRENGTH, smoothing=0.1, chosen_prob=votes).chosen_prob,
      [0.7, 0.66, 0.5, 0.9],
    )

  def test_any_pairs_can_be_smoothed(self):
    smoothed = np.array([True, False, False, True])
    for fn in (smooth_targets, smooth_margin_targets):
      np.testing.assert_allclose(
        fn(STRENGTH, smoothing=0.1, smoothed=smoothed).chosen_prob,
        [0.9, 1.0, 1.0, 0.9],
      )
      with self.assertRaisesRegex(TypeError, "smoothed must be bool"):
        fn(STRENGTH, smoothed=np.ones(4))
      with self.assertRaisesRegex(ValueError, r"smoothed \(3,\)"):
        fn(STRENGTH, smoothed=smoothed[:3])

  def test_transforms_and_dtypes(self):
    flipped = flip_mask(STRENGTH, fraction=0.5)
    for fn in (
      margin_targets,
      smooth_targets,
      smooth_margin_targets,
      lambda s: flip_targets(s, flipped=flipped),
      lambda s: flip_margin_targets(s, flipped=flipped),
    ):
      transforms.assert_jit_and_vmap(fn, STRENGTH)
      self.assertEqual(
        fn(jnp.asarray(STRENGTH, jnp.bfloat16)).chosen_prob.dtype, jnp.float32
      )
      with self.assertRaisesRegex(TypeError, "strength must be floating"):
        fn(np.arange(4))

  def test_errors(self):
    flipped = np.ones(4, bool)
    with self.assertRaisesRegex(TypeError, "flipped must be bool"):
      flip_targets(STRENGTH, flipped=np.ones(4))
    with self.assertRaisesRegex(ValueError, r"flipped \(3,\)"):
      flip_margin_targets(STRENGTH, flipped=flipped[:3])
    with self.assertRaisesRegex(ValueError, "smoothing.*0.6"):
      smooth_targets(STRENGTH, smoothing=0.6)
    with self.assertRaisesRegex(ValueError, "chosen_prob.*1.5"):
      margin_targets(STRENGTH, chosen_prob=1.5)
    with self.assertRaisesRegex(ValueError, r"chosen_prob \(2,\)"):
      smooth_margin_targets(STRENGTH, chosen_prob=np.ones(2))


if __name__ == "__main__":
  absltest.main()
