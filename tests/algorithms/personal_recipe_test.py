"""Personal rewards of a network: rounds that find tastes, and find none."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from jaxalign.algorithms import (
  bradley_terry,
  personal_recipe,
  personal_rewards,
  reward_readout,
  train_state,
  update,
)
from jaxalign.algorithms.personal_recipe import PersonalRecipeConfig

ITEMS, D, PEOPLE, PAIRS = 120, 6, 40, 24
SHOTS = 10


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def crowd(apart, *, people=PEOPLE, pairs=PAIRS, seed=0):
  """Texts as features, and pairs of people of two tastes.

  All want the first feature; half want the second one too, the others its
  opposite, `apart` strong.
  """
  rng = np.random.default_rng(seed)
  texts = np.random.default_rng(100).normal(size=(ITEMS, D))
  user = np.repeat(np.arange(people), pairs)
  sides = np.array([rng.choice(ITEMS, 2, False) for _ in user])
  tastes = np.zeros((people, D))
  tastes[:, 0] = 1.5
  tastes[:, 1] = np.where(np.arange(people) % 2, apart, -apart)
  gap = ((texts[sides[:, 0]] - texts[sides[:, 1]]) * tastes[user]).sum(1)
  swap = rng.random(len(user)) > 1 / (1 + np.exp(-gap))
  sides[swap] = sides[swap][:, ::-1]
  return texts, sides, user


def outputs_of(params, texts, sides):
  """What the linear network puts out of both responses, [N, 2, 1 + R]."""
  return np.asarray(jnp.asarray(texts[sides], jnp.float32) @ params["head"])


def trained(config, apart, *, steps=240, seed=0):
  """The parameters and places after rounds on a crowd."""
  texts, sides, user = crowd(apart, seed=seed)
  table = jnp.asarray(texts, jnp.float32)

  def apply(params, tokens, mask, *, dropout_keys=None):
    features = table[tokens[:, 0]]
    return Output(features @ params["head"], features)

  objective = personal_recipe.personal(apply, config, dropout=False)
  chain = optax.adam(0.02)
  step = jax.jit(update.make_update(objective, chain))
  key = jax.random.key(seed)
  params = {"head": 0.4 * jax.random.normal(key, (D, 1 + config.rank))}
  places = personal_recipe.start(
    jnp.asarray(
      np.random.default_rng(seed).standard_normal(
        (PEOPLE, config.rank), np.float32
      )
    )
  )
  state = train_state.init_state(params, chain, places)
  number = len(user)
  batch = {
    "tokens": jnp.asarray(sides[..., None], jnp.int32),
    "mask": jnp.ones((number, 2, 1), bool),
    "where": jnp.ones(number, bool),
    "annotator": jnp.asarray(user, jnp.int32),
    "chosen_prob": jnp.ones(number),
    "margin": jnp.zeros(number),
    "row": jnp.arange(number, dtype=jnp.int32),
  }
  expect = jax.jit(
    functools.partial(personal_recipe.expectation, num_users=PEOPLE)
  )
  evidence = []
  for at in range(1, steps + 1):
    state, metrics = step(state, batch, jax.random.key(1))
    if at % config.steps_per_round == 0:
      out = outputs_of(state.params, texts, sides)
      gaps, apart_ = gaps_of(out, config.kind)
      places, scalars = expect(gaps, apart_, user=user)
      state = state._replace(carry=places)
      evidence.append(float(scalars["people/log_evidence_per_pair"]))
  return state, metrics, evidence, scalars


def gaps_of(outputs, kind):
  shared = np.asarray(reward_readout.shared_reward(jnp.asarray(outputs), kind))
  return shared[:, 0] - shared[:, 1], outputs[:, 0, 1:] - outputs[:, 1, 1:]


def on_new_people(params, config, apart):
  """Whether 80 new people's later pairs are predicted, [80, 2]: 0 and 10."""
  texts, sides, user = crowd(apart, people=80, pairs=60, seed=7)
  gaps, apart_ = gaps_of(outputs_of(params, texts, sides), config.kind)
  place = np.tile(np.arange(60), 80)
  found = []
  for shots in (0, SHOTS):
    placed = personal_rewards.place_people(
      gaps, apart_, user=user, num_users=80, where=place < shots
    )
    prob = personal_rewards.win_probability(
      gaps, apart_, personal_rewards.of_pairs(placed, user)
    )
    right = (np.asarray(prob) > 0.5)[place >= SHOTS].reshape(80, -1)
    found.append(right.mean(axis=1))
  return np.stack(found, axis=1)


