"""Layers of several kinds: windows, bases and rotations of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models import layer_kinds, splash_attention
from tests.models.samples import LLAMA, WIDE, rows, start

MIXED = dataclasses.replace(
  LLAMA,
  num_layers=4,
  sliding_window=2,
  window_layers=(True, False, True, False),
  rotary_layers=(True, True, True, False),
  local_rope_theta=50.0,
  norm_places="both",
  zero_centred_norms=True,
  scale_embeddings=True,
  attention_width=3,
  attention_cap=2.0,
  logit_cap=1.5,
)
LONG = dataclasses.replace(
  LLAMA,
  max_positions=32,
  rope_scaling=models.RopeScaling(
    "longrope",
    4.0,
    original_max_positions=8,
    short_factor=(1.0,),
    long_factor=(3.0,),
  ),
)


class LayerKindsTest(parameterized.TestCase):
  def test_layers_that_are_alike_are_one_kind(self):
    self.assertLen(layer_kinds.kinds(LLAMA), 1)
    self.assertLen(layer_kinds.kinds(MIXED), 3)
    self.assertEqual(layer_kinds.kind_of_layers(MIXED), (0, 1, 0, 2))
    kinds = layer_kinds.kinds(MIXED)
    self.assertEqual([kind.window for kind in kinds], [2, None, None])
    self.assertEqual([kind.theta for kind in kinds], [50.0, 1e4, None])

  def test_what_all_layers_share_is_said_once(self):
    same = dataclasses.replace(
      LLAMA,
      sliding_window=3,
      window_layers=(True, True),
      rotary_layers=(True, True),
      attention_width=2,
    )
    self.assertEqual(same, dataclasses.replace(LLAMA, sliding_window=3))
    none = dataclasses.replace(
      LLAMA,
      sliding_window=3,
      window_layers=(False, False),
      local_rope_theta=5.0,
    )
    self.assertEqual(none, LLAMA)

  @parameterized.parameters(
    (dict(window_layers=(True, False)), "window_layers needs sliding_window"),
    (dict(rotary_layers=(True,)), "must be a tuple of num_layers = 2 bools"),
    (dict(rotary_layers=(1, 0)), "must be a tuple of num_layers = 2 bools"),
    (dict(attention_cap=0.0), "attention_cap must be > 0"),
    (dict(qk_norm_whole=True), "qk_norm_whole needs qk_norm"),
    (dict(attention_cap=1.0, attention="fused"), "attention must be 'dense'"),
    (dict(norm_places="around"), "norm_places must be one of"),
  )
  def test_contradictions_are_errors(self, changes, regex):
    with self.assertRaisesRegex(ValueError, regex):
      dataclasses.replace(LLAMA, **changes)

  def test_a_layer_without_a_rotation_is_blind_to_order(self):
    # Two tokens swapped before the last change nothing without positions.
    config = dataclasses.replace(
      LLAMA, num_layers=1, rotary_layers=(False,), num_outputs=1
    )
    model, params = start(config)
    tokens = np.array([[3, 5, 7], [5, 3, 7]], np.int32)
    out = model.apply(params, tokens, tokens > 0).rewards
    np.testing.assert_allclose(out[0], out[1], rtol=1e-5)
    turned, _ = start(dataclasses.replace(config, rotary_layers=None))
    out = turned.apply(params, tokens, tokens > 0).rewards
    self.assertGreater(float(jnp.abs(out[0] - out[1])[0]), 1e-4)

  @parameterized.named_parameters(("mixed", MIXED), ("longrope", LONG))
  def test_decoding_step_by_step_equals_the_whole_text(self, config):
    model, params = start(config)
    tokens, mask = rows(length=4)
    mask[0, -2:] = True  # a row without a gap before its answer
    out = models.generate(
      config,
      params,
      tokens,
      mask,
      keys=jax.random.split(jax.random.key(0), 3),
      max_new_tokens=4,
      pad_id=0,
    )
    whole = jnp.concatenate([tokens, out.tokens], axis=1)
    seen = jnp.concatenate([mask, out.mask], axis=1)
    logits = jax.jit(model.apply)(params, whole, seen).logits[:, 3:-1]
    wanted = jnp.take_along_axis(
      jax.nn.log_softmax(logits), out.tokens[..., None], axis=-1
    )[..., 0]
    np.testing.assert_allclose(out.log_probs[:2], wanted[:2], atol=1e-5)

  @parameterized.named_parameters(("mixed", MIXED), ("longrope", LONG))
  def test_packed_texts_compute_what_they_compute_alone(self, config):
    model, params = start(config)
    rng = np.random.default_rng(0)
    long = rng.integers(0, 23, (1, 11)).astype(np.int32)  # beyond the context
    short = rng.integers(0, 23, (1, 5)).astype(np.int32)
    apply = jax.jit(model.apply)
    alone = [apply(params, x, x >= 0).logits for x in (long, short)]
    packed = np.concatenate([long, short], axis=1)
    numbers = np.repeat([4, 9], [11, 5])[None].astype(np.int32)
    together = apply(params, packed, packed >= 0, segment_ids=numbers).logits
    np.testing.assert_allclose(
      together, np.concatenate(alone, axis=1), atol=2e-5
    )

  def test_longrope_goes_by_the_length_of_each_text(self):
    model, params = start(LONG)
    tokens = np.arange(1, 13, dtype=np.int32)[None] % 23
    mask = tokens > 0
    apply = jax.jit(model.apply)
    whole = apply(params, tokens, mask).logits
    within = apply(params, tokens[:, :8], mask[:, :8]).logits
    # Beyond the context every token is turned by the other numbers.
    self.assertGreater(float(jnp.abs(whole[:, 7] - within[:, 7]).max()), 1e-3)
    stretched = dataclasses.replace(
      LONG, rope_theta=1e4, rope_scaling=None, max_positions=32
    )
    plain = models.model_of(stretched).apply(params, tokens, mask).logits
    self.assertGreater(float(jnp.abs(whole - plain).max()), 1e-3)
    with self.assertRaisesRegex(ValueError, "original_max_positions = 8"):
      models.generate(
        LONG,
        params,
        tokens[:, :6],
        mask[:, :6],
        keys=jax.random.split(jax.random.key(0), 1),
        max_new_tokens=3,
        pad_id=0,
      )

  def test_recomputing_layers_changes_no_gradient(self):
    self.enter_context(jax.enable_x64(True))
    config = dataclasses.replace(MIXED, num_outputs=1, **WIDE)
    _, params = start(config)
    tokens, mask = rows()

    def gradient(**changes):
      apply = models.model_of(dataclasses.replace(config, **changes)).apply
      loss = lambda p: jnp.sum(jnp.sin(apply(p, tokens, mask).rewards))
      return jax.jit(jax.grad(loss))(params)

    plain = gradient()
    for leaf in jax.tree.leaves(plain):
      self.assertGreater(float(jnp.abs(leaf).max()), 0.0)
    for changes in (dict(remat="full"), dict(remat="dots", unroll=4)):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12, rtol=1e-9),
        gradient(**changes),
        plain,
      )

  def test_splash_has_the_kernel_of_each_kind(self):
    self.enter_context(
      absltest.mock.patch.object(splash_attention, "INTERPRET", True)
    )
    config = dataclasses.replace(MIXED, num_outputs=1, head_dim=8)
    dense, params = start(config)
    tokens, mask = rows()
    mask[:] = True
    splash = models.model_of(dataclasses.replace(config, attention="splash"))
    np.testing.assert_allclose(
      splash.apply(params, tokens, mask).rewards,
      dense.apply(params, tokens, mask).rewards,
      atol=1e-4,
    )


if __name__ == "__main__":
  absltest.main()
