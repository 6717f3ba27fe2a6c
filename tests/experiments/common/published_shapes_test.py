"""Published sizes against the parameter counts that their names give."""

import dataclasses

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import published_shapes
from jaxalign.models import heads

# Parameters in billions, as published with each model.
BILLIONS = {
  "gpt2": 0.124,
  "llama-7b": 6.74,
  "llama-2-7b": 6.74,
  "llama-2-13b": 13.02,
  "llama-2-70b": 68.98,
  "opt-2.7b": 2.65,
  "opt-6.7b": 6.66,
  "pythia-1.4b": 1.41,
  "pythia-2.8b": 2.78,
  "qwen3-8b": 8.19,
}


class PublishedShapesTest(parameterized.TestCase):
  def test_every_shape_is_here(self):
    self.assertEqual({*BILLIONS} | {"tiny"}, {*published_shapes.SHAPES})

  @parameterized.parameters(*BILLIONS)
  def test_as_many_parameters_as_published(self, name):
    config = backbone.BackboneConfig(init_from="nowhere", shape=name)
    self.assertIsNone(config.init_from)
    made = config.architecture
    network = backbone.config_map.scratch_config(
      made.family,
      vocab_size=made.vocab_size,
      max_positions=2048 if made.family in ("opt",) else 1024,
      **{
        field: getattr(made, field)
        for field in (
          "num_layers",
          "num_heads",
          "num_kv_heads",
          "embed_dim",
          "mlp_dim",
        )
      },
      # Pythia's head is its own, too.
      tie_embeddings=made.tie_embeddings and made.family != "gpt_neox",
    )
    shapes = backbone.abstract_params(heads.causal_lm(network))
    number = sum(np.prod(x.shape, dtype=float) for x in jax.tree.leaves(shapes))
    self.assertAlmostEqual(number / 1e9 / BILLIONS[name], 1.0, delta=0.01)

  def test_an_unknown_shape_is_named(self):
    with self.assertRaisesRegex(
      ValueError, "shape must be one of gpt2.*'gpt5'"
    ):
      backbone.BackboneConfig(shape="gpt5")
    again = dataclasses.replace(backbone.BackboneConfig(shape="gpt2"), unroll=2)
    self.assertEqual(again.architecture.num_layers, 12)


if __name__ == "__main__":
  absltest.main()
