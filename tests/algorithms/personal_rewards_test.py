"""Personal rewards against float64 NumPy, and people who differ."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized
from jax.test_util import check_grads

from jaxalign.algorithms import linear_mixture, personal_rewards
from jaxalign.algorithms.linear_mixture import Comparisons
from jaxalign.algorithms.personal_rewards import Family, PersonalConfig

ITEMS, D, R, PEOPLE = 40, 5, 2, 24
KINDS = ("low_rank", "ideal_points")


def reward(kind, family, own, text):
  """Of one person for one text, as the papers write it."""
  if kind == "low_rank":
    return (family.common + family.directions.T @ own) @ text
  point = family.common + own
  away = family.directions @ text - point
  return -away @ away / 2 + point @ point / 2


def loss(kind, family, people, data, penalty, where):
  """The float64 reference, pair by pair."""
  total = np.sum(people**2) / 2
  for weight, leaf in zip(penalty, family, strict=True):
    total += weight / 2 * np.sum(np.asarray(leaf) ** 2)
  for n in np.flatnonzero(where):
    user = int(data.user[n])
    own = people[user] if 0 <= user < len(people) else np.zeros(R)
    sides = [
      reward(kind, family, own, np.asarray(data.features[int(side[n])]))
      for side in (data.chosen, data.rejected)
    ]
    total += np.logaddexp(0, sides[1] - sides[0])
  return total


def crowd(pairs=30, seed=0, spread=3.0):
  """People whose heads are a common one and a part along one direction."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(ITEMS, D))
  user = np.repeat(np.arange(PEOPLE), pairs)
  sides = np.array([rng.choice(ITEMS, 2, False) for _ in user])
  common, along = np.eye(D)[0], np.eye(D)[1]
  place = rng.normal(size=PEOPLE) * spread
  apart = features[sides[:, 0]] - features[sides[:, 1]]
  gaps = apart @ common + place[user] * (apart @ along)
  swap = rng.random(len(user)) > 1 / (1 + np.exp(-gaps))
  sides[swap] = sides[swap][:, ::-1]
  return Comparisons(jnp.asarray(features), *sides.T, user), place


class LossTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(2)
    self.data, _ = crowd(pairs=3)
    self.data = self.data._replace(user=self.data.user - 1)  # one is nobody
    self.people = rng.normal(size=(PEOPLE - 2, R))  # and one too many
    self.where = rng.random(len(self.data.user)) < 0.7
    self.penalties = Family(1.7, 0.6)
    self.family = {
      "low_rank": Family(rng.normal(size=D), rng.normal(size=(R, D))),
      "ideal_points": Family(rng.normal(size=R), rng.normal(size=(R, D))),
    }

  @parameterized.parameters(*KINDS)
  def test_equals_the_reference(self, kind):
    family = self.family[kind]
    got = personal_rewards.penalised_loss(
      family,
      self.people,
      self.data,
      self.penalties,
      kind=kind,
      where=self.where,
    )
    expected = loss(
      kind, family, self.people, self.data, self.penalties, self.where
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12)

  @parameterized.parameters(*KINDS)
  def test_gradients_to_second_order(self, kind):
    check_grads(
      lambda family, people: personal_rewards.penalised_loss(
        family, people, self.data, self.penalties, kind=kind, where=self.where
      ),
      (self.family[kind], self.people),
      order=2,
      modes=("rev",),
    )

  @parameterized.parameters(*KINDS)
  def test_pairs_that_do_not_count_change_nothing(self, kind):
    value = lambda data: jax.value_and_grad(
      lambda family: personal_rewards.penalised_loss(
        family, self.people, data, self.penalties, kind=kind, where=self.where
      )
    )(self.family[kind])
    turned = self.data._replace(
      chosen=np.where(self.where, self.data.chosen, 0),
      user=np.where(self.where, self.data.user, 5),
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
      value(self.data),
      value(turned),
    )


class FitTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  @parameterized.parameters(*KINDS)
  def test_finds_where_people_are(self, kind):
    data, place = crowd()
    head = linear_mixture.fit_heads(
      jnp.zeros((1, D)), data, jnp.ones((len(data.user), 1)), 1.0, 8
    )[0]
    found = personal_rewards.fit(
      data, num_users=PEOPLE, config=PersonalConfig(kind, R), ridge=1e-3,
      pull=1e-3, head=head, key=jax.random.key(0),
    )  # fmt: skip
    self.assertLessEqual(np.diff(found.objective).max(), 1e-6)
    cost = lambda both: personal_rewards.penalised_loss(
      *both, data, Family(*(2 * [1e-3 * len(data.user)])), kind=kind
    )
    slopes = jax.tree.leaves(jax.grad(cost)((found.family, found.people)))
    self.assertLess(max(float(jnp.abs(leaf).max()) for leaf in slopes), 0.05)
    heads = found.people @ found.family.directions  # [U, D]
    self.assertGreater(abs(np.corrcoef(heads[:, 1], place)[0, 1]), 0.9)
    # Everybody's place is that of somebody new with the same pairs.
    common, turned = personal_rewards.rewards(
      found.family, data.features, kind=kind
    )
    mine = data.user == 3
    chosen, rejected = data.chosen[mine], data.rejected[mine]
    placed = personal_rewards.place(
      common[chosen] - common[rejected], turned[chosen] - turned[rejected]
    )
    np.testing.assert_allclose(placed.mean, found.people[3], atol=0.02)

  def test_a_prior_holds_alike_people_together_and_others_not(self):
    for spread, pairs in ((0.0, 60), (3.0, 30)):
      data, _ = crowd(spread=spread, pairs=pairs)
      found = personal_rewards.fit(
        data, num_users=PEOPLE, config=PersonalConfig(rank=R), ridge=1e-3,
        pull=1.0, head=jnp.eye(D)[0], key=jax.random.key(0),
      )  # fmt: skip
      own = jnp.abs(found.people @ found.family.directions).max()
      if spread:
        self.assertGreater(float(own), 0.3)
      else:
        self.assertLess(float(own), 0.02)


class PlaceTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.gaps, self.apart = rng.normal(size=7), 3 * rng.normal(size=(7, R))

  def test_is_the_likeliest_place_with_its_curvature(self):
    cost = lambda a: (
      np.logaddexp(0, -self.gaps[:5] - self.apart[:5] @ a).sum() + a @ a / 2
    )
    where = np.arange(7) < 5
    got = personal_rewards.place(self.gaps, self.apart, where=where)
    best = scipy.optimize.minimize(cost, np.zeros(R), tol=1e-12)
    np.testing.assert_allclose(got.mean, best.x, atol=1e-6)
    probs = 1 / (1 + np.exp(-self.gaps[:5] - self.apart[:5] @ best.x))
    hessian = (
      np.eye(R) + (self.apart[:5].T * (probs * (1 - probs))) @ (self.apart[:5])
    )
    np.testing.assert_allclose(got.covariance @ hessian, np.eye(R), atol=1e-5)

  def test_without_pairs_it_is_the_prior(self):
    got = personal_rewards.place(self.gaps, self.apart, where=np.zeros(7, bool))
    np.testing.assert_allclose(got.mean, 0)
    np.testing.assert_allclose(got.covariance, np.eye(R))
    probs = personal_rewards.win_probability(self.gaps, self.apart, got)
    draws = np.random.default_rng(1).normal(size=(200_000, R))
    each = 1 / (1 + np.exp(-self.gaps - draws @ self.apart.T))
    np.testing.assert_allclose(probs, each.mean(axis=0), atol=0.03)

  def test_garbage_under_the_mask_changes_nothing(self):
    where = np.arange(7) < 5
    fitted = lambda fill: personal_rewards.place(
      jnp.where(where, self.gaps, fill),
      jnp.where(where[:, None], self.apart, fill),
      where=where,
    )
    jax.tree.map(np.testing.assert_array_equal, fitted(0.0), fitted(jnp.nan))

  def test_many_people_are_placed_as_each_alone(self):
    rng = np.random.default_rng(3)
    gaps, apart = rng.normal(size=30), 3 * rng.normal(size=(30, R))
    user, where = rng.integers(-1, 5, 30), rng.random(30) < 0.8
    user[user == 3] = 2  # a person without pairs
    got = personal_rewards.place_people(
      jnp.where(where, gaps, jnp.nan),
      jnp.where(where[:, None], apart, jnp.nan),
      user=user,
      num_users=4,  # so 4 is nobody
      where=where,
    )
    for u in range(4):
      mine = where & (user == u)
      alone = personal_rewards.place(gaps[mine], apart[mine])
      jax.tree.map(
        lambda x, y, u=u: np.testing.assert_allclose(x[u], y, atol=1e-9),
        got,
        alone,
      )
    np.testing.assert_allclose(got.mean[3], 0)
    np.testing.assert_allclose(got.covariance[3], np.eye(R))
    each = personal_rewards.of_pairs(got, user)
    known = (user >= 0) & (user < 4)
    np.testing.assert_allclose(each.mean[known], got.mean[user[known]])
    np.testing.assert_allclose(each.mean[~known], 0)
    np.testing.assert_allclose(
      each.covariance[~known], np.eye(R)[None].repeat((~known).sum(), 0)
    )
    prob = personal_rewards.win_probability(gaps, apart, each)
    for n in (0, 7):
      one = jax.tree.map(lambda x, n=n: x[n], each)
      (alone,) = personal_rewards.win_probability(gaps[[n]], apart[[n]], one)
      np.testing.assert_allclose(prob[n], alone)

  def test_shares_of_votes_place_people_too(self):
    prob = np.array([1.0, 0.9, 0.3, 0.5, 0.0, 0.7, 0.2])
    got = personal_rewards.place_people(
      self.gaps, self.apart, user=np.zeros(7, int), num_users=1,
      chosen_prob=prob,
    )  # fmt: skip

    def cost(a):
      gap = self.gaps + self.apart @ a
      lost = prob * np.logaddexp(0, -gap) + (1 - prob) * np.logaddexp(0, gap)
      return lost.sum() + a @ a / 2

    best = scipy.optimize.minimize(cost, np.zeros(R), tol=1e-12)
    np.testing.assert_allclose(got.mean[0], best.x, atol=1e-6)

  def test_errors_name_what_is_allowed(self):
    with self.assertRaisesRegex(ValueError, "user"):
      personal_rewards.place_people(
        self.gaps, self.apart, user=np.zeros(6, int), num_users=1
      )
    with self.assertRaisesRegex(ValueError, "kind must be one of"):
      PersonalConfig(kind="points")
    with self.assertRaisesRegex(ValueError, "rank must be"):
      PersonalConfig(rank=0)


if __name__ == "__main__":
  absltest.main()
