"""From parameters to tensors: paths, layers, and what lies side by side."""

import jax
from absl.testing import absltest

from jaxalign.models import heads
from jaxalign.models.hf import param_map
from tests.models.hf import families_test


class LayoutTest(absltest.TestCase):
  def test_shapes_are_those_that_init_makes(self):
    config = families_test.tiny("llama", num_outputs=1)
    tokens = jax.numpy.zeros((1, 1), jax.numpy.int32)
    made = heads.reward_model(config).init(
      jax.random.key(0), tokens, tokens == 0
    )
    self.assertEqual(
      jax.tree.map(lambda x: (x.shape, x.dtype), made),
      jax.tree.map(
        lambda x: (x.shape, x.dtype), param_map.abstract_params(config)
      ),
    )

  def test_layered_parameters_have_a_tensor_per_layer(self):
    parts = param_map.parts(families_test.tiny("gpt2"))
    layered = [part for part in parts.values() if part.layered]
    self.assertNotEmpty(layered)
    for part in layered:
      self.assertLen(set(part.names()), 2)

  def test_fused_projections_fill_their_tensor(self):
    parts = param_map.parts(families_test.tiny("gpt2"))
    fused = [
      p for p in parts.values() if p.row.theirs.endswith("c_attn.weight")
    ]
    self.assertLen(fused, 3)
    self.assertEqual(sorted(part.start for part in fused), [0, 8, 16])

  def test_flat_names_are_paths(self):
    self.assertEqual(
      param_map.flat({"a": {"b": 1}, "c": 2}), {"a/b": 1, "c": 2}
    )


if __name__ == "__main__":
  absltest.main()