class RoundsTest(parameterized.TestCase):
  @parameterized.parameters(*reward_readout.PERSONAL)
  def test_ten_pairs_beat_the_shared_reward_where_tastes_differ(self, kind):
    config = PersonalRecipeConfig(
      "personal", kind, rank=2, steps_per_round=20, num_users=PEOPLE
    )
    state, metrics, evidence, scalars = trained(config, 1.5)
    right = on_new_people(state.params, config, 1.5)
    gain = right[:, 1] - right[:, 0]
    self.assertGreater(gain.mean(), 5 * gain.std() / np.sqrt(len(gain)))
    self.assertGreater(gain.mean(), 0.08)
    # The factor is the taste in which people differ.
    factors = np.asarray(state.params["head"])[:, 1:]
    own = np.asarray(state.carry.mean) @ factors.T  # [U, D]
    self.assertGreater(np.abs(own[:, 1]).mean(), 3 * np.abs(own[:, 2:]).mean())
    side = np.sign(own[:, 1]) == np.where(np.arange(PEOPLE) % 2, 1, -1)
    self.assertGreater(side.mean(), 0.95)
    # The measure of a round rises, and one's own reward is the better one.
    self.assertGreater(evidence[-1], evidence[0] + 0.02)
    self.assertGreater(evidence[-1], max(evidence) - 0.005)
    self.assertGreater(
      metrics["train/accuracy"], metrics["train/accuracy/shared"] + 0.05
    )
    self.assertLess(metrics["train/nll"], metrics["train/nll/shared"])
    self.assertGreater(scalars["people/personal_share"], 0.2)

  @parameterized.parameters(*reward_readout.PERSONAL)
  def test_where_all_want_the_same_own_pairs_change_nothing(self, kind):
    config = PersonalRecipeConfig(
      "personal", kind, rank=2, steps_per_round=20, num_users=PEOPLE
    )
    state, _, _, scalars = trained(config, 0.0)
    right = on_new_people(state.params, config, 0.0)
    gain = right[:, 1] - right[:, 0]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    self.assertLess(abs(gain.mean()), max(1.96 * error, 0.01))
    self.assertLess(scalars["people/personal_share"], 0.05)

  def test_a_pull_holds_people_together(self):
    sizes = []
    for pull in (0.0, 3.0):
      config = PersonalRecipeConfig(
        "personal", rank=2, steps_per_round=20, num_users=PEOPLE, pull=pull
      )
      state, *_ = trained(config, 1.5, steps=120)
      own = state.carry.mean @ state.params["head"][:, 1:].T
      sizes.append(float(jnp.abs(own).max()))
    self.assertGreater(sizes[0], 3 * sizes[1])


class ExpectationTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_evidence_is_that_of_laplace(self):
    rng = np.random.default_rng(0)
    gaps, apart = rng.normal(size=12), rng.normal(size=(12, 2))
    user = np.array([0, 0, 1, 2, 2, 2, 2, -1, 4, 0, 1, 2])  # 3 has no pairs
    prob = rng.random(12)
    places, scalars = personal_recipe.expectation(
      gaps, apart, user=user, num_users=4, chosen_prob=prob
    )
    total, personal, whole = 0.0, 0.0, 0.0
    for u in range(4):
      mine = user == u
      a = np.asarray(places.mean[u])
      gap = gaps[mine] + apart[mine] @ a
      said = prob[mine] * np.logaddexp(0, -gap)
      said = said + (1 - prob[mine]) * np.logaddexp(0, gap)
      likely = 1 / (1 + np.exp(-gap))
      hessian = (
        np.eye(2) + (apart[mine].T * (likely * (1 - likely))) @ (apart[mine])
      )
      np.testing.assert_allclose(
        places.covariance[u] @ hessian, np.eye(2), atol=1e-9
      )
      total -= said.sum() + a @ a / 2 + np.log(np.linalg.det(hessian)) / 2
      personal += ((apart[mine] @ a) ** 2).sum()
      whole += (gaps[mine] ** 2).sum()
    np.testing.assert_allclose(places.log_evidence, total, rtol=1e-9)
    np.testing.assert_allclose(
      scalars["people/log_evidence_per_pair"], total / 10
    )
    np.testing.assert_allclose(
      scalars["people/personal_share"], personal / (personal + whole)
    )
    np.testing.assert_allclose(
      scalars["people/size"], np.sqrt(np.mean(np.square(places.mean)))
    )

  def test_without_places_or_factors_it_is_bradley_terry(self):
    rng = np.random.default_rng(1)
    config = PersonalRecipeConfig("personal", rank=2, num_users=3)
    loss = bradley_terry.PairLossConfig("hard", 0.1, "column", 0.2)
    rows = personal_recipe.personal_rows(config, loss)
    plain = bradley_terry.pair_rows(loss)
    both = jnp.asarray(rng.normal(size=(2, 8, 3))).at[..., 1:].set(0.7)
    outputs = bradley_terry.PairOutputs(*both, *both)
    batch = {
      "where": jnp.ones(8, bool),
      "annotator": jnp.asarray(rng.integers(-1, 3, 8)),
      "chosen_prob": jnp.ones(8),
      "margin": jnp.asarray(rng.normal(size=8)),
    }
    places = personal_recipe.start(jnp.asarray(rng.normal(size=(3, 2))))
    np.testing.assert_allclose(
      rows.losses(outputs, rows.prepare(batch, places)),
      plain.losses(outputs, batch),
      rtol=1e-12,
    )

  @parameterized.parameters(
    (dict(kind="points"), "kind must be one of ideal_points, low_rank"),
    (dict(rank=0), "rank must be >= 1, got 0"),
    (dict(steps_per_round=0), "steps_per_round must be >= 1, got 0"),
    (dict(pull=-1.0), "pull must be >= 0, got -1"),
  )
  def test_errors_name_what_is_allowed(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      PersonalRecipeConfig("personal", **changes)

  def test_names_of_outputs(self):
    config = PersonalRecipeConfig("personal", "ideal_points", rank=2)
    self.assertEqual(config.outputs, ("shared", "factor_0", "factor_1"))
    self.assertEqual(config.readout().num_factors(len(config.outputs)), 2)


if __name__ == "__main__":
  absltest.main()
