"""Group utilities, weights and welfare against NumPy, and how they relate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.losses import (
  exponentiated_weights,
  group_utilities,
  maxmin_weights,
  sample_min_rewards,
  soft_min_weights,
  welfare,
)
from tests import parallel_modes, references, transforms

UTILITIES = np.array([0.9, 0.3, 1.7, 0.6])
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])
KINDS = (
  dict(kind="egalitarian"),
  dict(kind="utilitarian"),
  dict(kind="nash"),
  dict(kind="alpha_fair", order=0.0),
  dict(kind="alpha_fair", order=0.5),
  dict(kind="alpha_fair", order=1.0),
  dict(kind="alpha_fair", order=3.0),
  dict(kind="cvar", alpha=0.25),
  dict(kind="cvar", alpha=0.4),
  dict(kind="cvar", alpha=1.0),
  dict(kind="soft_min", temperature=0.3),
)
WEIGHTED = tuple(k for k in KINDS if k["kind"] != "egalitarian")


class GroupUtilitiesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.rewards = np.random.default_rng(0).normal(size=(16, 3))

  def test_means_over_what_counts(self):
    rows = np.arange(16) % 3 != 0
    entries = np.random.default_rng(1).random((16, 3)) < 0.5
    np.testing.assert_allclose(
      group_utilities(self.rewards), self.rewards.mean(0), rtol=1e-12
    )
    np.testing.assert_allclose(
      group_utilities(self.rewards, where=rows), self.rewards[rows].mean(0)
    )
    np.testing.assert_allclose(
      group_utilities(self.rewards, where=entries),
      np.nanmean(np.where(entries, self.rewards, np.nan), axis=0),
    )
    np.testing.assert_array_equal(
      group_utilities(self.rewards, where=rows & False), 0.0
    )

  def test_minimum_of_means_is_not_mean_of_minima(self):
    worst = float(group_utilities(self.rewards).min())
    self.assertLess(float(sample_min_rewards(self.rewards).mean()), worst)
    np.testing.assert_array_equal(
      sample_min_rewards(self.rewards), self.rewards.min(axis=1)
    )

  def test_ties_share_the_gradient_of_the_sample_minimum(self):
    grad = jax.grad(lambda r: sample_min_rewards(r))(jnp.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(grad, [0.5, 0.5, 0.0])

  def test_worst_group_is_that_of_the_whole_batch_in_all_modes(self):
    # 64 rewards, a fifth from a minority: the average of eight devices' own
    # minima is another number.
    rng = np.random.default_rng(0)
    rewards = np.stack([rng.normal(0.3, 1, 64), rng.normal(0, 1, 64)], axis=1)

    def worst(params, batch, axis_name):
      utilities = group_utilities(
        batch["rewards"] * params, where=batch["where"], axis_name=axis_name
      )
      return welfare(utilities, kind="egalitarian")

    where = np.arange(64)[:, None] % 5 < np.array([5, 1])
    batch = dict(rewards=rewards, where=where)
    parallel_modes.assert_same_in_all_modes(worst, np.ones(()), batch)
    whole = worst(np.ones(()), batch, None)
    parts = [
      worst(np.ones(()), dict(rewards=r, where=w), None)
      for r, w in zip(np.split(rewards, 8), np.split(where, 8), strict=True)
    ]
    self.assertLess(np.mean(parts), float(whole) - 0.05)

  def test_padding_changes_nothing(self):
    garbage = np.append(self.rewards, [[np.nan, np.inf, 1.0]], axis=0)
    transforms.assert_padding_changes_nothing(
      lambda r, padding: jnp.sum(
        group_utilities(r, where=np.arange(16 + padding) < 16) ** 2
      ),
      [self.rewards],
      [garbage],
    )

  def test_derivatives_and_transforms(self):
    for fn in (group_utilities, sample_min_rewards):
      transforms.assert_second_order(fn, self.rewards)
      transforms.assert_jit_and_vmap(fn, self.rewards)
      half = fn(jnp.ones((2, 3), jnp.bfloat16))
      self.assertEqual(half.dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "rewards must have 2 axes"):
      group_utilities(np.ones(3))
    for fn in (group_utilities, sample_min_rewards):
      with self.assertRaisesRegex(TypeError, "floating point"):
        fn(np.ones((2, 3), int))
    with self.assertRaisesRegex(ValueError, "rewards must have a last axis"):
      sample_min_rewards(np.float32(1.0))


class WeightsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_maxmin_is_one_hot_at_the_first_smallest(self):
    np.testing.assert_array_equal(maxmin_weights(UTILITIES), [0, 1, 0, 0])
    np.testing.assert_array_equal(
      maxmin_weights(np.array([2.0, 1.0, 1.0])), [0, 1, 0]
    )
    np.testing.assert_array_equal(
      jax.grad(lambda u: maxmin_weights(u)[1])(jnp.asarray(UTILITIES)), 0.0
    )

  def test_soft_min_lies_between_maxmin_and_equal(self):
    want = np.exp(-UTILITIES / 0.5) / np.exp(-UTILITIES / 0.5).sum()
    np.testing.assert_allclose(
      soft_min_weights(UTILITIES, temperature=0.5), want, rtol=1e-12
    )
    np.testing.assert_allclose(
      soft_min_weights(UTILITIES, temperature=1e-4), maxmin_weights(UTILITIES)
    )
    np.testing.assert_allclose(
      soft_min_weights(UTILITIES, temperature=1e9), 0.25, rtol=1e-8
    )

  def test_exponentiated_step(self):
    raised = WEIGHTS * np.exp(-0.7 * UTILITIES)
    np.testing.assert_allclose(
      exponentiated_weights(WEIGHTS, UTILITIES, step_size=0.7),
      raised / raised.sum(),
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      exponentiated_weights(WEIGHTS, UTILITIES, step_size=0.0), WEIGHTS
    )
    dropped = np.array([0.5, 0.0, 0.5, 0.0])
    got = exponentiated_weights(dropped, UTILITIES * -1e4, step_size=1.0)
    np.testing.assert_allclose(got, [0, 0, 1, 0])

  def test_permutation_and_shift(self):
    order = np.array([2, 0, 3, 1])
    step = functools.partial(exponentiated_weights, step_size=0.7)
    soft = functools.partial(soft_min_weights, temperature=0.4)
    np.testing.assert_allclose(
      step(WEIGHTS[order], UTILITIES[order] + 5),
      step(WEIGHTS, UTILITIES)[order],
    )
    np.testing.assert_allclose(
      soft(UTILITIES[order] + 5), soft(UTILITIES)[order]
    )

  def test_derivatives_and_transforms(self):
    soft = functools.partial(soft_min_weights, temperature=0.4)
    step = functools.partial(exponentiated_weights, step_size=0.7)
    transforms.assert_second_order(soft, UTILITIES)
    transforms.assert_second_order(step, WEIGHTS, UTILITIES)
    transforms.assert_jit_and_vmap(soft, UTILITIES)
    transforms.assert_jit_and_vmap(step, WEIGHTS, UTILITIES)
    transforms.assert_jit_and_vmap(maxmin_weights, UTILITIES)
    transforms.assert_finite(soft, np.array([1e4, -1e4, 0.0]))
    transforms.assert_finite(
      step, np.array([0.5, 0.0, 0.5]), np.array([1e4, -1e4, 0.0])
    )

  def test_dtypes(self):
    half = jnp.ones(3, jnp.bfloat16)
    for out in (
      maxmin_weights(half),
      soft_min_weights(half, temperature=1.0),
      exponentiated_weights(half / 3, half, step_size=1.0),
    ):
      self.assertEqual(out.dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "temperature must be positive"):
      soft_min_weights(UTILITIES, temperature=0.0)
    with self.assertRaisesRegex(ValueError, "step_size.*-1"):
      exponentiated_weights(WEIGHTS, UTILITIES, step_size=-1.0)
    with self.assertRaisesRegex(
      ValueError, r"weights \(4,\), utilities \(3,\)"
    ):
      exponentiated_weights(WEIGHTS, UTILITIES[:3], step_size=1.0)
    with self.assertRaisesRegex(TypeError, "utilities must be floating"):
      maxmin_weights(np.arange(3))
    for fn in (
      maxmin_weights,
      functools.partial(soft_min_weights, temperature=1.0),
    ):
      with self.assertRaisesRegex(ValueError, "last axis of groups"):
        fn(np.float32(1.0))


class WelfareTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(*KINDS)
  def test_matches_reference(self, **knobs):
    np.testing.assert_allclose(
      welfare(UTILITIES, **knobs),
      references.welfare(UTILITIES, **knobs),
      rtol=1e-12,
    )
    if knobs["kind"] != "egalitarian":
      np.testing.assert_allclose(
        welfare(UTILITIES, weights=WEIGHTS, **knobs),
        references.welfare(UTILITIES, weights=WEIGHTS, **knobs),
        rtol=1e-12,
      )

  def test_renaming_groups_changes_nothing(self):
    order = np.array([2, 0, 3, 1])
    for knobs in KINDS:
      more = {} if knobs["kind"] == "egalitarian" else dict(weights=WEIGHTS)
      renamed = {k: v[order] for k, v in more.items()}
      np.testing.assert_allclose(
        welfare(UTILITIES[order], **knobs, **renamed),
        welfare(UTILITIES, **knobs, **more),
        rtol=1e-12,
      )

  def test_known_relations(self):
    mean, worst = UTILITIES.mean(), UTILITIES.min()
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9)
    same(welfare(UTILITIES, kind="cvar", alpha=1.0), mean)
    same(welfare(UTILITIES, kind="cvar", alpha=0.25), worst)
    # The worst quarter whole and three fifths of the next one.
    same(
      welfare(UTILITIES, kind="cvar", alpha=0.4),
      (0.25 * 0.3 + 0.15 * 0.6) / 0.4,
    )
    same(welfare(UTILITIES, kind="alpha_fair", order=0.0), mean)
    same(
      welfare(UTILITIES, kind="alpha_fair", order=1.0),
      welfare(UTILITIES, kind="nash"),
    )
    low = welfare(UTILITIES, kind="soft_min", temperature=1e-3)
    np.testing.assert_allclose(low, worst, atol=2e-3)  # worst + τ log 4
    self.assertGreater(low, worst)
    high = welfare(UTILITIES, kind="soft_min", temperature=1e6)
    np.testing.assert_allclose(high, mean, rtol=1e-5)

  def test_gradient_of_soft_min_is_its_weights(self):
    grad = jax.grad(lambda u: welfare(u, kind="soft_min", temperature=0.4))
    np.testing.assert_allclose(
      grad(jnp.asarray(UTILITIES)),
      soft_min_weights(UTILITIES, temperature=0.4),
      rtol=1e-12,
    )

  @settings(max_examples=20, deadline=None)
  @given(
    st.lists(st.floats(0.1, 10, allow_subnormal=False), min_size=4, max_size=4),
    st.floats(0.05, 1.0, allow_subnormal=False),
    st.floats(0.01, 5, allow_subnormal=False),
  )
  def test_all_lie_between_the_worst_and_the_mean(self, u, alpha, temperature):
    u = np.array(u)
    for value in (
      welfare(u, kind="cvar", alpha=alpha),
      welfare(u, kind="soft_min", temperature=temperature),
      jnp.exp(welfare(u, kind="nash")),
    ):
      self.assertBetween(float(value), u.min() - 1e-9, u.mean() + 1e-9)

  def test_derivatives_and_transforms(self):
    # One function of all kinds, so one compile. At α = 1 the tail ends where
    # the mass does, a kink in the weights.
    smooth = [k for k in WEIGHTED if k != dict(kind="cvar", alpha=1.0)]
    every = lambda u, w: [
      welfare(u, kind="egalitarian"),
      welfare(u, kind="cvar", alpha=1.0),
      *(welfare(u, weights=w, **knobs) for knobs in smooth),
    ]
    transforms.assert_second_order(every, UTILITIES, WEIGHTS)
    transforms.assert_jit_and_vmap(every, UTILITIES, WEIGHTS)

  def test_finite_at_extremes_and_one_group(self):
    free = [k for k in KINDS if k["kind"] not in ("nash", "alpha_fair")]
    every = lambda u: [welfare(u, **knobs) for knobs in free]
    total = lambda u: jnp.stack(every(u))
    transforms.assert_finite(total, np.array([1e4, -1e4, -1e4, 0.0]))
    for knobs in free:
      np.testing.assert_allclose(welfare(np.array([-2.0]), **knobs), -2.0)

  @parameterized.parameters(
    dict(kind="nash"), dict(kind="alpha_fair", order=2.0)
  )
  def test_utilities_that_are_not_positive(self, **knobs):
    for bad in (0.0, -1.0):
      with self.assertRaisesRegex(ValueError, "utilities must be positive"):
        welfare(np.array([1.0, bad]), **knobs)
      hidden = jax.jit(lambda u: welfare(u, **knobs))(jnp.array([1.0, bad]))
      self.assertTrue(np.isnan(hidden))
    with self.assertRaisesRegex(ValueError, "utilities must be positive"):
      jax.grad(lambda u: welfare(u, **knobs))(jnp.array([1.0, -1.0]))

  def test_dtypes(self):
    half = jnp.ones(3, jnp.bfloat16)
    self.assertEqual(welfare(half, kind="nash").dtype, jnp.float32)
    with self.assertRaisesRegex(TypeError, "utilities must be floating"):
      welfare(np.arange(3), kind="utilitarian")

  @parameterized.parameters(
    ("kind must be one of alpha_fair.*'rawls'", dict(kind="rawls")),
    (
      "weights is not used by kind 'egalitarian'",
      dict(kind="egalitarian", weights=WEIGHTS),
    ),
    (
      "temperature is not used by kind 'nash'",
      dict(kind="nash", temperature=1.0),
    ),
    ("order is not used by kind 'cvar'", dict(kind="cvar", order=1.0)),
    ("kind 'cvar' needs alpha", dict(kind="cvar")),
    ("kind 'soft_min' needs temperature", dict(kind="soft_min")),
    ("kind 'alpha_fair' needs order", dict(kind="alpha_fair")),
    (r"alpha must be in \(0, 1\], got 0", dict(kind="cvar", alpha=0.0)),
    ("temperature must be positive", dict(kind="soft_min", temperature=0.0)),
    ("order must not be negative", dict(kind="alpha_fair", order=-1.0)),
    (
      r"utilities \(4,\), weights \(2,\)",
      dict(kind="utilitarian", weights=WEIGHTS[:2]),
    ),
  )
  def test_errors(self, message, knobs):
    with self.assertRaisesRegex(ValueError, message):
      welfare(UTILITIES, **knobs)

  def test_utilities_are_one_vector(self):
    with self.assertRaisesRegex(ValueError, "utilities must have 1 axes"):
      welfare(np.ones((2, 3)), kind="utilitarian")


if __name__ == "__main__":
  absltest.main()
