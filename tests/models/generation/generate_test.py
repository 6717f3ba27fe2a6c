"""Generation: a row is its own, and its log-probabilities are the learner's."""

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign import models
from jaxalign.models import activations, decoder
from jaxalign.models.generation import decode
from jaxalign.models.generation.generate import _generate, bucket
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.profiling import hlo_collectives
from tests import parallel_modes
from tests.models.samples import GPT2, LLAMA, REWARD, equations, start

LONG = dataclasses.replace(LLAMA, max_positions=64)
PAD = 0
PROMPTS = ((5, 6, 7, 8, 9), (3,), (4, 4, 9), (11, 12, 13, 14))


def padded(prompts=PROMPTS, side="left", width=6):
  tokens = np.full((len(prompts), width), PAD, np.int32)
  mask = np.zeros(tokens.shape, bool)
  for row, ids in enumerate(prompts):
    start = width - len(ids) if side == "left" else 0
    tokens[row, start : start + len(ids)] = ids
    mask[row, start : start + len(ids)] = True
  return tokens, mask


def run(config, params, inputs=None, *, seeds=(0, 1, 2, 3), **options):
  keys = jnp.stack([jax.random.key(seed) for seed in seeds])
  return models.generate(
    config,
    params,
    *(padded() if inputs is None else inputs),
    keys=keys,
    pad_id=PAD,
    **{"max_new_tokens": 10} | options,
  )


def recomputed(config, params, inputs, out):
  """Log-probabilities of the new tokens by one forward of the whole."""
  tokens = np.concatenate([inputs[0], out.tokens], axis=1)
  mask = np.concatenate([inputs[1], out.mask], axis=1)
  logits = models.causal_lm(config).apply(params, tokens, mask).logits
  before = np.array(jax.nn.log_softmax(logits))[:, :-1]
  chosen = np.take_along_axis(before, tokens[:, 1:, None], axis=-1)[..., 0]
  width = inputs[0].shape[1]
  new = chosen[:, width - 1 :]
  # The first new token is drawn after the last attended one of the prompt.
  last = np.where(inputs[1], np.arange(width), 0).max(-1)
  rows = np.arange(len(tokens))
  logits = np.array(jax.nn.log_softmax(logits))
  new[:, 0] = logits[rows, last, out.tokens[:, 0]]
  return np.where(out.mask, new, 0.0)


