"""config.json read strictly: what would change the function has to be known."""

import dataclasses

from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.models.hf import config_map

LLAMA = {
  "model_type": "llama",
  "architectures": ["LlamaForCausalLM"],
  "vocab_size": 32,
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
}
GPT2 = {
  "model_type": "gpt2",
  "architectures": ["GPT2LMHeadModel"],
  "vocab_size": 32,
  "n_embd": 16,
  "n_layer": 2,
  "n_head": 4,
}
LLAMA3 = {
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192,
}


def read(theirs, **changes):
  return config_map.from_json({**theirs, **changes}, "config.json")


class FromJsonTest(parameterized.TestCase):
  def test_defaults_are_those_of_the_family(self):
    llama = read(LLAMA)
    self.assertEqual(llama.num_kv_heads, 4)
    self.assertEqual(llama.head_dim, 4)
    self.assertEqual(llama.norm_eps, 1e-6)
    self.assertEqual(llama.rope_theta, 10_000.0)
    self.assertFalse(llama.tie_embeddings)
    gpt2 = read(GPT2)
    self.assertEqual(gpt2.mlp_dim, 64)
    self.assertEqual(gpt2.activation, "gelu_tanh")
    self.assertEqual(gpt2.dropout, 0.1)
    self.assertTrue(gpt2.tie_embeddings)
    self.assertTrue(gpt2.qkv_bias)

  @parameterized.parameters(
    (dict(rope_theta=5e5), 5e5, None),
    (dict(rope_theta=5e5, rope_scaling=None), 5e5, None),
    (
      dict(rope_parameters={"rope_type": "default", "rope_theta": 7.0}),
      7.0,
      None,
    ),
    (
      dict(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0}),
      5e5,
      models.RopeScaling("linear", 2.0),
    ),
    (
      dict(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **LLAMA3}),
      5e5,
      models.RopeScaling("llama3", 8.0, 1.0, 4.0, 8192),
    ),
  )
  def test_rope_in_its_older_and_newer_place(self, changes, theta, scaling):
    config = read(LLAMA, **changes)
    self.assertEqual(config.rope_theta, theta)
    self.assertEqual(config.rope_scaling, scaling)
    again = config_map.from_json(config_map.to_json(config), "again")
    self.assertEqual(again, config)

  @parameterized.parameters(
    (dict(), None),
    (dict(architectures=["LlamaForSequenceClassification"]), 2),
    (dict(architectures=["LlamaForSequenceClassification"], num_labels=5), 5),
    (
      dict(
        architectures=["LlamaForSequenceClassification"], id2label={"0": "x"}
      ),
      1,
    ),
  )
  def test_number_of_outputs(self, changes, expected):
    self.assertEqual(read(LLAMA, **changes).num_outputs, expected)

  def test_several_end_tokens(self):
    self.assertEqual(read(LLAMA, eos_token_id=[2, 3]).eos_id, (2, 3))

  def test_book_keeping_is_ignored(self):
    changes = dict(use_cache=True, torch_dtype="bfloat16", unheard_of=None)
    self.assertEqual(read(LLAMA, **changes), read(LLAMA))

  @parameterized.parameters(
    (LLAMA, dict(model_type="bert"), "model_type must be one of llama, gpt"),
    (LLAMA, dict(architectures=["LlamaModel"]), "architectures must be"),
    (LLAMA, dict(vocab_size=None), "vocab_size is missing"),
    (LLAMA, dict(sliding_window=512), "unknown field sliding_window = 512"),
    (LLAMA, dict(quantization_config={}), "unknown field quantization_config"),
    (LLAMA, dict(auto_map={"a": "b"}), "unknown field auto_map"),
    (LLAMA, dict(hidden_act="gelu_10"), "hidden_act must be one of"),
    (LLAMA, dict(hidden_size="16"), "embed_dim must be an int, got '16'"),
    (LLAMA, dict(num_key_value_heads=3), "multiple of num_kv_heads"),
    (LLAMA, dict(is_encoder_decoder=True), "is_encoder_decoder must be False"),
    (
      LLAMA,
      dict(rope_scaling={"rope_type": "ntk", "factor": 2.0}),
      "rope_type in rope_scaling must be one of .*'ntk'",
    ),
    (
      LLAMA,
      dict(rope_scaling={"rope_type": "linear", "factor": 2.0, "odd": 1}),
      r"must hold \['factor'\] and .*got \['factor', 'odd'\]",
    ),
    (
      LLAMA,
      dict(rope_theta=1e4, rope_parameters={"rope_theta": 2e4}),
      "rope_theta is 10000.0 and rope_theta in rope_parameters 20000.0",
    ),
    (
      GPT2,
      dict(scale_attn_by_inverse_layer_idx=True),
      "scale_attn_by_inverse_layer_idx must be False",
    ),
    (GPT2, dict(n_head=3), "embed_dim must be a multiple of num_heads"),
  )
  def test_errors_name_the_field(self, base, changes, regex):
    with self.assertRaisesRegex(ValueError, f"config.json: .*{regex}"):
      read(base, **changes)


class ToJsonTest(parameterized.TestCase):
  def test_scratch_config_fills_in_what_the_family_fixes(self):
    sizes = dict(
      vocab_size=32, num_layers=1, num_heads=2, embed_dim=8, mlp_dim=16
    )
    config = models.scratch_config("gpt2", **sizes)
    self.assertEqual((config.norm, config.positions), ("layer", "learned"))
    with self.assertRaisesRegex(ValueError, "family must be one of .*'bert'"):
      models.scratch_config("bert", **sizes)
    with self.assertRaisesRegex(
      ValueError, "norm of family gpt2 must be layer"
    ):
      models.scratch_config("gpt2", norm="rms", **sizes)

  def test_training_starts_without_dropout_if_we_had_none(self):
    written = config_map.to_json(read(GPT2, resid_pdrop=0.0))
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
      self.assertEqual(written[name], 0.0)

  @parameterized.parameters(
    (dict(qkv_bias=True), "qkv_bias and out_bias must be equal"),
    (dict(norm="layer"), "norm of family llama must be rms, got layer"),
    (dict(num_outputs=1), "pad_id must be set to save a reward model"),
    (dict(family="bert"), "family must be one of llama, gpt2, .*got 'bert'"),
  )
  def test_what_a_family_cannot_say_is_refused(self, changes, regex):
    config = dataclasses.replace(read(LLAMA), **changes)
    with self.assertRaisesRegex(ValueError, regex):
      config_map.to_json(config)


if __name__ == "__main__":
  absltest.main()
