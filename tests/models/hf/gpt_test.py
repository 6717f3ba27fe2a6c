"""What the configs of GPT-2, GPT-NeoX and OPT files say, and may not say."""

from absl.testing import absltest, parameterized

from jaxalign.models.hf import config_map, gpt

PYTHIA = {  # as published for the 70M size
  "architectures": ["GPTNeoXForCausalLM"],
  "bos_token_id": 0,
  "eos_token_id": 0,
  "hidden_act": "gelu",
  "hidden_size": 512,
  "initializer_range": 0.02,
  "intermediate_size": 2048,
  "layer_norm_eps": 1e-05,
  "max_position_embeddings": 2048,
  "model_type": "gpt_neox",
  "num_attention_heads": 8,
  "num_hidden_layers": 6,
  "rotary_emb_base": 10000,
  "rotary_pct": 0.25,
  "tie_word_embeddings": False,
  "torch_dtype": "float16",
  "use_cache": True,
  "use_parallel_residual": True,
  "vocab_size": 50304,
}
OPT = {
  "architectures": ["OPTForCausalLM"],
  "model_type": "opt",
  "vocab_size": 50272,
  "hidden_size": 768,
  "word_embed_proj_dim": 768,
  "ffn_dim": 3072,
  "num_hidden_layers": 12,
  "num_attention_heads": 12,
}


def read(theirs, **changes):
  return config_map.from_json({**theirs, **changes}, "config.json")


class GptFamiliesTest(parameterized.TestCase):
  def test_pythia(self):
    config = read(PYTHIA)
    self.assertEqual(config.rotary_dim, 16)
    self.assertTrue(config.parallel_residual)
    self.assertTrue(config.qkv_bias and config.out_bias and config.mlp_bias)
    self.assertFalse(config.tie_embeddings)
    newer = {k: v for k, v in PYTHIA.items() if not k.startswith("rotary")}
    rope = {"rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    self.assertEqual(read(newer, rope_parameters=rope), config)
    # Neither place says it: the share is a quarter.
    self.assertEqual(read(newer), config)

  def test_opt(self):
    config = read(OPT)
    self.assertEqual((config.position_offset, config.norm_eps), (2, 1e-5))
    self.assertEqual(config.activation, "relu")
    self.assertTrue(config.tie_embeddings and config.mlp_bias)

  def test_fused_projections_alternate_in_one_family_only(self):
    alternate = lambda family: [t.theirs for t in family.tensors if t.by_head]
    self.assertLen(alternate(gpt.NEOX), 2)
    self.assertEmpty(alternate(gpt.GPT2))

  @parameterized.parameters(
    (PYTHIA, dict(rotary_pct=0.3), "must be even for rotary"),
    (
      PYTHIA,
      dict(rope_parameters={"partial_rotary_factor": 0.5}),
      "rotary_pct is 0.25 and partial_rotary_factor in rope_parameters 0.5",
    ),
    (PYTHIA, dict(num_key_value_heads=4), "unknown field num_key_value_heads"),
    (OPT, dict(word_embed_proj_dim=512), "word_embed_proj_dim must be 768"),
    (OPT, dict(do_layer_norm_before=False), "do_layer_norm_before must be"),
    (OPT, dict(_remove_final_layer_norm=True), "_remove_final_layer_norm"),
    (OPT, dict(layer_norm_elementwise_affine=False), "layer_norm_element"),
    (OPT, dict(rope_theta=1e4), "unknown field rope_theta"),
  )
  def test_errors_name_the_field(self, base, changes, regex):
    with self.assertRaisesRegex(ValueError, f"config.json: .*{regex}"):
      read(base, **changes)


if __name__ == "__main__":
  absltest.main()
