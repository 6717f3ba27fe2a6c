"""gae against a loop over the counted steps and the published numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

from jaxalign.ops import backward_recursion, gae, masked_whiten, next_counted
from tests import parallel_modes, references, transforms

REWARDS = np.array([[0, 0, 1, 0], [0, 0.5, 0, -1]])
VALUES = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.2]])
WHERE = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)

TRUNCATED = dict(
  rewards=np.array([[0, 0, 1, 0, -0.5], [0, 0, 0, 0, 1]]),
  values=np.array([[1, 4, -3, -2, -1, -1], [-3, -2, -1, 0, 5, -1.0]]),
  discount=np.array([[0.99] * 5, [0.9, 0.9, 0.9, 0, 0.9]]),
)


def reference(rewards, values, discount, gae_lambda, where, final_value):
  rows = [
    references.gae(r, v, d, gae_lambda, w, f)
    for r, v, d, w, f in zip(
      rewards,
      values,
      np.broadcast_to(discount, rewards.shape),
      where,
      np.broadcast_to(final_value, rewards.shape[:1]),
      strict=True,
    )
  ]
  return tuple(np.stack(x) for x in zip(*rows, strict=True))


class GaeTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.rewards, self.values = rng.normal(size=(2, 3, 7))
    self.discount = rng.random(size=(3, 7))
    self.final = rng.normal(size=3)
    self.where = rng.random(size=(3, 7)) < 0.6
    self.where[0], self.where[1] = False, True

  @parameterized.parameters(0.0, 0.7, 1.0)
  def test_matches_reference_over_gaps(self, gae_lambda):
    got = jax.jit(functools.partial(gae, gae_lambda=gae_lambda))(
      self.rewards,
      self.values,
      discount=self.discount,
      where=self.where,
      final_value=self.final,
    )
    want = reference(
      self.rewards,
      self.values,
      self.discount,
      gae_lambda,
      self.where,
      self.final,
    )
    for g, w in zip(got, want, strict=True):
      np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14)

  def test_masked_batch_of_verl_and_tunix(self):
    got = gae(REWARDS, VALUES, discount=1.0, gae_lambda=0.95, where=WHERE)
    np.testing.assert_allclose(
      got.advantages,
      [[0.82675, 0.765, 0.7, 0], [-0.8391, -0.778, -1.24, -1.2]],
      atol=1e-7,
    )
    np.testing.assert_allclose(
      got.returns,
      [[0.92675, 0.965, 1.0, 0], [-0.3391, -0.378, -0.94, -1.0]],
      atol=1e-7,
    )
    # Their whitening divides by the sample deviation of the 7 valid steps.
    np.testing.assert_allclose(
      masked_whiten(got.advantages, where=WHERE) * np.sqrt(6 / 7),
      [
        [1.1167616, 1.0528472, 0.9855688, 0],
        [-0.6074792, -0.5442376, -1.0224315, -0.9810294],
      ],
      atol=1e-6,
    )
    discounted = gae(REWARDS, VALUES, discount=0.9, gae_lambda=0.7, where=WHERE)
    np.testing.assert_allclose(
      discounted.advantages,
      [[0.40193, 0.511, 0.7, 0], [-0.2545844, -0.18188, -0.876, -1.2]],
      atol=1e-7,
    )

  @parameterized.parameters(
    (
      1.0,
      [
        [-1.45118, -4.45575, 2.53965, 0.5249, -0.49],
        [3, 2, 1, 0, -4.9],
      ],
    ),
    (
      0.7,
      [
        [-0.676979, -5.248167, 2.484608, 0.67043, -0.49],
        [2.2899, 1.73, 1, 0, -4.9],
      ],
    ),
    (
      0.4,
      [
        [0.56732, -6.04212, 2.34312, 0.81596, -0.49],
        [1.7256, 1.46, 1, 0, -4.9],
      ],
    ),
  )
  def test_truncated_batch_of_rlax(self, gae_lambda, expected):
    values = TRUNCATED["values"]
    got = gae(
      TRUNCATED["rewards"],
      values[:, :-1],
      discount=TRUNCATED["discount"],
      gae_lambda=gae_lambda,
      final_value=values[:, -1],
    )
    np.testing.assert_allclose(got.advantages, expected, atol=1e-4)

  def test_lambda_returns_of_rlax(self):
    following = np.array([[3, 1, 5, -5, 3], [-1.7, 1.2, 2.3, 2.2, 2.7]])
    # Their v is the value after each step, so the first one before is free.
    values = np.concatenate([[[7.0], [-3.0]], following[:, :-1]], axis=1)
    got = gae(
      np.array([[1, 0, -1, 0, 1], [0.5, 0.8, -0.7, 0, 2.1]]),
      values,
      discount=np.array([[0.5, 0.9, 1, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]]),
      gae_lambda=0.75,
      final_value=following[:, -1],
    )
    np.testing.assert_allclose(
      got.returns,
      [
        [1.6460547, 0.7228125, 0.7375, 0.65, 3.4],
        [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99],
      ],
      atol=1e-6,
    )

  def test_scan_equals_loop_at_the_size_of_a_rollout(self):
    with jax.threefry_partitionable(False):
      values, rewards = jax.random.uniform(jax.random.key(42), (2, 20, 40))
    got = jax.jit(functools.partial(gae, discount=1.0, gae_lambda=0.95))(
      rewards, values
    )
    want, _ = reference(
      np.asarray(rewards),
      np.asarray(values),
      1.0,
      0.95,
      np.ones((20, 40), bool),
      0.0,
    )
    np.testing.assert_allclose(got.advantages, want, atol=1e-6)

  def test_a_gap_is_as_if_it_were_cut_out(self):
    where = np.array([True, False, True, True, False, True, False])
    garbage = np.where(where, self.rewards[0], np.nan)
    got = gae(
      garbage,
      np.where(where, self.values[0], np.inf),
      discount=np.where(where, self.discount[0], np.nan),
      gae_lambda=0.9,
      where=where,
      final_value=self.final[0],
    )
    want = gae(
      self.rewards[0][where],
      self.values[0][where],
      discount=self.discount[0][where],
      gae_lambda=0.9,
      final_value=self.final[0],
    )
    np.testing.assert_allclose(got.advantages[where], want.advantages)
    np.testing.assert_allclose(got.returns[where], want.returns)
    np.testing.assert_array_equal(got.advantages[~where], 0.0)
    np.testing.assert_array_equal(got.returns[~where], 0.0)

  def test_garbage_in_a_gap_reaches_no_gradient(self):
    where = jnp.array([True, False, True])

    def total(r, v):
      out = gae(r, v, discount=0.9, gae_lambda=0.9, where=where)
      return jnp.sum(out.advantages) + jnp.sum(jnp.square(out.returns))

    grads = jax.grad(total, (0, 1))(
      jnp.array([1.0, jnp.nan, 2.0]), jnp.array([0.5, jnp.inf, 1.0])
    )
    clean = jax.grad(total, (0, 1))(
      jnp.array([1.0, 0.0, 2.0]), jnp.array([0.5, 9.0, 1.0])
    )
    for got, want in zip(grads, clean, strict=True):
      np.testing.assert_array_equal(got, want)

  def test_common_shift_of_an_undiscounted_value_changes_no_advantage(self):
    shifted = gae(
      self.rewards,
      self.values + 5,
      discount=1.0,
      gae_lambda=0.9,
      final_value=self.final + 5,
    )
    plain = gae(
      self.rewards,
      self.values,
      discount=1.0,
      gae_lambda=0.9,
      final_value=self.final,
    )
    np.testing.assert_allclose(shifted.advantages, plain.advantages)

  def test_second_derivatives(self):
    transforms.assert_second_order(
      lambda r, v, d, f: gae(
        r, v, discount=d, gae_lambda=0.9, where=self.where, final_value=f
      ),
      self.rewards,
      self.values,
      self.discount,
      self.final,
    )

  def test_jit_and_vmap(self):
    transforms.assert_jit_and_vmap(
      lambda r, v: gae(r, v, discount=0.9, gae_lambda=0.8, where=self.where),
      self.rewards,
      self.values,
    )

  def test_finite_at_large_rewards(self):
    transforms.assert_finite(
      lambda r, v: gae(r, v, discount=1.0, gae_lambda=1.0).advantages,
      np.array([1e4, -1e4, 0.0]),
      np.array([-1e4, 1e4, 1e4]),
    )

  def test_dtypes_are_raised_and_kept(self):
    half = jnp.asarray(REWARDS, jnp.bfloat16)
    out = gae(half, half, discount=1.0, gae_lambda=0.5)
    self.assertEqual(out.advantages.dtype, jnp.float32)
    self.assertEqual(
      gae(REWARDS, VALUES, discount=1.0, gae_lambda=0.5).returns.dtype,
      jnp.float64,
    )

  @parameterized.parameters(
    (TypeError, "rewards must be floating", dict(rewards=np.ones((2, 4), int))),
    (ValueError, r"rewards \(2, 3\).*values", dict(rewards=np.ones((2, 3)))),
    (TypeError, "where must be bool", dict(where=np.ones((2, 4)))),
    (ValueError, "gae_lambda.*1.5", dict(gae_lambda=1.5)),
    (ValueError, r"discount.*\(4,\)", dict(discount=np.ones(4))),
    (ValueError, r"final_value.*\(3,\)", dict(final_value=np.ones(3))),
    (ValueError, "last axis", dict(rewards=1.0, values=1.0)),
  )
  def test_errors(self, error, message, change):
    arguments = dict(
      rewards=REWARDS, values=VALUES, discount=1.0, gae_lambda=0.9
    )
    arguments.update(change)
    rewards, values = arguments.pop("rewards"), arguments.pop("values")
    with self.assertRaisesRegex(error, message):
      gae(rewards, values, **arguments)

  def test_under_shard_map_rows_are_independent(self):
    parallel_modes.need_devices(2)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")
    step = jax.shard_map(
      lambda r, v: gae(r, v, discount=1.0, gae_lambda=0.9).advantages,
      mesh=mesh,
      in_specs=spec,
      out_specs=spec,
    )
    np.testing.assert_allclose(
      step(REWARDS, VALUES),
      gae(REWARDS, VALUES, discount=1.0, gae_lambda=0.9).advantages,
    )


class RecursionTest(parameterized.TestCase):
  @settings(max_examples=25, deadline=None)
  @given(
    st.lists(
      st.tuples(st.booleans(), st.floats(-3, 3, allow_subnormal=False)),
      min_size=6,
      max_size=6,
    )
  )
  def test_next_counted_is_the_next_that_counts(self, steps):
    where = np.array([w for w, _ in steps])
    values = np.array([v for _, v in steps], np.float32)
    got = next_counted(
      values, where=jnp.asarray(where), final_value=jnp.float32(9.0)
    )
    for t in range(6):
      later = [values[s] for s in range(t + 1, 6) if where[s]]
      self.assertEqual(got[t], later[0] if later else 9.0)

  def test_backward_recursion_is_a_loop(self):
    rng = np.random.default_rng(1)
    scale, shift = rng.normal(size=(2, 3, 9))
    want, x = np.zeros((3, 9)), np.zeros(3)
    for t in range(8, -1, -1):
      x = shift[:, t] + scale[:, t] * x
      want[:, t] = x
    with jax.enable_x64(True):
      np.testing.assert_allclose(backward_recursion(scale, shift), want)

  def test_backward_recursion_needs_equal_shapes(self):
    with self.assertRaisesRegex(ValueError, r"scale \(3,\).*shift \(4,\)"):
      backward_recursion(np.ones(3), np.ones(4))
    with self.assertRaisesRegex(ValueError, r"with a step, got shape \(2, 0\)"):
      backward_recursion(np.ones((2, 0)), np.ones((2, 0)))


if __name__ == "__main__":
  absltest.main()
