"""The E-step against NumPy, its guard, and EM on a convex problem."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.algorithms import mixture, mixture_em, update

D, K, U = 3, 2, 6


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def config(**changes):
  base = dict(name="mixture", num_components=K, num_users=U, steps_per_round=1)
  return mixture.MixtureConfig(**base | changes)


def log_sigmoid(x):
  return -np.logaddexp(0, -x)


class EStepTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(1)
    self.user = np.array([0, 1, 1, 2, 2, 2, 4, -1, 5, 5])  # 3 says nothing
    self.gaps = rng.normal(size=(10, K))
    self.old = mixture.start(jnp.array(rng.dirichlet(np.ones(K), U)))

  def expect(self, gaps=None, old=None, *, reseed=True, **changes):
    compute = functools.partial(
      mixture_em.expectation,
      user=self.user,
      config=config(**changes),
      reseed=reseed,
    )
    return jax.jit(compute)(
      self.gaps if gaps is None else gaps,
      membership=self.old if old is None else old,
    )

  def joint(self):
    """log π_k + Σ log σ by a loop over pairs, [U, K]."""
    joint = np.log(np.tile(self.old.weights, (U, 1)))
    for gap, user in zip(self.gaps, self.user, strict=True):
      if user >= 0:
        joint[user] += log_sigmoid(gap)
    return joint

  @parameterized.parameters("soft", "hard")
  def test_responsibilities_weights_and_likelihood(self, assignment):
    got, scalars = self.expect(assignment=assignment)
    joint = self.joint()
    if assignment == "soft":
      shares = np.exp(joint) / np.exp(joint).sum(1, keepdims=True)
      likelihood = np.log(np.exp(joint).sum(1))
    else:
      shares = np.eye(K)[joint.argmax(1)]
      likelihood = joint.max(1)
    known = np.array([0, 1, 2, 4, 5])
    np.testing.assert_allclose(
      got.responsibilities[known], shares[known], rtol=1e-10
    )
    weights = shares[known].mean(0)
    np.testing.assert_allclose(got.weights, weights, rtol=1e-10)
    np.testing.assert_allclose(got.responsibilities[3], weights, rtol=1e-10)
    total = likelihood[known].sum()
    np.testing.assert_allclose(got.log_likelihood, total, rtol=1e-10)
    np.testing.assert_allclose(
      scalars["em/log_likelihood_per_pair"], total / 9, rtol=1e-10
    )
    self.assertEqual(int(scalars["em/users"]), 5)
    self.assertEqual(int(scalars["em/reseeded"]), 0)

  def test_soft_labels_are_what_the_m_step_is_taught(self):
    # A share p of votes is p pairs won and 1 − p lost, by the same person.
    probs = np.linspace(0.1, 1, len(self.gaps))
    got = jax.jit(
      functools.partial(
        mixture_em.expectation, config=config(), reseed=False, user=self.user
      )
    )(self.gaps, membership=self.old, chosen_prob=probs)
    joint = np.log(np.asarray(self.old.weights)) + np.zeros((U, K))
    for gap, user, p in zip(self.gaps, self.user, probs, strict=True):
      if user >= 0:
        joint[user] += p * log_sigmoid(gap) + (1 - p) * log_sigmoid(-gap)
    shares = np.exp(joint) / np.exp(joint).sum(1, keepdims=True)
    known = np.array([0, 1, 2, 4, 5])
    np.testing.assert_allclose(
      got[0].responsibilities[known], shares[known], rtol=1e-10
    )
    np.testing.assert_allclose(
      got[0].log_likelihood,
      np.log(np.exp(joint).sum(1))[known].sum(),
      rtol=1e-10,
    )

  def test_uniform_weights_stay(self):
    even = self.old._replace(weights=jnp.full(K, 0.5))
    got, _ = self.expect(old=even, weights="uniform")
    np.testing.assert_array_equal(got.weights, [0.5, 0.5])

  def test_users_with_few_pairs_share_the_weights(self):
    got, scalars = self.expect(min_pairs=2)
    self.assertEqual(int(scalars["em/users"]), 3)
    for user in (0, 3, 4):
      np.testing.assert_allclose(got.responsibilities[user], got.weights)
    joint = self.joint()[[1, 2, 5]]
    np.testing.assert_allclose(
      got.log_likelihood, np.log(np.exp(joint).sum(1)).sum(), rtol=1e-10
    )

  def test_oracle_keeps_its_assignment(self):
    groups = mixture.start(jnp.eye(K)[np.arange(U) % K])
    got, _ = self.expect(old=groups, assignment="oracle")
    known = np.array([0, 1, 2, 4, 5])
    np.testing.assert_array_equal(
      got.responsibilities[known], groups.responsibilities[known]
    )
    joint = np.log(0.5) + np.zeros(U)
    for gap, user in zip(self.gaps, self.user, strict=True):
      if user >= 0:
        joint[user] += log_sigmoid(gap[user % K])
    np.testing.assert_allclose(
      got.log_likelihood, joint[known].sum(), rtol=1e-10
    )

  @parameterized.product(
    assignment=("soft", "hard"), weights=("learned", "uniform")
  )
  def test_an_empty_component_gets_the_worst_explained_users(
    self, assignment, weights
  ):
    self.user = np.repeat(np.arange(12), 2)
    badly = np.isin(self.user, (3, 7, 8))
    gaps = np.stack([np.where(badly, 1.0, 5.0), np.full(24, -9.0)], axis=1)
    old = mixture.start(jnp.full((12, K), 0.5))
    given = dict(assignment=assignment, weights=weights, num_users=12)
    got, scalars = self.expect(gaps, old, **given)
    # Half of an even share: 12 / 2 / 2 users.
    np.testing.assert_array_equal(
      np.flatnonzero(np.asarray(got.responsibilities[:, 1]) > 0.5), [3, 7, 8]
    )
    self.assertEqual(int(scalars["em/reseeded"]), 1)
    self.assertEqual(int(got.reseeded), 1)
    learned = weights == "learned"
    np.testing.assert_allclose(got.weights[1], 0.25 if learned else 0.5, 1e-3)
    again, _ = self.expect(gaps, got, **given)
    self.assertEqual(int(again.reseeded), 2)
    last, scalars = self.expect(gaps, old, **given, reseed=False)
    self.assertLess(float(scalars["em/size/component_1"]), 1e-6)
    self.assertEqual(int(last.reseeded), 0)
    # Without weight it stays out, and nothing is NaN.
    after, scalars = self.expect(gaps, last, **given, reseed=False)
    for value in jax.tree.leaves((after, scalars)):
      self.assertTrue(np.isfinite(value).all())

  def test_every_empty_component_is_given_some(self):
    self.user = np.arange(24)
    gaps = np.tile([[4.0, -9.0, -9.0]], (24, 1)) + np.arange(24)[:, None] / 99
    got, scalars = self.expect(
      gaps,
      mixture.start(jnp.full((24, 3), 1 / 3)),
      num_components=3,
      num_users=24,
      assignment="hard",
    )
    self.assertEqual(int(scalars["em/reseeded"]), 2)
    np.testing.assert_allclose(got.weights, np.array([16, 4, 4]) / 24)

  def test_too_few_users_to_share_leave_it_empty(self):
    self.user = np.zeros(4, int)
    got, scalars = self.expect(
      np.tile([[3.0, -3.0]], (4, 1)),
      mixture.start(jnp.full((2, K), 0.5)),
      num_users=2,
      assignment="hard",
    )
    np.testing.assert_array_equal(got.weights, [1.0, 0.0])
    self.assertEqual(int(scalars["em/reseeded"]), 0)


def two_tastes(num_users, pairs_each, rng):
  """Differences of features and users; half of them want the opposite."""
  user = np.repeat(np.arange(num_users), pairs_each)
  group = np.arange(num_users) % 2
  difference = rng.normal(size=(len(user), D))
  taste = np.array([2.0, -1.5, 1.0])
  wins = rng.uniform(size=len(user)) < 1 / (
    1 + np.exp(-np.where(group[user] == 0, 1, -1) * (difference @ taste))
  )
  return np.where(wins[:, None], 1, -1) * difference, user, group


class ExpectationMaximisationTest(parameterized.TestCase):
  """Linear rewards on differences: every M-step can be solved to the end."""

  def rounds(self, rows, user, settings, number, seed=0):
    """Memberships after each E-step, between full M-steps."""
    rng = np.random.default_rng(seed)
    users = settings.num_users
    first = np.eye(K)[rng.permutation(users) % K]
    membership = mixture.start(jnp.array(first))
    objective = mixture.mixture(
      lambda params, tokens, mask, *, dropout_keys=None: Output(
        tokens[:, :] @ params, tokens
      ),
      settings,
      dropout=False,
    )
    batch = {
      "tokens": jnp.stack([jnp.array(rows), jnp.zeros_like(rows)], axis=1),
      "mask": jnp.ones((len(rows), 2, D), bool),
      "where": jnp.ones(len(rows), bool),
      "annotator": jnp.array(user, jnp.int32),
    }
    gradient = jax.jit(update.make_gradient(objective))

    def loss(flat, membership):
      got = gradient(jnp.array(flat).reshape(D, K), batch, membership)
      return float(got.loss), np.ravel(got.gradient)

    expect = jax.jit(
      functools.partial(
        mixture_em.expectation,
        user=jnp.array(user),
        config=settings,
        reseed=True,
      )
    )
    flat, found = rng.normal(size=D * K), []
    for _ in range(number):
      flat = scipy.optimize.minimize(
        loss, flat, (membership,), jac=True, options={"gtol": 1e-8}
      ).x
      membership, _ = expect(rows @ flat.reshape(D, K), membership=membership)
      found.append(membership)
    return found

  @parameterized.product(
    assignment=("soft", "hard"), weights=("learned", "uniform")
  )
  def test_recovers_opposite_groups_and_likelihood_does_not_fall(
    self, assignment, weights
  ):
    self.enter_context(jax.enable_x64(True))
    rows, user, group = two_tastes(80, 20, np.random.default_rng(0))
    settings = config(num_users=80, assignment=assignment, weights=weights)
    found = self.rounds(rows, user, settings, 10)
    total = np.array([float(m.log_likelihood) for m in found])
    self.assertTrue((np.diff(total) > -1e-6).all(), total)
    self.assertGreater(total[-1] - total[0], 100.0)
    cluster = np.asarray(found[-1].responsibilities).argmax(1)
    agree = np.mean(cluster == group)
    self.assertEqual(max(agree, 1 - agree), 1.0)


if __name__ == "__main__":
  absltest.main()
