"""The model section: one origin, and sizes that fit the data."""

import dataclasses
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.common import model as backbone
from jaxalign.models import heads
from jaxalign.models.hf import weights
from jaxalign.runtime.distributed import mesh as meshes


def shape(family="llama", num_layers=1, num_heads=2, **changes):
  return backbone.Architecture(
    family=family,
    num_layers=num_layers,
    num_heads=num_heads,
    embed_dim=16,
    mlp_dim=32,
    **changes,
  )


def config(**changes) -> backbone.BackboneConfig:
  base = {
    "init_from": None,
    "architecture": shape(),
    "dropout": 0.0,
    "dtype": "float32",
    "remat": "none",
    "unroll": 1,
  }
  return backbone.BackboneConfig(**base | changes)


def network(made, max_length=16, num_outputs=1):
  return backbone.decoder_config(
    made,
    tokenizer_files.byte_tokenizer(),
    max_length=max_length,
    num_outputs=num_outputs,
  )


def parameters(made, described):
  model = heads.reward_model(described)
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1))
  shardings = meshes.parameter_shardings(
    model.axes, backbone.abstract_params(model), mesh
  )
  return backbone.initial_params(
    made, described, model, jax.random.key(0), shardings
  )


class BackboneTest(parameterized.TestCase):
  def test_what_is_drawn_alike_is_drawn_by_one_program(self):
    made = config(architecture=shape("gpt2", 1, 2))
    first = parameters(made, network(made))
    with mock.patch.object(jax, "jit") as jit:
      again = parameters(made, network(made))
    jit.assert_not_called()
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = parameters(made, network(made, num_outputs=2))
    kernels = (tree["score"]["kernel"].shape for tree in (first, other))
    self.assertEqual([*kernels], [(16, 1), (16, 2)])

  @parameterized.parameters("llama", "gpt2")
  def test_from_scratch(self, family):
    made = config(
      architecture=shape(family, 2, 4),
      dropout=0.1,
      remat="full",
    )
    described = network(made)
    self.assertEqual(
      (described.family, described.num_layers, described.vocab_size),
      (family, 2, 259),
    )
    self.assertEqual((described.dropout, described.remat), (0.1, "full"))

  @parameterized.parameters(
    ("llama", 32000, dict(activation="silu", norm="rms", qkv_bias=False)),
    ("gpt2", 50257, dict(activation="gelu_tanh", positions="learned")),
    (
      "gpt_neox",
      50304,
      dict(rotary_fraction=0.25, parallel_residual=True, activation="gelu"),
    ),
    ("opt", 50272, dict(activation="relu", position_offset=2, mlp_bias=True)),
  )
  def test_a_published_shape_without_its_files(self, family, size, expected):
    made = config(
      architecture=shape(family, 2, vocab_size=size, tie_embeddings=False)
    )
    described = network(made)
    got = {name: getattr(described, name) for name in expected}
    self.assertEqual(got, expected)
    self.assertEqual(described.norm_eps, 1e-5)
    self.assertFalse(described.tie_embeddings)
    shapes = backbone.abstract_params(heads.reward_model(described))
    self.assertEqual(shapes["embed"]["tokens"].shape, (size, 16))

  @parameterized.parameters("llama", "qwen3", "gemma2")
  def test_a_head_is_as_wide_as_its_share_unless_the_config_says_else(
    self, family
  ):
    described = network(config(architecture=shape(family)))
    self.assertEqual(described.head_dim, 8)
    described = network(config(architecture=shape(family, head_dim=32)))
    self.assertEqual(described.head_dim, 32)

  def test_as_many_key_heads_as_query_heads_unless_the_config_says_else(self):
    self.assertEqual(shape(num_heads=4).num_kv_heads, 4)
    self.assertEqual(shape(num_heads=4, num_kv_heads=2).num_kv_heads, 2)

  def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(self):
    made = config(architecture=shape(vocab_size=258))
    with self.assertRaisesRegex(ValueError, "has 259 tokens.*embeds 258"):
      network(made)

  def test_a_folder_keeps_all_the_ends_of_its_answers(self):
    folder = tempfile.mkdtemp()
    made = config()
    described = dataclasses.replace(network(made), eos_id=(0, 258))
    weights.save_pretrained(folder, parameters(made, described), described)
    again = network(config(init_from=folder, architecture=None))
    self.assertEqual(again.eos_id, (258, 0))
    self.assertEqual(network(made).eos_id, 258)

  def test_some_origin_and_a_folder_wins(self):
    with self.assertRaisesRegex(ValueError, "init_from or architecture must"):
      config(architecture=None)
    self.assertIsNone(config(init_from="x").architecture)

  def test_no_more_layers_are_unrolled_than_there_are(self):
    self.assertEqual(network(config(unroll=9)).unroll, 1)

  def test_from_a_folder_body_is_read_and_head_is_new(self):
    described = network(config())
    folder = tempfile.mkdtemp()
    saved = parameters(config(), described)
    weights.save_pretrained(folder, saved, described)
    again = config(init_from=folder, dropout=0.2, unroll=9)
    loaded_config = network(again)
    self.assertEqual(loaded_config.unroll, 1)
    self.assertEqual(loaded_config.dropout, 0.2)
    loaded = parameters(again, loaded_config)
    jax.tree.map(np.testing.assert_array_equal, loaded, saved)

  @parameterized.parameters(
    ({"max_length": 17}, "max_length 17 exceeds the 16 positions"),
  )
  def test_what_does_not_fit_the_folder(self, changes, message):
    described = network(config())
    folder = tempfile.mkdtemp()
    saved = parameters(config(), described)
    weights.save_pretrained(folder, saved, described)
    with self.assertRaisesRegex(ValueError, message):
      network(config(init_from=folder, architecture=None), **changes)


if __name__ == "__main__":
  absltest.main()
