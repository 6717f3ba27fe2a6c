"""Group weights by hand, and one number in any layout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import bradley_terry, group_dro
from jaxalign.algorithms import update as contract
from tests.algorithms import layouts

B, T, V, D, G = 8, 4, 7, 3, 3
PLAIN = bradley_terry.PairLossConfig("hard", 0.0, None, 0.0)


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """A linear head on the mean embedding of attended tokens."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
  return Output((features @ params["head"])[:, None], features)


class GroupDroTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {
      "table": jnp.array(rng.normal(size=(V, D))),
      "head": jnp.array(rng.normal(size=D)),
    }
    lengths = rng.integers(1, T + 1, size=(B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array([True, True, False, True, True, True, True, True]),
      "group": jnp.array([0, 1, 1, 0, 0, -1, 1, 0], jnp.int32),  # no 2
      "row": jnp.arange(B, dtype=jnp.int32),
    }

  def objective(self, step_size=0.7):
    return group_dro.group_dro(
      apply,
      group_dro.GroupDroConfig("group_dro", G, step_size),
      PLAIN,
      dropout=False,
    )

  def group_loss(self, params, group):
    rewards = apply(
      params,
      self.batch["tokens"].reshape(-1, T),
      self.batch["mask"].reshape(-1, T),
    ).rewards.reshape(B, 2)
    mine = self.batch["where"] & (self.batch["group"] == group)
    per_pair = -jax.nn.log_sigmoid(rewards[:, 0] - rewards[:, 1])
    return jnp.mean(per_pair, where=mine)

  def test_weights_move_before_they_are_used(self):
    objective = self.objective()
    carry = jnp.array([0.2, 0.3, 0.5])
    got = jax.jit(contract.make_gradient(objective))(
      self.params, self.batch, carry
    )
    each = [jax.value_and_grad(self.group_loss)(self.params, g) for g in (0, 1)]
    values = np.array([float(value) for value, _ in each] + [0.0])
    weights = np.asarray(carry) * np.exp(0.7 * values)
    weights /= weights.sum()
    np.testing.assert_allclose(got.carry, weights, rtol=1e-12)
    np.testing.assert_allclose(got.loss, weights @ values, rtol=1e-12)
    for leaf in self.params:
      expected = sum(
        w * grads[leaf] for w, (_, grads) in zip(weights[:2], each, strict=True)
      )
      np.testing.assert_allclose(got.gradient[leaf], expected, rtol=1e-10)
    np.testing.assert_allclose(
      got.scalars["train/group_weight/1"], weights[1], rtol=1e-12
    )
    np.testing.assert_allclose(
      got.scalars["train/group_loss/0"], values[0], rtol=1e-12
    )

  def test_no_step_keeps_groups_equal(self):
    objective = self.objective(step_size=0.0)
    got = contract.make_gradient(objective)(
      self.params, self.batch, objective.carry
    )
    np.testing.assert_allclose(got.carry, np.full(G, 1 / 3), rtol=1e-6)

  def test_any_layout_gives_the_same_two_steps(self):
    layouts.assert_same_descent(self, self.objective(), self.params, self.batch)

  @parameterized.parameters(
    (dict(num_groups=0), "num_groups must be >= 1, got 0"),
    (dict(step_size=-1.0), "step_size must be >= 0, got -1"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      group_dro.GroupDroConfig(**dict(name="group_dro", num_groups=2) | changes)


if __name__ == "__main__":
  absltest.main()
