"""Heads on frozen features against scipy, and people found by EM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.algorithms import linear_mixture
from jaxalign.algorithms.linear_mixture import Comparisons, LinearMixtureConfig

D, ITEMS, PAIRS = 4, 30, 15


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def crowd(heads, people, seed=0):
  """People in turn of each head, PAIRS pairs each, by Bradley-Terry."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(ITEMS, heads.shape[1]))
  user = np.repeat(np.arange(people), PAIRS)
  sides = np.array([rng.choice(ITEMS, 2, False) for _ in user])
  gaps = ((features[sides[:, 0]] - features[sides[:, 1]]) @ heads.T)[
    np.arange(len(user)), user % len(heads)
  ]
  swap = rng.random(len(user)) > sigmoid(gaps)
  sides[swap] = sides[swap][:, ::-1]
  return Comparisons(jnp.asarray(features), *sides.T, user)


def loss(head, data, shares, penalty):
  """The float64 reference, pair by pair."""
  total = penalty / 2 * np.sum(head**2)
  for n, share in enumerate(shares):
    apart = data.features[data.chosen[n]] - data.features[data.rejected[n]]
    total += share * np.logaddexp(0, -np.dot(np.asarray(apart), head))
  return total


class HeadsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(3)
    self.data = crowd(rng.normal(size=(1, D)), 6)
    self.shares = rng.random(len(self.data.user))
    self.head = rng.normal(size=D)

  def test_loss_equals_the_reference(self):
    got = linear_mixture.penalised_loss(self.head, self.data, self.shares, 1.8)
    expected = loss(self.head, self.data, self.shares, 1.8)
    np.testing.assert_allclose(got, expected, rtol=1e-12)

  @parameterized.parameters(4096, 1)
  def test_heads_are_the_minimum(self, max_graph):
    self.enter_context(
      absltest.mock.patch.object(linear_mixture, "MAX_GRAPH", max_graph)
    )
    got = linear_mixture.fit_heads(
      jnp.zeros((1, D)), self.data, self.shares[:, None], 1.8, 8
    )[0]
    of = functools.partial(
      linear_mixture.penalised_loss,
      data=self.data,
      shares=self.shares,
      penalty=1.8,
    )
    expected = scipy.optimize.minimize(
      jax.jit(of), np.zeros(D), jac=jax.jit(jax.grad(of)), tol=1e-12
    )
    np.testing.assert_allclose(got, expected.x, atol=1e-6)

  def test_a_step_is_newtons_and_never_raises_the_loss(self):
    of = functools.partial(
      linear_mixture.penalised_loss,
      data=self.data,
      shares=self.shares,
      penalty=1.8,
    )
    step = functools.partial(
      linear_mixture.newton_step,
      data=self.data,
      shares=self.shares,
      penalty=1.8,
    )
    near = 0.1 * self.head
    towards = np.linalg.solve(jax.hessian(of)(near), jax.grad(of)(near))
    np.testing.assert_allclose(step(near), near - towards, rtol=1e-9)
    for scale in (1.0, 30.0, 1000.0):
      far = scale * self.head
      self.assertLessEqual(of(step(far)), of(far))
    end = jnp.full(D, 1e300)
    np.testing.assert_array_equal(np.isfinite(step(end)), True)


class BootstrapTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.data = crowd(np.random.default_rng(5).normal(size=(1, D)), 40)

  def heads(self, data, **changes):
    settings = {"num_users": 40, "ridge": 0.01, "num_samples": 200}
    return linear_mixture.bootstrap_heads(
      data, key=jax.random.key(0), **settings | changes
    )

  def test_spread_is_that_of_refits_on_drawn_people(self):
    got = self.heads(self.data)
    rng = np.random.default_rng(0)
    times = np.stack(
      [np.bincount(rng.integers(0, 40, 40), minlength=40) for _ in range(100)]
    )
    expected = linear_mixture.fit_heads(
      jnp.zeros((100, D)),
      self.data,
      1.0 * times[:, self.data.user].T,
      0.01 * len(self.data.user),
      10,
    )
    np.testing.assert_allclose(got.std(axis=0), expected.std(axis=0), rtol=0.35)
    np.testing.assert_allclose(
      got.mean(axis=0), expected.mean(axis=0), atol=0.1
    )

  def test_people_with_the_same_pairs_leave_no_spread(self):
    one = self.data.user == 0
    alike = self.data._replace(
      chosen=np.tile(self.data.chosen[one], 5),
      rejected=np.tile(self.data.rejected[one], 5),
      user=np.repeat(np.arange(5), PAIRS),
    )
    heads = self.heads(alike, num_samples=20)
    np.testing.assert_allclose(heads, np.tile(heads[:1], (20, 1)), rtol=1e-6)
    # The same pairs of nobody are drawn one by one.
    heads = self.heads(alike._replace(user=-1 + 0 * alike.user), num_samples=20)
    self.assertGreater(float(heads.std(axis=0).min()), 0.01)

  def test_batches_of_refits_change_nothing(self):
    np.testing.assert_allclose(
      self.heads(self.data, num_samples=7, batch_size=3),
      self.heads(self.data, num_samples=7, batch_size=7),
      rtol=1e-7,
    )


