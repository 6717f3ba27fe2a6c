"""The model section: one origin, and sizes that fit the data."""

import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data import tokens
from jaxalign.experiments import backbone
from jaxalign.models import heads, weights
from jaxalign.runtime import mesh as meshes


def config(**changes) -> backbone.BackboneConfig:
  base = {
    "init_from": None,
    "architecture": backbone.Architecture("llama", 1, 2, 2, 16, 32),
    "dropout": 0.0,
    "dtype": "float32",
    "remat": "none",
    "unroll": 1,
  }
  return backbone.BackboneConfig(**base | changes)


def network(made, max_length=16, num_outputs=1):
  return backbone.decoder_config(
    made,
    tokens.byte_tokenizer(),
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
  @parameterized.parameters("llama", "gpt2")
  def test_from_scratch(self, family):
    made = config(
      architecture=backbone.Architecture(family, 2, 4, 4, 16, 32),
      dropout=0.1,
      remat="full",
    )
    described = network(made)
    self.assertEqual(
      (described.family, described.num_layers, described.vocab_size),
      (family, 2, 259),
    )
    self.assertEqual((described.dropout, described.remat), (0.1, "full"))

  def test_exactly_one_origin(self):
    for changes in ({"init_from": "x"}, {"architecture": None}):
      with self.assertRaisesRegex(ValueError, "exactly one of init_from and"):
        config(**changes)

  def test_from_a_folder_body_is_read_and_head_is_new(self):
    described = network(config())
    folder = tempfile.mkdtemp()
    saved = parameters(config(), described)
    weights.save_pretrained(folder, saved, described)
    again = config(init_from=folder, architecture=None, dropout=0.2)
    loaded_config = network(again)
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