class GenerateTest(parameterized.TestCase):
  @parameterized.product(config=(LONG, GPT2), side=("left", "right"))
  def test_log_probs_are_those_of_the_learner(self, config, side):
    config = dataclasses.replace(config, max_positions=64)
    _, params = start(config)
    inputs = padded(side=side)
    for options in (
      dict(),
      dict(temperature=0.7, top_k=5, top_p=0.9, repetition_penalty=1.3),
      dict(temperature=0),
    ):
      out = run(config, params, inputs, eos_ids=(2, 3), **options)
      np.testing.assert_allclose(
        out.log_probs, recomputed(config, params, inputs, out), atol=1e-4
      )

  def test_greedy_is_the_likeliest_token_at_every_step(self):
    _, params = start(LONG)
    out = run(LONG, params, temperature=0)
    apply = jax.jit(models.causal_lm(LONG).apply)
    for row, prompt in enumerate(PROMPTS):
      tokens = list(prompt)
      for token in np.asarray(out.tokens[row]):
        line = np.zeros((1, 20), np.int32)
        line[0, : len(tokens)] = tokens
        logits = apply(params, line, np.arange(20)[None] < len(tokens)).logits
        self.assertEqual(int(np.argmax(logits[0, len(tokens) - 1])), int(token))
        tokens.append(int(token))

  @parameterized.parameters(dict(), dict(top_k=4), dict(repetition_penalty=1.5))
  def test_a_row_is_its_own(self, **options):
    _, params = start(LONG)
    options = dict(eos_ids=(2,), **options)
    every = run(LONG, params, **options)
    self.assertGreater(len(np.unique(every.tokens)), 5)
    for inputs in (padded(side="right"), padded(width=17)):
      again = run(LONG, params, inputs, **options)
      np.testing.assert_array_equal(again.tokens, every.tokens)
      np.testing.assert_allclose(again.log_probs, every.log_probs, atol=1e-5)
    order = [2, 0]
    tokens, mask = padded()
    some = run(
      LONG, params, (tokens[order], mask[order]), seeds=(2, 0), **options
    )
    np.testing.assert_array_equal(some.tokens, every.tokens[np.array(order)])
    other = run(LONG, params, seeds=(7, 1, 2, 3), **options)
    self.assertTrue(np.any(other.tokens[0] != every.tokens[0]))
    np.testing.assert_array_equal(other.tokens[1:], every.tokens[1:])

  def test_ends_at_any_end_token_and_not_too_early(self):
    _, params = start(LONG)
    ends = tuple(range(0, 23, 2))
    out = run(LONG, params, eos_ids=ends, min_new_tokens=3)
    tokens, mask = np.asarray(out.tokens), np.asarray(out.mask)
    lengths = mask.sum(-1)
    self.assertTrue(np.all(lengths >= 4))
    self.assertLess(lengths.min(), 10)
    for row, length in enumerate(lengths):
      self.assertTrue(np.all(mask[row, :length]))
      self.assertFalse(np.any(np.isin(tokens[row, : length - 1], ends)))
      if length < 10:
        self.assertIn(tokens[row, length - 1], ends)
      np.testing.assert_array_equal(tokens[row, length:], PAD)
      np.testing.assert_array_equal(out.log_probs[row, length:], 0)

  @parameterized.parameters(1, 3)
  def test_several_results_of_a_prompt_are_those_of_as_many_rows(self, number):
    _, params = start(LONG)
    tokens, mask = padded()
    mask[1] = False  # ended before it begins
    keys = jax.random.split(jax.random.key(5), (len(tokens), number))
    options = dict(max_new_tokens=8, repetition_penalty=1.2, eos_ids=(2, 3))
    of = lambda inputs, keys: models.generate(
      LONG, params, *inputs, keys=keys, pad_id=PAD, **options
    )
    got = of((tokens, mask), keys)
    again = [np.repeat(x, number, axis=0) for x in (tokens, mask)]
    expected = of(again, keys.reshape(-1))
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_array_equal(got.mask, expected.mask)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, atol=1e-5)
    rows = {tuple(row) for row in np.asarray(got.tokens).tolist()}
    self.assertGreater(len(rows), 2 * number)  # each draws by its own key

  def test_a_prompt_passes_once(self):
    _, params = start(LONG)
    passed = []
    prefill = decode.prefill

    def counted(config, params, tokens, mask):
      passed.append(len(tokens))
      return prefill(config, params, tokens, mask)

    keys = jax.random.split(jax.random.key(5), (4, 8))
    with mock.patch.object(decode, "prefill", counted):
      out = models.generate(
        LONG, params, *padded(), keys=keys, max_new_tokens=9, pad_id=PAD
      )
    self.assertEqual(passed, [4])
    self.assertEqual(out.tokens.shape, (32, 9))

  def test_a_row_without_a_prompt_has_ended(self):
    _, params = start(LONG)
    tokens, mask = padded()
    mask[1] = False
    out = run(LONG, params, (tokens, mask))
    np.testing.assert_array_equal(out.mask.sum(-1), [10, 0, 10, 10])

  def test_parameters_by_layer_are_taken_as_they_are(self):
    _, params = start(LONG)
    each = decoder.unstack_layers(params)
    np.testing.assert_array_equal(
      run(LONG, each).tokens, run(LONG, params).tokens
    )

  def test_prompts_of_a_bucket_share_a_program(self):
    _, params = start(LONG)
    before = _generate._cache_size()
    # A length of the result that no other test asks for.
    tokens = dict(max_new_tokens=7)
    for width in (6, 9, 16):
      inputs = padded(width=width)
      run(LONG, params, inputs, temperature=0.5 + width / 100, **tokens)
    run(LONG, params, temperature=0.9, top_p=0.7, **tokens)
    run(LONG, params, temperature=0.8, top_p=0.8, min_new_tokens=2, **tokens)
    self.assertEqual(_generate._cache_size() - before, 2)

  def test_buckets(self):
    self.assertEqual(
      [bucket(n) for n in (1, 16, 17, 24, 25, 33, 48, 49, 64, 65)],
      [16, 16, 24, 24, 32, 48, 48, 64, 64, 96],
    )

  def test_stops_when_all_rows_have_ended(self):
    _, params = start(LONG)
    # Every token ends a row, so one step is all there is.
    ends = tuple(range(23))
    out = run(LONG, params, eos_ids=ends, max_new_tokens=40)
    np.testing.assert_array_equal(out.mask.sum(-1), 1)

  def test_equal_on_a_mesh(self):
    _, params = start(LONG)
    parallel_modes.need_devices(4)
    mesh = Mesh(
      np.array(jax.devices()[:4]).reshape(2, 2),
      ("data", "tensor"),
      axis_types=(AxisType.Auto,) * 2,
    )
    table = {
      "batch": ("data",),
      "heads": ("tensor",),
      "kv_heads": ("tensor",),
      "mlp": ("tensor",),
      "vocab": ("tensor",),
    }
    keys = jnp.stack([jax.random.key(seed) for seed in range(4)])
    inputs = padded()
    call = lambda params, tokens, mask: models.generate(
      LONG, params, tokens, mask, keys=keys, max_new_tokens=10, pad_id=PAD
    )
    sharded = jax.jit(activations.laid_out(call, mesh, table))
    caches = [
      e.params["sharding"].spec
      for e in equations(jax.make_jaxpr(sharded)(params, *inputs).jaxpr)
      if e.primitive.name == "sharding_constraint"
      if e.outvars[0].aval.ndim == 4
    ]
    self.assertIn(PartitionSpec("data", "tensor", None, None), caches)
    everywhere = NamedSharding(mesh, PartitionSpec())
    got = sharded(jax.device_put(params, everywhere), *inputs)
    self.assertLen(got.tokens.sharding.device_set, 4)
    expected = run(LONG, params)
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_allclose(got.log_probs, expected.log_probs, atol=1e-5)

  def test_weights_are_gathered_and_activations_never_added_up(self):
    parallel_modes.need_devices(8)
    network = dataclasses.replace(LONG, num_kv_heads=4)
    model, params = start(network)
    mesh = meshes.make_mesh(meshes.MeshConfig(2, 4, 1))
    rows = meshes.batch_sharding(mesh)
    call = lambda params, tokens, mask, keys: models.generate(
      network, params, tokens, mask, keys=keys, max_new_tokens=2, pad_id=PAD
    )
    sharded = jax.jit(
      activations.laid_out(call, mesh, meshes.logical_table()),
      in_shardings=(
        meshes.parameter_shardings(model.axes, params, mesh),
        *[rows] * 3,
      ),
    )
    compiled = sharded.lower(
      params,
      jax.ShapeDtypeStruct((8, 32), jnp.int32),
      jax.ShapeDtypeStruct((8, 32), jnp.bool_),
      jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8)),
    ).compile()
    # A layer that took its rows laid out by width would add up keys, values and
    # the width of its MLP for every token of a replica.
    token = 4
    added = [
      message.bytes
      for message in hlo_collectives.collectives(compiled.as_text())
      if message.kind == "all-reduce"
    ]
    self.assertLess(max(added, default=0), 8 // 2 * 32 * token)

  def test_wider_types_at_hand_change_nothing(self):
    _, params = start(LONG)
    expected = run(LONG, params, max_new_tokens=4)
    with jax.enable_x64(True):
      got = run(LONG, params, max_new_tokens=4)
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    self.assertEqual(got.tokens.dtype, np.int32)

  def test_errors(self):
    _, params = start(LONG)
    with self.assertRaisesRegex(ValueError, "at most max_positions = 64"):
      run(LONG, params, max_new_tokens=59)
    with self.assertRaisesRegex(ValueError, r"keys .*got shape \(2,\)"):
      run(LONG, params, seeds=(0, 1))
    with self.assertRaisesRegex(TypeError, "mask must be bool"):
      run(LONG, params, (padded()[0], padded()[0]))
    with self.assertRaisesRegex(ValueError, "num_outputs must be None"):
      run(REWARD, params)


if __name__ == "__main__":
  absltest.main()
