"""Whose reward counts: every kind on a hand case, knobs, padding, devices."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import losses
from jaxalign.algorithms import group_weights
from tests.algorithms import bigram

U = np.array([0.5, 2.0, 1.0])


def config(**changes):
  return bigram.section("welfare", **changes)


def weights_of(u=U, carried=(0.5, 0.25, 0.25), **changes):
  return np.asarray(
    group_weights.group_weights(
      jnp.array(u, jnp.float32),
      jnp.array(carried, jnp.float32),
      config(**changes),
    )
  )


class WeightsTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(kind="maxmin"), [1, 0, 0]),
    (dict(kind="single", group=2), [0, 0, 1]),
    (dict(kind="mean"), [1 / 3, 1 / 3, 1 / 3]),
    (dict(kind="mean", shares=(0.5, 0.3, 0.2)), [0.5, 0.3, 0.2]),
    # e^(-u / 0.5): 0.36788, 0.01832, 0.13534
    (dict(kind="soft_min", temperature=0.5), [0.705385, 0.035119, 0.259496]),
    # 1 / (u + 1): 0.66667, 0.33333, 0.5
    (dict(kind="nash", floor=-1.0), [4 / 9, 2 / 9, 3 / 9]),
    # u^-2: 4, 0.25, 1
    (
      dict(kind="alpha_fair", floor=0.0, order=2.0),
      [16 / 21, 1 / 21, 4 / 21],
    ),
    # The worst half of equal masses: all of the first, half of the third.
    (dict(kind="cvar", alpha=0.5), [2 / 3, 0, 1 / 3]),
    # 0.5 e^-0.5, 0.25 e^-2, 0.25 e^-1: 0.303265, 0.033834, 0.09197
    (
      dict(kind="exponentiated", step_size=1.0),
      [0.706810, 0.078855, 0.214352],
    ),
    # times e^(-u / 0.5): 0.111565, 0.000620, 0.012447
    (
      dict(kind="exponentiated", step_size=1.0, temperature=0.5),
      [0.895170, 0.004972, 0.099872],
    ),
  )
  def test_on_a_hand_case(self, changes, expected):
    np.testing.assert_allclose(weights_of(**changes), expected, atol=2e-5)

  def test_damping_is_not_carried_on(self):
    carried = jnp.array([0.5, 0.25, 0.25])
    damped = config(kind="exponentiated", step_size=1.0, temperature=0.5)
    u = jnp.array(U, jnp.float32)
    kept = group_weights.kept_weights(
      group_weights.group_weights(u, carried, damped), u, carried, damped
    )
    np.testing.assert_allclose(
      kept, weights_of(kind="exponentiated", step_size=1.0), rtol=1e-6
    )
    other = config(kind="soft_min", temperature=0.5)
    weights = group_weights.group_weights(u, carried, other)
    np.testing.assert_array_equal(
      group_weights.kept_weights(weights, u, carried, other), weights
    )

  @parameterized.parameters(
    (dict(kind="soft_min", temperature=0.7), dict(temperature=0.7), "soft_min"),
    (dict(kind="cvar", alpha=0.6), dict(alpha=0.6), "cvar"),
    (dict(kind="nash", floor=0.0), {}, "nash"),
    (dict(kind="alpha_fair", floor=0.0, order=0.5), dict(order=0.5), None),
    (dict(kind="mean"), {}, "utilitarian"),
    (dict(kind="maxmin"), {}, "egalitarian"),
  )
  def test_is_the_direction_of_the_welfare(self, changes, knobs, kind):
    kind = changes["kind"] if kind is None else kind
    function = lambda u: losses.welfare(u, kind=kind, **knobs)
    slope = jax.grad(function)(jnp.array(U, jnp.float32))
    np.testing.assert_allclose(
      weights_of(**changes), slope / jnp.sum(slope), rtol=1e-5, atol=1e-7
    )

  @parameterized.parameters(
    dict(kind="nash", floor=0.5), dict(kind="alpha_fair", floor=1.5, order=3.0)
  )
  def test_at_the_floor_the_worst_off_has_all_weight(self, **changes):
    np.testing.assert_array_equal(weights_of(**changes), [1, 0, 0])

  def test_sample_min_takes_the_least_of_each_sample(self):
    scores = jnp.array([[1.0, 2.0], [5.0, 3.0], [0.0, 4.0], [9.0, -9.0]])
    where = jnp.array([True, True, True, False])
    found = group_weights.combine(
      scores, jnp.ones(2) / 2, config(kind="sample_min"), where=where
    )
    np.testing.assert_array_equal(found.rewards[:3], [1, 3, 0])
    np.testing.assert_allclose(found.utilities, [2, 3])
    np.testing.assert_allclose(found.weights, [2 / 3, 1 / 3], rtol=1e-6)
    # E[min] <= min E: stricter than the batch's worst-off group.
    self.assertLess(float(found.rewards[:3].mean()), 2.0)

  def test_maxmin_takes_the_batch_mean_of_what_counts(self):
    scores = jnp.array([[1.0, 2.0], [3.0, 0.5], [jnp.nan, -99.0]])
    found = group_weights.combine(
      scores,
      jnp.ones(2) / 2,
      config(),
      where=jnp.array([True, True, False]),
    )
    np.testing.assert_allclose(found.utilities, [2.0, 1.25])
    np.testing.assert_array_equal(found.weights, [0, 1])
    np.testing.assert_array_equal(found.rewards, [2.0, 0.5, 0.0])

  def test_devices_share_one_choice(self):
    rng = np.random.default_rng(0)
    scores = jnp.array(rng.normal(size=(16, 2)), jnp.float32)
    where = jnp.array(rng.uniform(size=16) < 0.7)
    of = lambda s, w: group_weights.combine(
      s, jnp.ones(2) / 2, config(), where=w, axis_name="i"
    )
    found = jax.vmap(of, axis_name="i")(
      scores.reshape(4, 4, 2), where.reshape(4, 4)
    )
    whole = group_weights.combine(
      scores, jnp.ones(2) / 2, config(), where=where
    )
    np.testing.assert_allclose(
      found.rewards.reshape(-1), whole.rewards, rtol=1e-6
    )
    np.testing.assert_allclose(found.utilities[1], whole.utilities, rtol=1e-5)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(kind="worst"), "kind must be one of"),
    (dict(kind="soft_min"), "needs temperature"),
    (dict(temperature=1.0), "temperature must be None"),
    (dict(shares=(0.5, 0.5)), "shares must be None"),
    (dict(kind="mean", shares=(0.5, 0.4)), "sum to 1"),
    (dict(kind="soft_min", temperature=0.0), "temperature must be > 0"),
    (dict(kind="exponentiated", step_size=-1.0), "step_size must be >= 0"),
    (dict(kind="cvar", alpha=1.5), r"alpha must be in \(0, 1\]"),
  )
  def test_refuses(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)

  @parameterized.parameters(
    (dict(kind="mean", shares=(0.5, 0.5)), "one entry per group, got 2 for 3"),
    (dict(kind="single", group=3), r"\[0, 3\), got 3"),
  )
  def test_refuses_other_groups(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes).check_groups(3)

  def test_starts_from_the_shares(self):
    np.testing.assert_allclose(
      group_weights.initial_weights(
        config(kind="exponentiated", step_size=1.0, shares=(0.8, 0.2)), 2
      ),
      [0.8, 0.2],
    )
    np.testing.assert_allclose(
      group_weights.initial_weights(config(), 4), [0.25] * 4
    )


if __name__ == "__main__":
  absltest.main()
