"""The decoder: same function however it is scanned, remade or split."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxalign import models
from jaxalign.models import activations
from tests import parallel_modes
from tests.models.samples import (
  GPT2,
  LLAMA,
  REWARD,
  WIDE,
  equations,
  rows,
  start,
)


class CausalityTest(parameterized.TestCase):
  @parameterized.parameters(LLAMA, GPT2)
  def test_no_gradient_from_the_future(self, config):
    tokens = np.arange(6, dtype=np.int32)[None]
    mask = np.array([[0, 1, 1, 1, 1, 1]], bool)
    config = dataclasses.replace(config, tie_embeddings=False)
    model, params = start(config)

    def hidden(table):
      embed = {**params["embed"], "tokens": table}
      return model.apply({**params, "embed": embed}, tokens, mask).hidden[0]

    cubes = lambda table: jnp.sum(hidden(table) ** 3, axis=-1)
    slopes = jax.jit(jax.jacrev(cubes))(params["embed"]["tokens"])
    reached = np.abs(slopes[1:, 1:6]).sum(-1) > 0
    np.testing.assert_array_equal(reached, np.tril(np.ones((5, 5), bool)))


class PackingTest(parameterized.TestCase):
  @parameterized.parameters(
    LLAMA, GPT2, dataclasses.replace(LLAMA, sliding_window=3)
  )
  def test_texts_in_one_row_are_as_texts_in_rows_of_their_own(self, config):
    model, params = start(config)
    rng = np.random.default_rng(0)
    texts = [
      rng.integers(0, config.vocab_size, n).astype(np.int32) for n in (5, 1, 7)
    ]
    tokens = np.zeros((1, 16), np.int32)
    segments = np.zeros((1, 16), np.int32)
    at = 0
    for number, text in enumerate(texts, 1):
      tokens[0, at : at + len(text)] = text
      segments[0, at : at + len(text)] = number
      at += len(text)
    apply = jax.jit(model.apply)
    packed = apply(params, tokens, segments > 0, segment_ids=segments)
    for number, text in enumerate(texts, 1):
      alone = apply(params, text[None], np.ones((1, len(text)), bool))
      np.testing.assert_allclose(
        packed.logits[segments == number], alone.logits[0], atol=1e-5
      )
    without = apply(params, tokens, segments > 0)
    self.assertGreater(
      np.abs(without.logits - packed.logits)[0, 6:13].max(), 0.01
    )

  def test_a_reward_model_refuses_packed_rows(self):
    model, params = start(REWARD)
    with self.assertRaisesRegex(ValueError, "segment_ids must be None"):
      model.apply(params, *rows(), segment_ids=np.ones((3, 6), np.int32))


class PrecisionTest(absltest.TestCase):
  def test_bfloat16_is_near_float32_and_rewards_stay_wide(self):
    tokens, mask = rows()
    model, params = start(REWARD)
    exact = jax.jit(model.apply)(params, tokens, mask)
    narrow = models.reward_model(dataclasses.replace(REWARD, dtype="bfloat16"))
    got = jax.jit(narrow.apply)(params, tokens, mask)
    for array in got:
      self.assertEqual(array.dtype, jnp.float32)
    np.testing.assert_allclose(got.rewards, exact.rewards, atol=0.05)
    self.assertTrue(np.any(got.rewards != exact.rewards))
    # The products really are taken in bfloat16.
    jaxpr = jax.make_jaxpr(narrow.apply)(params, tokens, mask)
    kinds = [
      e.invars[0].aval.dtype
      for e in equations(jaxpr.jaxpr)
      if e.primitive.name == "dot_general"
    ]
    self.assertEqual(kinds.count(jnp.bfloat16), len(kinds) - 1)

  def test_float64_stays(self):
    with jax.enable_x64(True):
      tokens, mask = rows()
      config = dataclasses.replace(LLAMA, value_head=True, **WIDE)
      model, params = start(config)
      out = jax.jit(model.apply)(params, tokens, mask)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves((params, out))}, {np.dtype("float64")}
    )


class InitTest(parameterized.TestCase):
  def test_statistics(self):
    config = dataclasses.replace(
      GPT2, embed_dim=64, head_dim=16, mlp_dim=128, num_outputs=50
    )
    tokens, mask = rows()
    model = models.reward_model(config)
    params = model.init(jax.random.key(0), tokens, mask)
    layers = params["layers"]
    for array, std in (
      (params["embed"]["tokens"], 0.02),
      (params["embed"]["positions"], 0.02),
      (layers["attention"]["query"]["kernel"], 64**-0.5),
      (layers["attention"]["out"]["kernel"], (64 * 4) ** -0.5),
      (layers["mlp"]["up"]["kernel"], 64**-0.5),
      (layers["mlp"]["down"]["kernel"], (128 * 4) ** -0.5),
      (params["score"]["kernel"], 65**-0.5),
    ):
      np.testing.assert_allclose(np.std(array), std, rtol=0.1)
      self.assertLess(abs(np.mean(array)), 0.1 * std)
    self.assertTrue(np.all(layers["mlp_norm"]["scale"] == 1))
    self.assertTrue(np.all(layers["attention"]["query"]["bias"] == 0))
    first, second = layers["mlp"]["up"]["kernel"][:2]
    self.assertLess(np.corrcoef(first.ravel(), second.ravel())[0, 1], 0.05)

  def test_the_same_bits_under_jit_and_values_at_zero(self):
    tokens, mask = rows()
    model = models.causal_lm(dataclasses.replace(LLAMA, value_head=True))
    params = model.init(jax.random.key(0), tokens, mask)
    jitted = jax.jit(model.init)(jax.random.key(0), tokens, mask)
    jax.tree.map(np.testing.assert_array_equal, params, jitted)
    np.testing.assert_array_equal(params["value"]["kernel"], np.zeros((8, 1)))


class AxesTest(parameterized.TestCase):
  @parameterized.parameters(REWARD, GPT2)
  def test_one_name_per_dimension(self, config):
    model, params = start(config)
    known = (
      "layers embed heads kv_heads mlp vocab positions norm outputs".split()
    )

    def check(leaf, names):
      self.assertLen(names, leaf.ndim)
      self.assertContainsSubset(names, known)

    jax.tree.map(check, params, model.axes)
    self.assertEqual(
      model.axes["layers"]["mlp"]["down"]["kernel"], ("layers", "mlp", "embed")
    )

  def test_nothing_is_pinned_without_a_mesh(self):
    model, params = start(REWARD)
    parallel_modes.need_devices(4)
    mesh = Mesh(
      np.array(jax.devices()[:4]).reshape(2, 2),
      ("data", "tensor"),
      axis_types=(AxisType.Auto,) * 2,
    )
    table = {"batch": ("data",), "heads": ("tensor",), "mlp": ("tensor",)}

    def pinned(apply):
      jaxpr = jax.make_jaxpr(apply)(params, *rows(batch=4)).jaxpr
      return [
        str(e.params["sharding"].spec)
        for e in equations(jaxpr)
        if e.primitive.name == "sharding_constraint"
      ]

    self.assertEmpty(pinned(model.apply))
    specs = pinned(activations.laid_out(model.apply, mesh, table))
    for spec in (("data", "tensor"), ("data", None, "tensor", None)):
      self.assertIn(str(PartitionSpec(*spec)), specs)


class ErrorTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      np.zeros((2, 4)),
      np.ones((2, 4), bool),
      TypeError,
      "tokens must be integer",
    ),
    (np.zeros((2, 4), int), np.ones((2, 4)), TypeError, "mask must be bool"),
    (np.zeros(4, int), np.ones(4, bool), ValueError, "tokens must have 2 axes"),
    (
      np.zeros((2, 4), int),
      np.ones((2, 5), bool),
      ValueError,
      r"tokens \(2, 4\), mask \(2, 5\)",
    ),
    (
      np.zeros((2, 17), int),
      np.ones((2, 17), bool),
      ValueError,
      "tokens are 17 long, the model takes at most max_positions = 16",
    ),
  )
  def test_inputs(self, tokens, mask, error, regex):
    model = models.reward_model(REWARD)
    with self.assertRaisesRegex(error, regex):
      jax.eval_shape(
        model.init, jax.random.key(0), jnp.asarray(tokens), jnp.asarray(mask)
      )

  def test_the_wrong_kind_of_model(self):
    with self.assertRaisesRegex(ValueError, "num_outputs must be set"):
      models.reward_model(LLAMA)
    with self.assertRaisesRegex(ValueError, "num_outputs must be None"):
      models.causal_lm(REWARD)
    with self.assertRaisesRegex(ValueError, "float64.*jax_enable_x64"):
      models.reward_model(dataclasses.replace(REWARD, **WIDE))

  def test_keys_are_one_per_row(self):
    model, params = start(REWARD)
    with self.assertRaisesRegex(ValueError, r"one per row.*got shape \(\)"):
      model.apply(params, *rows(), dropout_keys=jax.random.key(0))

  @parameterized.parameters(-1, LLAMA.vocab_size)
  def test_a_token_outside_the_vocabulary_is_not_another_token(self, token):
    tokens, mask = rows()
    model, params = start(REWARD)
    tokens[0, 0] = token
    rewards = jax.jit(model.apply)(params, tokens, mask).rewards
    self.assertTrue(np.isnan(rewards[0]).all())
    self.assertTrue(np.isfinite(rewards[1:]).all())


if __name__ == "__main__":
  absltest.main()
