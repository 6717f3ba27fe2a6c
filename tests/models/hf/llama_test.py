"""What the configs of Mistral and Qwen files say, and may not say."""

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
    (QWEN2, dict(quantization_config={"bits": 4}), "quantization_config"),
  )
  def test_errors_name_the_field(self, base, changes, regex):
    with self.assertRaisesRegex(ValueError, f"config.json: .*{regex}"):
      read(base, **changes)


if __name__ == "__main__":
  absltest.main()
