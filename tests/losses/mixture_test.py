"""The mixture of reward models against NumPy, in log space and over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.losses import mixture_log_likelihood, user_responsibilities
from tests import parallel_modes, references, transforms

USER = np.array([0, 2, 1, 0, 2, 2, 4, 1])
WHERE = np.array([1, 1, 1, 1, 0, 1, 0, 1], bool)
WEIGHTS = np.array([0.5, 0.2, 0.3])


class MixtureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.gaps = np.random.default_rng(0).normal(size=(8, 3)) * 2
    shared = dict(user=USER, num_users=5, where=WHERE)
    self.likelihood = functools.partial(mixture_log_likelihood, **shared)
    self.shares = functools.partial(user_responsibilities, **shared)

  def test_matches_reference(self):
    arguments = (self.gaps, USER, 5, WEIGHTS, WHERE)
    np.testing.assert_allclose(
      jax.jit(self.likelihood)(self.gaps, mixture_weights=WEIGHTS),
      references.mixture_log_likelihood(*arguments),
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      jax.jit(self.shares)(self.gaps, mixture_weights=WEIGHTS),
      references.user_responsibilities(*arguments),
      rtol=1e-12,
    )

  def test_a_user_without_pairs_gets_the_weights_and_adds_nothing(self):
    for hard in (False, True):
      shares = self.shares(self.gaps, mixture_weights=WEIGHTS, hard=hard)
      np.testing.assert_array_equal(shares[3], WEIGHTS)  # nobody
      np.testing.assert_array_equal(shares[4], WEIGHTS)  # masked
    nothing = self.likelihood(
      self.gaps, mixture_weights=WEIGHTS, where=WHERE & False
    )
    np.testing.assert_allclose(nothing, 0.0, atol=1e-15)

  def test_hard_shares_are_one_hot_at_the_largest_first_on_ties(self):
    shares = self.shares(self.gaps, mixture_weights=WEIGHTS)
    hard = self.shares(self.gaps, mixture_weights=WEIGHTS, hard=True)
    np.testing.assert_array_equal(hard[:3].sum(axis=1), 1.0)
    np.testing.assert_array_equal(
      hard[:3].argmax(axis=1), shares[:3].argmax(axis=1)
    )
    tied = self.shares(
      np.ones((8, 3)), mixture_weights=np.full(3, 1 / 3), hard=True
    )
    np.testing.assert_array_equal(tied[:3], [[1, 0, 0]] * 3)

  def test_renaming_components_and_users(self):
    order, names = np.array([2, 0, 1]), np.array([3, 1, 0, 2, 4])
    kwargs = dict(num_users=5, where=WHERE)
    np.testing.assert_allclose(
      mixture_log_likelihood(
        self.gaps[:, order],
        user=names[USER],
        mixture_weights=WEIGHTS[order],
        **kwargs,
      ),
      self.likelihood(self.gaps, mixture_weights=WEIGHTS),
      rtol=1e-12,
    )
    renamed = user_responsibilities(
      self.gaps[:, order],
      user=names[USER],
      mixture_weights=WEIGHTS[order],
      **kwargs,
    )
    np.testing.assert_allclose(
      renamed[names],
      self.shares(self.gaps, mixture_weights=WEIGHTS)[:, order],
      rtol=1e-12,
    )

  def test_one_component_is_bradley_terry(self):
    got = self.likelihood(self.gaps[:, :1], mixture_weights=np.ones(1))
    want = -references.bradley_terry_loss(self.gaps[:, 0], 0.0)[WHERE].sum()
    np.testing.assert_allclose(got, want, rtol=1e-12)

  def test_the_gradient_is_that_of_expected_complete_data(self):
    # Fisher's identity ties the two functions together.
    shares = self.shares(self.gaps, mixture_weights=WEIGHTS)
    complete = lambda g: jnp.sum(
      jnp.where(WHERE[:, None], shares[USER] * jax.nn.log_sigmoid(g), 0.0)
    )
    got = jax.grad(lambda g: self.likelihood(g, mixture_weights=WEIGHTS))
    np.testing.assert_allclose(
      got(jnp.asarray(self.gaps)),
      jax.grad(complete)(jnp.asarray(self.gaps)),
      rtol=1e-10,
      atol=1e-15,
    )

  def test_many_pairs_and_large_gaps_do_not_underflow(self):
    gaps = np.tile([[-9.0, -9.001]], (400, 1))
    shares = user_responsibilities(
      gaps,
      user=np.zeros(400, int),
      num_users=1,
      mixture_weights=np.full(2, 0.5),
    )
    np.testing.assert_allclose(
      shares[0], references.sigmoid(np.array([0.4, -0.4])), rtol=1e-3
    )
    far = np.where(np.arange(24).reshape(8, 3) % 2 == 0, 1e4, -1e4)
    for fn in (self.likelihood, self.shares):
      transforms.assert_finite(
        lambda g, w, fn=fn: fn(g, mixture_weights=w), far, WEIGHTS
      )

  def test_a_weight_of_zero_takes_its_component_out(self):
    weights = np.array([0.6, 0.0, 0.4])
    far = np.where(np.arange(3) == 1, 1e4, self.gaps)
    shares = self.shares(far, mixture_weights=weights)
    np.testing.assert_array_equal(shares[:, 1], 0.0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    transforms.assert_finite(
      lambda g, w: self.likelihood(g, mixture_weights=w), far, weights
    )

  def test_derivatives_and_transforms(self):
    likelihood = lambda g, w: self.likelihood(g, mixture_weights=w)
    shares = lambda g, w: self.shares(g, mixture_weights=w)
    transforms.assert_second_order(likelihood, self.gaps, WEIGHTS)
    transforms.assert_second_order(shares, self.gaps, WEIGHTS)
    transforms.assert_jit_and_vmap(likelihood, self.gaps, WEIGHTS)
    transforms.assert_jit_and_vmap(shares, self.gaps, WEIGHTS)

  def test_padding_changes_nothing(self):
    garbage = np.append(self.gaps, [[np.nan, np.inf, 0.0]], axis=0)

    def loss(gaps, padding):
      kwargs = dict(
        user=np.append(USER, np.full(padding, 1)),
        num_users=5,
        mixture_weights=WEIGHTS,
        where=np.append(WHERE, np.full(padding, False)),
      )
      shares = user_responsibilities(gaps, **kwargs)
      return mixture_log_likelihood(gaps, **kwargs) + jnp.sum(shares**2)

    transforms.assert_padding_changes_nothing(loss, [self.gaps], [garbage])

  def test_same_in_all_modes(self):
    # Pairs of one user lie on several devices.
    def loss(params, batch, axis_name):
      kwargs = dict(
        user=batch["user"],
        num_users=5,
        mixture_weights=params["weights"],
        where=batch["where"],
        axis_name=axis_name,
      )
      gaps = batch["gaps"] * params["scale"][None]
      shares = user_responsibilities(gaps, **kwargs)
      return mixture_log_likelihood(gaps, **kwargs) + jnp.sum(shares**2)

    parallel_modes.assert_same_in_all_modes(
      loss,
      dict(scale=np.array([1.0, 0.5, -1.0]), weights=WEIGHTS),
      dict(gaps=self.gaps, user=USER, where=WHERE),
    )

  @settings(max_examples=20, deadline=None)
  @given(
    st.lists(st.floats(-30, 30, allow_subnormal=False), min_size=6, max_size=6)
  )
  def test_shares_are_on_the_simplex_and_likelihood_is_at_most_zero(self, gaps):
    kwargs = dict(
      user=np.array([0, 1, 0]), num_users=2, mixture_weights=np.full(2, 0.5)
    )
    gaps = np.array(gaps).reshape(3, 2)
    shares = user_responsibilities(gaps, **kwargs)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    self.assertLessEqual(float(mixture_log_likelihood(gaps, **kwargs)), 1e-12)

  def test_dtypes(self):
    half = self.shares(
      jnp.asarray(self.gaps, jnp.bfloat16),
      mixture_weights=jnp.asarray(WEIGHTS, jnp.bfloat16),
    )
    self.assertEqual(half.dtype, jnp.float32)

  @parameterized.parameters(
    (TypeError, "gaps must be floating", dict(gaps=np.ones((8, 3), int))),
    (ValueError, "gaps must have 2 axes", dict(gaps=np.ones(8))),
    (TypeError, "user must be integer", dict(user=np.ones(8))),
    (ValueError, r"user must be \(8,\) for gaps", dict(user=USER[:3])),
    (
      ValueError,
      r"one entry per column.*\(2,\)",
      dict(mixture_weights=np.ones(2) / 2),
    ),
    (ValueError, "num_users must be at least 1, got 0", dict(num_users=0)),
    (TypeError, "where must be bool", dict(where=np.ones(8))),
    (ValueError, r"user \(8,\), where \(3,\)", dict(where=WHERE[:3])),
  )
  def test_errors(self, error, message, change):
    arguments = dict(
      gaps=self.gaps, user=USER, num_users=5, mixture_weights=WEIGHTS
    )
    arguments.update(change)
    for fn in (mixture_log_likelihood, user_responsibilities):
      with self.assertRaisesRegex(error, message):
        fn(
          arguments["gaps"],
          **{k: v for k, v in arguments.items() if k != "gaps"},
        )


if __name__ == "__main__":
  absltest.main()
