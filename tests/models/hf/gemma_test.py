"""What the configs of Gemma 2 and Gemma 3 say, and may not say."""

from absl.testing import absltest, parameterized

from jaxalign.models.hf import config_map

SIZES = {
  "vocab_size": 32,
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 6,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 8,
}
GEMMA2 = SIZES | {
  "model_type": "gemma2",
  "architectures": ["Gemma2ForCausalLM"],
}
GEMMA3 = SIZES | {
  "model_type": "gemma3_text",
  "architectures": ["Gemma3ForCausalLM"],
}
SCALED = {"rope_type": "linear", "factor": 8.0}
LOCAL = {"rope_type": "default", "rope_theta": 300.0}


def read(theirs, **changes):
  return config_map.from_json({**theirs, **changes}, "config.json")


class GemmaTest(parameterized.TestCase):
  def test_what_is_not_said_is_what_transformers_fills_in(self):
    config = read(GEMMA2)
    self.assertEqual(config.sliding_window, 4096)
    self.assertEqual(config.window_layers, (True, False) * 3)
    self.assertEqual((config.attention_cap, config.logit_cap), (50.0, 30.0))
    self.assertEqual(config.attention_width, 256)
    self.assertEqual(config.activation, "gelu_tanh")
    self.assertTrue(config.tie_embeddings and config.scale_embeddings)
    config = read(GEMMA3, sliding_window=512)
    self.assertEqual(config.window_layers, (True,) * 5 + (False,))
    self.assertEqual((config.rope_theta, config.local_rope_theta), (1e6, 1e4))
    self.assertIsNone(config.attention_cap)
    self.assertTrue(config.qk_norm)

  def test_null_is_no_cap(self):
    config = read(
      GEMMA2, attn_logit_softcapping=None, final_logit_softcapping=None
    )
    self.assertIsNone(config.attention_cap)
    self.assertIsNone(config.logit_cap)

  def test_older_files_of_gemma3_say_the_same(self):
    older = read(
      GEMMA3,
      rope_theta=900.0,
      rope_local_base_freq=300.0,
      rope_scaling=SCALED,
      sliding_window_pattern=3,
    )
    newer = read(
      GEMMA3,
      layer_types=["sliding_attention"] * 2
      + ["full_attention"]
      + ["sliding_attention"] * 2
      + ["full_attention"],
      rope_parameters={
        "full_attention": SCALED | {"rope_theta": 900.0},
        "sliding_attention": LOCAL,
      },
    )
    self.assertEqual(older, newer)
    self.assertEqual(older.rope_scaling.factor, 8.0)
    self.assertEqual(older.local_rope_theta, 300.0)

  def test_one_rotation_for_all_layers_is_kept(self):
    both = dict.fromkeys(("full_attention", "sliding_attention"), SCALED)
    config = read(GEMMA3, rope_parameters=both)
    self.assertIsNone(config.local_rope_theta)
    self.assertEqual(
      config_map.from_json(config_map.to_json(config), "back"), config
    )

  def test_a_model_without_windows_still_names_one(self):
    config = config_map.scratch_config(
      "gemma2",
      vocab_size=8,
      num_layers=2,
      num_heads=2,
      embed_dim=8,
      mlp_dim=8,
      max_positions=16,
      pad_id=0,
    )
    theirs = config_map.to_json(config)
    self.assertEqual(theirs["layer_types"], ["full_attention"] * 2)
    self.assertEqual(theirs["sliding_window"], 16)
    self.assertEqual(theirs["query_pre_attn_scalar"], 4)
    self.assertEqual(config_map.from_json(theirs, "config.json"), config)

  @parameterized.parameters(
    (GEMMA2, dict(use_bidirectional_attention=True), "use_bidirectional_att"),
    (GEMMA3, dict(attn_logit_softcapping=50.0), "attn_logit_softcapping must"),
    (GEMMA2, dict(layer_types="full_attention"), "must be a list of sliding"),
    (GEMMA2, dict(layer_types=["full_attention", "no"]), "must be a list of"),
    (GEMMA2, dict(layer_types=["full_attention"] * 5), "num_layers = 6 bools"),
    (GEMMA3, dict(rope_parameters=LOCAL), "must hold full_attention and"),
    (
      GEMMA3,
      dict(rope_parameters={"sliding_attention": SCALED}),
      "rope_parameters.sliding_attention must hold rope_theta alone",
    ),
    (GEMMA3, dict(num_hidden_layers="6"), "num_hidden_layers is '6'"),
  )
  def test_errors_name_the_field(self, base, changes, regex):
    with self.assertRaisesRegex(ValueError, f"config.json: .*{regex}"):
      read(base, **changes)


if __name__ == "__main__":
  absltest.main()
