"""MetaRM: the gradient of one point applied at another, in any layout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from jaxalign.algorithms import bradley_terry, metarm, train_state
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import update as contract
from tests import transforms
from tests.algorithms import layouts

B, M, K, T, V, D = 16, 8, 3, 5, 11, 3
ADAM = optimizers.OptimizerConfig(
  learning_rate=1e-2,
  schedule="constant",
  warmup_steps=0,
  b1=0.9,
  b2=0.99,
  eps=1e-8,
  weight_decay=0.0,
  clip_norm=1.0,
)
PLAIN = bradley_terry.PairLossConfig("hard", 0.0, None, 0.0)


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """A head on the squashed mean embedding, so that second order matters."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = jnp.tanh(values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None])
  if dropout_keys is not None:
    draw = lambda k: jax.random.bernoulli(k, 0.8, (D,))
    features = jnp.where(jax.vmap(draw)(dropout_keys), features, 0.0)
  return Output((features @ params["head"])[:, None], features)


def config(**changes):
  base = dict(
    name="metarm", files=("x",), num_prompts=M, num_responses=K, step_size=0.3
  )
  return metarm.MetaRmConfig(**base | changes)


OBJECTIVE = bradley_terry.bradley_terry(apply, PLAIN, dropout=True)
OPTIMIZER = optimizers.make_optimizer(
  ADAM, num_steps=9, axes={"table": ("a", "b"), "head": ("a",)}
)