class FitTest(parameterized.TestCase):
  def fit(self, data, num_users, where=None, **changes):
    config = LinearMixtureConfig(**{"num_components": 2} | changes)
    return linear_mixture.fit(
      data,
      num_users=num_users,
      config=config,
      ridge=0.01,
      key=jax.random.key(0),
      where=where,
    )

  def test_two_tastes_are_found_and_new_people_placed(self):
    heads = 2 * np.eye(D, dtype=np.float32)[:2] * [[1], [-1.5]]
    data = jax.tree.map(jnp.asarray, crowd(heads, 60))
    data = data._replace(features=data.features.astype(jnp.float32))
    found = self.fit(data, 60)
    home = np.asarray(found.responsibilities).argmax(axis=1)
    right = np.mean(home == np.arange(60) % 2)
    self.assertGreaterEqual(max(right, 1 - right), 0.95)
    np.testing.assert_allclose(found.weights, 0.5, atol=0.1)
    # The objective does not fall, and two heads beat one.
    rises = np.diff(np.asarray(found.objective, np.float64))
    self.assertGreaterEqual(rises.min(), -0.01)
    one = self.fit(data, 60, num_components=1)
    self.assertGreater(found.objective[-1], one.objective[-1] + 20)
    # By all of their pairs, each person is predicted by their own head.
    probs = linear_mixture.win_probability(
      data.gaps(found.heads), found.responsibilities, data.user
    )
    own = data.gaps(jnp.asarray(heads))[
      np.arange(len(data.user)), data.user % 2
    ]
    self.assertGreater(np.mean((probs > 0.5) == (own > 0)), 0.85)

  def test_one_component_is_the_pooled_head(self):
    with jax.enable_x64(True):
      data = crowd(np.ones((1, D)), 10)
      found = self.fit(data, 10, num_components=1)
      shares = jnp.ones((len(data.user), 1))
      pooled = linear_mixture.fit_heads(
        jnp.zeros((1, D)), data, shares, 0.01 * len(shares), 40
      )
    np.testing.assert_allclose(found.heads, pooled, rtol=1e-6)
    np.testing.assert_array_equal(found.responsibilities, 1.0)

  def test_order_of_pairs_and_names_of_people_do_not_matter(self):
    with jax.enable_x64(True):
      data = crowd(np.stack([np.ones(D), -np.ones(D)]), 12)
      order = np.random.default_rng(5).permutation(len(data.user))
      shuffled = data._replace(
        chosen=data.chosen[order],
        rejected=data.rejected[order],
        user=data.user[order],
      )
      found, again = self.fit(data, 12), self.fit(shuffled, 12)
    np.testing.assert_allclose(found.heads, again.heads, rtol=1e-6)
    np.testing.assert_allclose(
      found.responsibilities, again.responsibilities, atol=1e-6
    )

  def test_pairs_of_nobody_train_heads_but_make_no_person(self):
    data = crowd(np.ones((1, D), np.float32), 10)
    data = data._replace(features=data.features.astype(jnp.float32))
    nobody = data._replace(user=np.where(data.user == 3, -1, data.user))
    found = self.fit(nobody, 10)
    np.testing.assert_allclose(
      found.responsibilities[3], found.weights, rtol=1e-5
    )
    one = [self.fit(d, 10, num_components=1).heads for d in (data, nobody)]
    np.testing.assert_allclose(*one, rtol=1e-5)

  def test_pairs_under_the_mask_are_not_there(self):
    with jax.enable_x64(True):
      data = crowd(np.stack([np.ones(D), -np.ones(D)]), 12)
      where = data.user < 8
      rest = Comparisons(data.features, *(part[where] for part in data[1:]))
      wild = data._replace(
        chosen=np.where(where, data.chosen, 0),
        rejected=np.where(where, data.rejected, 1),
      )
      masked = [self.fit(d, 12, where=where) for d in (data, wild)]
      # The same people, so that the first assignments are the same.
      expected = self.fit(rest, 12)
    for found in masked:
      np.testing.assert_allclose(found.heads, expected.heads, rtol=1e-6)
      np.testing.assert_allclose(found.objective, expected.objective)
      np.testing.assert_allclose(
        found.responsibilities[8:], np.tile(found.weights, (4, 1))
      )

  def test_errors(self):
    data = crowd(np.ones((1, D), np.float32), 3)
    with self.assertRaisesRegex(ValueError, "user .*rejected|rejected .*user"):
      self.fit(data._replace(user=data.user[1:]), 3)
    with self.assertRaisesRegex(TypeError, "user must be integer"):
      self.fit(data._replace(user=data.user.astype(np.float32)), 3)
    with self.assertRaisesRegex(ValueError, "num_users must be >= num_comp"):
      self.fit(data, 1)
    for name in ("num_components", "num_rounds", "newton_steps", "restarts"):
      with self.assertRaisesRegex(ValueError, f"{name} must be >= 1, got 0"):
        LinearMixtureConfig(**{"num_components": 2, name: 0})


if __name__ == "__main__":
  absltest.main()
