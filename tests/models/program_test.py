"""Scan, unrolling and remat change the program, never its result."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from tests.models.samples import (
  GPT2,
  LLAMA,
  REWARD,
  WIDE,
  equations,
  rows,
  start,
)

# Compiling is most of these tests' time, and LLVM most of that.
QUICK = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


class ProgramTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    self.tokens, self.mask = rows()

  def loss(self, config):
    model = models.reward_model(config)
    keys = jax.random.split(jax.random.key(2), 3)

    def loss(params):
      out = model.apply(params, self.tokens, self.mask, dropout_keys=keys)
      return jnp.sum(jnp.sin(out.rewards)) + jnp.sum(out.features**2)

    return loss

  def test_unroll_and_remat_change_the_program_and_not_the_result(self):
    base = dataclasses.replace(REWARD, dropout=0.2, **WIDE)
    _, params = start(base)
    results, products = {}, {}
    for remat, unroll in (("none", 1), ("none", 2), ("dots", 1), ("full", 1)):
      config = dataclasses.replace(base, remat=remat, unroll=unroll)
      gradient = jax.jit(jax.value_and_grad(self.loss(config)))
      traced = gradient.trace(params)
      found = list(equations(traced.jaxpr.jaxpr))
      scans = [
        e
        for e in found
        if e.primitive.name == "scan" and e.params["length"] == 2
      ]
      self.assertEqual({e.params["unroll"] for e in scans}, {unroll})
      products[remat, unroll] = sum(
        e.primitive.name == "dot_general" for e in found
      )
      results[remat, unroll] = traced.lower().compile(QUICK)(params)
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13),
        results[remat, unroll],
        results["none", 1],
      )
    # A layer has 7 products with weights and 2 between activations.
    self.assertEqual(
      products["dots", 1] - products["none", 1], 2, "attention is taken again"
    )
    self.assertGreater(products["full", 1] - products["none", 1], 5)

  def test_full_remat_survives_unrolling(self):
    # Long enough that what is kept outweighs everything else.
    tokens, mask = np.zeros((8, 16), np.int32), np.ones((8, 16), bool)
    temporary = {}
    for remat in ("none", "full"):
      config = dataclasses.replace(
        REWARD, num_layers=3, mlp_dim=256, remat=remat, unroll=3
      )
      model = models.reward_model(config)
      shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, mask)
      loss = lambda p, model=model: jnp.sum(
        model.apply(p, tokens, mask).rewards
      )
      compiled = jax.jit(jax.grad(loss)).lower(shapes).compile(QUICK)
      temporary[remat] = compiled.memory_analysis().temp_size_in_bytes
    # Equal if XLA merges what is taken again with what was taken before.
    self.assertLess(temporary["full"], 0.9 * temporary["none"])

  @parameterized.parameters(LLAMA, GPT2)
  def test_second_derivatives_match_finite_differences(self, config):
    config = dataclasses.replace(config, num_layers=1, num_outputs=1, **WIDE)
    _, params = start(config)
    along = jax.tree.map(jnp.sin, params)
    gradient = jax.grad(self.loss(config))
    move = lambda size: jax.tree.map(lambda p, a: p + size * a, params, along)
    dot = lambda x, y: sum(map(jnp.vdot, *map(jax.tree.leaves, (x, y))))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(size):
      """A gradient, and two ways to its derivative along `along`."""
      at = move(size)
      first, forward = jax.jvp(gradient, (at,), (along,))
      return first, forward, jax.grad(lambda p: dot(gradient(p), along))(at)

    step = 1e-5
    _, forward, reverse = both(0.0)
    above, below = both(step)[0], both(-step)[0]
    expected = jax.tree.map(lambda a, b: (a - b) / (2 * step), above, below)
    for got in (forward, reverse):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        got,
        expected,
      )


if __name__ == "__main__":
  absltest.main()
