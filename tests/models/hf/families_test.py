"""Every family's table covers its parameters, once and under one name."""

from absl.testing import absltest, parameterized

from jaxalign.models.hf import config_map, param_map
from jaxalign.models.hf.config_map import FAMILIES


def tiny(family: str, **changes):
  fields = {
    "vocab_size": 12,
    "num_layers": 2,
    "num_heads": 2,
    "embed_dim": 8,
    "mlp_dim": 16,
    "max_positions": 4,
    "tie_embeddings": True,
    "pad_id": 0,
  }
  if family == "opt":  # one field of theirs says all three
    fields |= {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
  return config_map.scratch_config(family, **fields | changes)


class FamiliesTest(parameterized.TestCase):
  @parameterized.product(family=sorted(FAMILIES), num_outputs=(None, 3))
  def test_every_parameter_has_one_place(self, family, num_outputs):
    parts = param_map.parts(tiny(family, num_outputs=num_outputs))
    places = [
      (name, part.start) for part in parts.values() for name in part.names()
    ]
    self.assertLen(set(places), len(places))
    shapes = param_map.flat(param_map.abstract_params(tiny(family)))
    self.assertContainsSubset(
      {name for name in shapes if name.startswith("layers/")}, parts
    )

  @parameterized.parameters(*sorted(FAMILIES))
  def test_a_config_comes_back_from_its_json(self, family):
    config = tiny(family, num_outputs=2)
    theirs = config_map.to_json(config)
    self.assertEqual(theirs["model_type"], family)
    self.assertEqual(theirs["architectures"], [FAMILIES[family].reward])
    self.assertEqual(config_map.from_json(theirs, "config.json"), config)


if __name__ == "__main__":
  absltest.main()
