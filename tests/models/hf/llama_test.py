"""What configs of Mistral, Qwen, Phi-3, SmolLM3 and OLMo 2 may say."""

from absl.testing import absltest, parameterized

from jaxalign.models.hf import config_map, llama

SIZES = {
  "vocab_size": 32,
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
}
MISTRAL = SIZES | {
  "model_type": "mistral",
  "architectures": ["MistralForCausalLM"],
}
QWEN2 = SIZES | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = SIZES | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
PHI3 = SIZES | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
SMOLLM3 = SIZES | {
  "model_type": "smollm3",
  "architectures": ["SmolLM3ForCausalLM"],
  "num_hidden_layers": 4,
}
OLMO2 = SIZES | {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]}
LONG = {"type": "su", "short_factor": [1.0, 2], "long_factor": [3.0, 4.5]}
WINDOW = {
  "use_sliding_window": False,
  "sliding_window": 4096,
  "max_window_layers": 28,
}


def read(theirs, **changes):
  return config_map.from_json({**theirs, **changes}, "config.json")


class LlamaFamiliesTest(parameterized.TestCase):
  def test_mistral_has_a_window_where_it_says_so(self):
    self.assertEqual(read(MISTRAL, sliding_window=4096).sliding_window, 4096)
    self.assertIsNone(read(MISTRAL, sliding_window=None).sliding_window)

  def test_qwen_has_biases_or_norms_on_queries_and_keys(self):
    config = read(QWEN2, **WINDOW, layer_types=["full_attention"] * 2)
    self.assertTrue(config.qkv_bias)
    self.assertFalse(config.out_bias or config.qk_norm)
    config = read(QWEN3, **WINDOW)
    self.assertTrue(config.qk_norm)
    self.assertFalse(config.qkv_bias)
    self.assertEqual(config.head_dim, 128)
    self.assertIsNone(config.sliding_window)

  def test_phi3_has_its_original_context_beside_the_scaling(self):
    config = read(PHI3, rope_scaling=LONG, max_position_embeddings=65_536)
    self.assertEqual(config.rope_scaling.kind, "longrope")
    self.assertEqual(config.rope_scaling.factor, 16.0)
    self.assertEqual(config.rope_scaling.short_factor, (1.0, 2))
    inner = LONG | {"original_max_position_embeddings": 7}
    config = read(
      PHI3, rope_scaling=inner, original_max_position_embeddings=4096
    )
    self.assertEqual(config.rope_scaling.original_max_positions, 4096)
    self.assertEqual(config.rope_scaling.factor, 1.0)
    half = {"rope_type": "default", "partial_rotary_factor": 0.5}
    self.assertEqual(read(PHI3, rope_parameters=half).rotary_fraction, 0.5)

  def test_smollm3_leaves_every_fourth_layer_without_a_rotation(self):
    config = read(SMOLLM3)
    self.assertEqual(config.rotary_layers, (True, True, True, False))
    self.assertEqual(config.rope_theta, 2e6)
    self.assertTrue(config.tie_embeddings)
    config = read(SMOLLM3, no_rope_layer_interval=2)
    self.assertEqual(config.rotary_layers, (True, False, True, False))
    config = read(SMOLLM3, no_rope_layers=[1, 1, 1, 1])
    self.assertIsNone(config.rotary_layers)
    theirs = config_map.to_json(config)
    self.assertEqual(theirs["no_rope_layers"], [1, 1, 1, 1])

  def test_olmo2_has_its_norms_behind(self):
    config = read(OLMO2)
    self.assertEqual(config.norm_places, "after")
    self.assertTrue(config.qk_norm and config.qk_norm_whole)

  def test_tables_share_their_tensors(self):
    for family in (llama.QWEN2, llama.QWEN3):
      self.assertIs(family.tensors, llama.LLAMA.tensors)

  @parameterized.parameters(
    (QWEN2, dict(use_sliding_window=True), "use_sliding_window must be False"),
    (
      QWEN3,
      dict(layer_types=["full_attention", "sliding_attention"]),
      "layer_types must be 'full_attention'",
    ),
    (MISTRAL, dict(attention_bias=True), "unknown field attention_bias = True"),
    (MISTRAL, dict(sliding_window=0), "sliding_window must be >= 1"),
    (QWEN2, dict(num_key_value_heads=None), "num_key_value_heads is missing"),
    (PHI3, dict(rope_scaling={"type": "linear", "factor": 2.0}), "rope_type"),
    (
      PHI3,
      dict(rope_scaling=LONG | {"long_factor": [1.0]}),
      "long_factor must hold a number for each of the 2 pairs",
    ),
    (
      PHI3,
      dict(rope_scaling=LONG | {"long_factor": 3.0}),
      "long_factor must be a list of numbers, got 3.0",
    ),
    (SMOLLM3, dict(no_rope_layers=[1, 2]), "no_rope_layers must be a list of"),
    (SMOLLM3, dict(no_rope_layers=[1]), "rotary_layers must be a tuple of"),
    (SMOLLM3, dict(no_rope_layer_interval="4"), "no_rope_layers is missing"),
    (QWEN2, dict(quantization_config={"bits": 4}), "quantization_config"),
  )
  def test_errors_name_the_field(self, base, changes, regex):
    with self.assertRaisesRegex(ValueError, f"config.json: .*{regex}"):
      read(base, **changes)


if __name__ == "__main__":
  absltest.main()