class MetaRmTest(parameterized.TestCase):
  begun = None

  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {
      "table": jnp.array(rng.normal(size=(V, D))),
      "head": jnp.array(rng.normal(size=D)),
    }

    def texts(rows, responses):
      lengths = rng.integers(1, T + 1, size=(rows, responses))
      return {
        "tokens": jnp.array(
          rng.integers(0, V, (rows, responses, T)), jnp.int32
        ),
        "mask": jnp.array(np.arange(T) < lengths[..., None]),
      }

    self.batch = {
      **texts(B, 2),
      "where": jnp.array([True] * 5 + [False] + [True] * 10),
      "row": jnp.arange(B, dtype=jnp.int32),
      **{f"meta_{k}": v for k, v in texts(M, K).items()},
      "meta_where": jnp.array([True] * 7 + [False]),
    }

  def state(self):
    """After two plain steps, so that there are second moments."""
    if MetaRmTest.begun is None:
      MetaRmTest.begun = self.two_steps()
    return jax.tree.map(jnp.copy, MetaRmTest.begun)

  def two_steps(self):
    state = train_state.init_state(
      jax.tree.map(jnp.copy, self.params), OPTIMIZER
    )
    update = jax.jit(contract.make_update(OBJECTIVE, OPTIMIZER))
    for _ in range(2):
      state, _ = update(state, self.batch, jax.random.key(2))
    return state

  def keyed(self, step):
    key = jax.random.fold_in(jax.random.key(2), step)
    return self.batch | {"key": contract.row_keys(key, self.batch["row"])}

  def mean_spread(self, params):
    """J of the prompts that count, from equation 11."""
    flat = lambda x: x[:7].reshape(-1, T)
    rewards = apply(
      params, flat(self.batch["meta_tokens"]), flat(self.batch["meta_mask"])
    ).rewards.reshape(7, K)
    total = 0.0
    for i in range(K):
      for j in range(i):
        gap = rewards[:, i] - rewards[:, j]
        total += jnp.mean(jax.nn.sigmoid(jnp.abs(gap)))
    return total * 2 / K**2

  def pair_loss(self, params, step):
    keys = jax.vmap(jax.random.split, (0, None))(self.keyed(step)["key"], 2)
    sides = [
      apply(
        params,
        self.batch["tokens"][:, side],
        self.batch["mask"][:, side],
        dropout_keys=keys[:, side],
      ).rewards[:, 0]
      for side in range(2)
    ]
    return -jnp.mean(
      jax.nn.log_sigmoid(sides[0] - sides[1]), where=self.batch["where"]
    )

  def taken(self, state, **changes):
    """What the update gives its optimiser in step 2."""
    take = metarm.lookahead(apply, config(**changes), ADAM)
    return jax.jit(
      lambda state, batch: take(contract.make_gradient, OBJECTIVE, state, batch)
    )(state, self.keyed(2))

  def ahead(self, params, inner, state):
    """θ' by the book."""
    slope = jax.grad(self.mean_spread)(params)
    if inner == "unit":
      norm = jnp.sqrt(sum(jnp.sum(g**2) for g in slope.values()))
      slope = {k: g / norm for k, g in slope.items()}
    if inner == "adam":
      moments = state.opt_state[1][0]
      self.assertEqual(int(moments.count), 2)

      def preconditioned(g, nu):
        v = (0.99 * nu + 0.01 * g**2) / (1 - 0.99**3)
        seen = v > 0  # not so for a token that no text holds
        return jnp.where(seen, g / (jnp.sqrt(jnp.where(seen, v, 1)) + 1e-8), 0)

      slope = {k: preconditioned(g, moments.nu[k]) for k, g in slope.items()}
    return {k: params[k] + 0.3 * slope[k] for k in params}

  @parameterized.product(inner=metarm.INNER, second_order=(False, True))
  def test_gradient_follows_the_paper(self, inner, second_order):
    state = self.state()
    got = self.taken(state, inner=inner, second_order=second_order)
    ahead = jax.jit(lambda p: self.ahead(p, inner, state))(state.params)
    if second_order:
      expected = jax.jit(
        jax.grad(lambda p: self.pair_loss(self.ahead(p, inner, state), 2))
      )(state.params)
    else:
      expected = jax.jit(jax.grad(lambda p: self.pair_loss(p, 2)))(ahead)
    for name, leaf in expected.items():
      np.testing.assert_allclose(got.gradient[name], leaf, atol=1e-8)
    np.testing.assert_allclose(got.loss, self.pair_loss(ahead, 2), rtol=1e-7)
    mean = lambda name: float(np.divide(*got.metrics[name]))
    self.assertAlmostEqual(
      mean("train/spread"), float(self.mean_spread(state.params)), places=9
    )
    self.assertAlmostEqual(
      mean("train/spread_ahead"), float(self.mean_spread(ahead)), places=7
    )
    self.assertAlmostEqual(
      mean("train/nll"), float(self.pair_loss(state.params, 2)), places=9
    )
    self.assertAlmostEqual(mean("train/nll_ahead"), float(got.loss), places=9)
    length = np.sqrt(
      sum(np.sum((ahead[k] - state.params[k]) ** 2) for k in ahead)
    )
    self.assertAlmostEqual(
      float(got.scalars["train/step_ahead"]), length, places=7
    )

  def test_a_small_step_spreads_the_rewards(self):
    metrics = self.taken(self.state(), step_size=0.01, inner="unit").metrics
    before, after = (
      float(np.divide(*metrics[name]))
      for name in ("train/spread", "train/spread_ahead")
    )
    self.assertGreater(after, before)

  def test_step_size_zero_is_bradley_terry_bit_for_bit(self):
    plain = jax.jit(contract.make_update(OBJECTIVE, OPTIMIZER))
    still = jax.jit(
      contract.make_update(
        OBJECTIVE,
        OPTIMIZER,
        take=metarm.lookahead(apply, config(step_size=0.0), ADAM),
      )
    )
    states = [self.state(), self.state()]
    for _ in range(2):
      states[0], expected = plain(states[0], self.batch, jax.random.key(2))
      states[1], got = still(states[1], self.batch, jax.random.key(2))
      transforms.assert_identical(states[1], states[0])
    transforms.assert_identical(
      {name: got[name] for name in expected}, expected
    )
    self.assertEqual(float(got["train/step_ahead"]), 0.0)
    self.assertEqual(got["train/nll_ahead"], got["train/nll"])

  @parameterized.parameters(("adam", False), ("unit", True))
  def test_any_layout_gives_the_same_two_steps(self, inner, second_order):
    take = metarm.lookahead(
      apply, config(inner=inner, second_order=second_order), ADAM
    )

    def make(**options):
      optimizer = optax.chain(OPTIMIZER)
      return contract.make_update(OBJECTIVE, optimizer, take=take, **options)

    def start():
      state = self.state()
      return state._replace(opt_state=(state.opt_state,))

    layouts.assert_same_two_steps(self, make, start, self.batch)

  @parameterized.parameters(
    (dict(inner="newton"), "inner must be one of"),
    (dict(files=()), "files must name at least one source"),
    (dict(num_prompts=0), "num_prompts must be >= 1, got 0"),
    (dict(num_responses=1), "num_responses must be >= 2, got 1"),
    (dict(step_size=-1.0), "step_size must be >= 0"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)


if __name__ == "__main__":
  absltest.main()
