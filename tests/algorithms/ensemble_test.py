"""An ensemble's members are the models they would be alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from jaxalign.algorithms import bradley_terry, ensemble, train_state
from jaxalign.algorithms import update as contract
from tests.algorithms.mean_variance_test import B, Output, T, V

MEMBERS = 4
AT_ONCE = (1, 2, MEMBERS)  # in turns, in pairs, all side by side


def apply(params, tokens, mask, *, dropout_keys=None):
  """A reward per token from a table, dropped out row by row."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  total = values.sum(1)
  if dropout_keys is not None:
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.7))(dropout_keys)
    total = total * keep[:, None]
  return Output(total, total)


class EnsembleTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    objective = bradley_terry.bradley_terry(
      apply, bradley_terry.PairLossConfig("hard", 0.1, None, 0.01), dropout=True
    )
    # Its step is the gradient itself, clipped member by member.
    self.chain = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0))
    self.update = contract.make_update(objective, self.chain)
    tables = jnp.array(rng.normal(size=(MEMBERS, V, 1)))
    self.states = [
      train_state.init_state({"table": table}, self.chain) for table in tables
    ]
    lengths = rng.integers(1, T + 1, size=(MEMBERS, B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (MEMBERS, B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array(rng.random((MEMBERS, B)) < 0.8),
      "row": jnp.tile(jnp.arange(B, dtype=jnp.int32), (MEMBERS, 1)),
    }

  def alone(self, key):
    ends, metrics = [], []
    for m, state in enumerate(self.states):
      own = {name: value[m] for name, value in self.batch.items()}
      state, found = self.update(state, own, ensemble.member_key(key, m))
      ends.append(state.params["table"])
      metrics.append(found)
    return np.array(ends), metrics

  def together(self, key, at_once):
    update = ensemble.make_ensemble_update(self.update, MEMBERS, at_once)
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.states)
    return jax.jit(update)(state, self.batch, key)

  @parameterized.parameters(*AT_ONCE)
  def test_members_step_as_alone(self, at_once):
    expected, metrics = self.alone(jax.random.key(1))
    state, means = self.together(jax.random.key(1), at_once)
    start = np.array([state.params["table"] for state in self.states])
    moved = np.abs(expected - start).max(axis=(1, 2))
    self.assertGreater(moved.min(), 1e-3)
    np.testing.assert_allclose(
      state.params["table"] - start, expected - start, rtol=1e-10, atol=1e-14
    )
    for name in ("train/loss", "train/nll", "train/accuracy"):
      np.testing.assert_allclose(
        means[name], np.mean([found[name] for found in metrics]), rtol=1e-12
      )

  @parameterized.parameters(*AT_ONCE)
  def test_a_bad_member_stays_and_does_not_stop_the_others(self, at_once):
    self.states[1] = self.states[1]._replace(
      params={"table": jnp.full((V, 1), jnp.nan)}
    )
    state, means = self.together(jax.random.key(1), at_once)
    np.testing.assert_array_equal(state.bad_steps, [0, 1, 0, 0])
    self.assertEqual(int(means["train/bad_steps"]), 1)
    expected, _ = self.alone(jax.random.key(1))
    np.testing.assert_allclose(
      np.array(state.params["table"])[[0, 2, 3]],
      expected[[0, 2, 3]],
      rtol=1e-10,
    )

  @parameterized.parameters(*AT_ONCE)
  def test_scores_of_one_batch_under_all_members(self, at_once):
    params = {
      "table": jnp.stack([state.params["table"] for state in self.states])
    }
    batch = {name: value[0] for name, value in self.batch.items()}
    scores = ensemble.make_ensemble_score(apply, at_once)(params, batch)
    self.assertEqual(scores.shape, (B, 2, MEMBERS))
    for m, state in enumerate(self.states):
      expected = bradley_terry.make_score(apply)(state.params, batch)
      np.testing.assert_allclose(scores[..., m], expected[..., 0], rtol=1e-12)


if __name__ == "__main__":
  absltest.main()
