"""Every part of a state is laid out as its parameter, or as told."""

import jax
import jax.numpy as jnp
import optax
from absl.testing import absltest

from jaxalign.algorithms import train_state


class LikeParamsTest(absltest.TestCase):
  def test_moments_take_their_parameters_entry(self):
    params = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
    optimizer = optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(
        optax.linear_schedule(1.0, 0.0, 3), mask={"a": True, "b": False}
      ),
    )
    carry = {"average": jnp.zeros(2)}
    entries = train_state.like_params(
      optimizer, params, {"a": "A", "b": "B"}, "rest", carry
    )
    state = train_state.init_state(params, optimizer, carry)
    self.assertEqual(jax.tree.structure(entries), jax.tree.structure(state))
    moments = entries.opt_state[1][0]
    self.assertEqual(moments.mu, {"a": "A", "b": "B"})
    self.assertEqual(moments.nu, {"a": "A", "b": "B"})
    self.assertEqual(moments.count, "rest")
    self.assertEqual(entries.carry, {"average": "rest"})


if __name__ == "__main__":
  absltest.main()
