"""Adapters: nothing at the start, the base unchanged, merged and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import lora
from jaxalign.models.hf import param_map
from tests.models.hf import families_test
from tests.models.samples import GPT2, LLAMA, rows, start

REWARD = dataclasses.replace(LLAMA, num_outputs=2)
NEOX = dataclasses.replace(
  families_test.tiny("gpt_neox", num_outputs=1),
  qkv_bias=True,
  max_positions=16,
)
LORA = lora.LoraConfig(rank=2, alpha=4.0, targets=("query", "value", "up"))


def drawn(config, low_rank, seed=0):
  """Adapters of which no factor is 0."""
  adapters = lora.init_adapters(jax.random.key(seed), config, low_rank)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
    adapters,
  )


class LoraTest(parameterized.TestCase):
  @parameterized.parameters(REWARD, NEOX, dataclasses.replace(GPT2))
  def test_fresh_adapters_change_nothing(self, config):
    _, params = start(config)
    adapters = lora.init_adapters(jax.random.key(0), config, LORA)
    merged = lora.merge(params, adapters, config, LORA)
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    for name, pair in adapters.items():
      if name != "score":
        spread = np.std(pair["a"]) * pair["a"].shape[1] ** 0.5
        np.testing.assert_allclose(spread, 3**-0.5, rtol=0.2)

  def test_difference_is_the_scaled_product(self):
    _, params = start(REWARD)
    adapters = drawn(REWARD, LORA)
    merged = param_map.flat(lora.merge(params, adapters, REWARD, LORA))
    before = param_map.flat(params)
    pair = adapters["self_attn.v_proj"]
    for layer in range(2):
      np.testing.assert_allclose(
        merged["layers/attention/value/kernel"][layer],
        before["layers/attention/value/kernel"][layer]
        + 2.0 * np.asarray(pair["a"][layer]) @ np.asarray(pair["b"][layer]),
        atol=1e-6,
      )
    moved = {k for k in before if np.any(merged[k] != before[k])}
    self.assertEqual(
      moved,
      {
        "layers/attention/query/kernel",
        "layers/attention/value/kernel",
        "layers/mlp/up/kernel",
        "score/kernel",
      },
    )

  def test_only_adapters_are_trained(self):
    # optax raises a float to an integer step count.
    self.enter_context(jax.numpy_dtype_promotion("standard"))
    model, base = start(REWARD)
    kept = jax.tree.map(np.array, base)
    tokens, mask = rows()
    optimizer = optax.adam(0.05)
    adapters = lora.init_adapters(jax.random.key(0), REWARD, LORA)
    state = optimizer.init(adapters)
    self.assertEqual(
      sum(x.size for x in jax.tree.leaves(state)),
      2 * sum(x.size for x in jax.tree.leaves(adapters)) + 1,
    )

    @jax.jit
    def step(adapters, state, base):
      apply = lora.adapted(model.apply, base, REWARD, LORA)
      loss = lambda a: jnp.mean((apply(a, tokens, mask).rewards - 1.0) ** 2)
      value, gradient = jax.value_and_grad(loss)(adapters)
      change, state = optimizer.update(gradient, state)
      return value, optax.apply_updates(adapters, change), state

    values = []
    for _ in range(30):
      value, adapters, state = step(adapters, state, base)
      values.append(float(value))
    self.assertLess(values[-1], 0.1 * values[0])
    jax.tree.map(np.testing.assert_array_equal, base, kept)
    merged = lora.merge(base, adapters, REWARD, LORA)
    np.testing.assert_allclose(
      model.apply(merged, tokens, mask).rewards,
      lora.adapted(model.apply, base, REWARD, LORA)(
        adapters, tokens, mask
      ).rewards,
      atol=1e-6,
    )

  def test_the_base_has_no_gradient(self):
    model, base = start(REWARD)
    adapters = drawn(REWARD, LORA)
    apply = lambda base: lora.adapted(model.apply, base, REWARD, LORA)
    gradient = jax.grad(lambda b: jnp.sum(apply(b)(adapters, *rows()).rewards))(
      base
    )
    self.assertEqual(max(np.abs(x).max() for x in jax.tree.leaves(gradient)), 0)

  def test_several_adapters_share_one_backbone(self):
    model, base = start(REWARD)
    each = [drawn(REWARD, LORA, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    apply = lora.adapted(model.apply, base, REWARD, LORA)
    mixture = jax.jit(jax.vmap(apply, in_axes=(0, None, None)))
    got = mixture(stacked, *rows()).rewards
    self.assertEqual(got.shape, (3, 3, 2))
    for k, adapters in enumerate(each):
      expected = apply(adapters, *rows()).rewards
      np.testing.assert_allclose(got[k], expected, atol=1e-5)
    self.assertGreater(np.abs(got[0] - got[1]).max(), 0.01)

  @parameterized.parameters(REWARD, NEOX, GPT2)
  def test_axes_have_a_name_for_each_dimension(self, config):
    adapters = lora.init_adapters(jax.random.key(0), config, LORA)
    axes = lora.adapter_axes(config, LORA)
    jax.tree.map(
      lambda leaf, names: self.assertLen(names, leaf.ndim), adapters, axes
    )

  def test_what_a_tensor_holds_together_is_adapted_together(self):
    modules = lora.adapted_modules(GPT2, ("key",))
    self.assertEqual(list(modules), ["attn.c_attn"])
    self.assertLen(modules["attn.c_attn"], 3)

  @parameterized.parameters(
    (dict(rank=0), "rank must be >= 1, got 0"),
    (dict(alpha=0.0), "alpha must be > 0, got 0.0"),
    (dict(targets=("q_proj",)), "targets must be among query"),
    (dict(targets=()), "targets must be among query"),
  )
  def test_errors(self, changes, regex):
    with self.assertRaisesRegex(ValueError, regex):
      dataclasses.replace(LORA, **changes)

  def test_a_backbone_without_the_projection(self):
    with self.assertRaisesRegex(ValueError, "gpt2, which has no gate"):
      lora.adapted_modules(GPT2, ("gate", "up"))

  def test_scores_follow_the_merged_model(self):
    model, params = start(REWARD)
    self.assertEqual(models.model_of(REWARD), model)
    merged = lora.merge(params, drawn(REWARD, LORA), REWARD, LORA)
    before = model.apply(params, *rows()).rewards
    after = model.apply(merged, *rows()).rewards
    self.assertGreater(np.abs(before - after).max(), 0.01)


if __name__ == "__main__":
  absltest.main()
