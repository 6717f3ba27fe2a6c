"""Equal to torch transformers, read and written, padded on either side."""

import pathlib
import tempfile

import jax
import numpy as np
import pytest
from absl.testing import absltest, parameterized

from jaxalign import models

torch = pytest.importorskip("torch", reason="parity needs torch")
transformers = pytest.importorskip("transformers", reason="parity needs it")

VOCAB = 61
PAD = 0
LLAMA = dict(
  vocab_size=VOCAB,
  hidden_size=16,
  intermediate_size=24,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=64,
  pad_token_id=PAD,
  bos_token_id=1,
  eos_token_id=2,
)
GPT2 = dict(
  vocab_size=VOCAB,
  n_embd=16,
  n_layer=2,
  n_head=4,
  n_positions=32,
  bos_token_id=1,
  eos_token_id=2,
  pad_token_id=PAD,
)
NEOX = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
OPT = {k: v for k, v in NEOX.items() if k != "intermediate_size"}
GEMMA = LLAMA | dict(head_dim=6, query_pre_attn_scalar=5, sliding_window=5)
# Name of the family -> (prefix of the classes of transformers, fields).
BASES = {
  "llama": ("Llama", LLAMA),
  "gpt2": ("GPT2", GPT2),
  "gpt_neox": ("GPTNeoX", NEOX),
  "opt": ("OPT", OPT | dict(ffn_dim=24)),
  "mistral": ("Mistral", LLAMA),
  "qwen2": ("Qwen2", LLAMA),
  "qwen3": ("Qwen3", LLAMA | dict(head_dim=6)),
  "gemma2": ("Gemma2", GEMMA),
  "gemma3_text": ("Gemma3Text", GEMMA | dict(num_hidden_layers=3)),
  "phi3": ("Phi3", LLAMA),
  "smollm3": ("SmolLM3", LLAMA | dict(num_hidden_layers=4)),
  "olmo2": ("Olmo2", LLAMA),
}
LLAMA3_ROPE = dict(
  rope_type="llama3",
  rope_theta=500.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)
FROM_SCRATCH = {
  "gpt2": dict(activation="gelu"),
  "gpt_neox": dict(
    rotary_fraction=0.5, qkv_bias=True, out_bias=True, activation="gelu"
  ),
  "opt": dict(qkv_bias=True, out_bias=True, mlp_bias=True, activation="relu"),
  "mistral": dict(num_kv_heads=2, sliding_window=4),
  "qwen3": dict(num_kv_heads=1),
  "gemma2": dict(sliding_window=4, attention_cap=3.0, logit_cap=2.0),
  "gemma3_text": dict(
    sliding_window=4,
    window_layers=(True, False),
    local_rope_theta=100.0,
    activation="gelu_tanh",
  ),
  "phi3": dict(num_kv_heads=2),
  "smollm3": dict(rotary_layers=(True, False)),
}
YARN_ROPE = dict(
  rope_type="yarn",
  rope_theta=500.0,
  factor=4.0,
  original_max_position_embeddings=16,
  beta_fast=4.0,
)
LINEAR_ROPE = dict(rope_type="linear", rope_theta=500.0, factor=2.0)
DYNAMIC_ROPE = dict(rope_type="dynamic", rope_theta=500.0, factor=2.0)
LONG_ROPE = dict(
  rope_type="longrope",
  rope_theta=500.0,
  short_factor=[1.0, 1.5],
  long_factor=[2.0, 5.0],
)
GEMMA3_ROPE = dict(
  full_attention=LINEAR_ROPE,
  sliding_attention=dict(rope_type="default", rope_theta=50.0),
)


def build(family, fields):
  """A torch model with every parameter random, biases and norms included.

  With `num_labels` among the fields it is a classifier.
  """
  prefix, base = BASES[family]
  config = getattr(transformers, f"{prefix}Config")(**base | fields)
  if family == "gemma3_text" and "num_labels" not in fields:
    prefix = "Gemma3"
  language = "LMHeadModel" if family == "gpt2" else "ForCausalLM"
  suffix = "ForSequenceClassification" if "num_labels" in fields else language
  model = getattr(transformers, f"{prefix}{suffix}")(config).eval()
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(torch.randn_like(parameter) * 0.2)
  return model


def padded():
  """Token rows with no, right, left and two-sided padding."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, VOCAB, (4, 24)).astype(np.int32)
  mask = np.ones(tokens.shape, bool)
  mask[1, 15:] = mask[2, :9] = mask[3, :3] = mask[3, 20:] = False
  return np.where(mask, tokens, PAD), mask


def torch_outputs(model, tokens, mask):
  """Logits, and the hidden states that the head reads."""
  positions = np.maximum(mask.cumsum(-1) - 1, 0)
  with torch.no_grad():
    out = model(
      input_ids=torch.tensor(tokens).long(),
      attention_mask=torch.tensor(mask).long(),
      position_ids=torch.tensor(positions),
      output_hidden_states=True,
    )
  return out.logits.numpy(), out.hidden_states[-1].numpy()


def auto(folder, config):
  name = "CausalLM" if config.num_outputs is None else "SequenceClassification"
  return (
    getattr(transformers, f"AutoModelFor{name}").from_pretrained(folder).eval()
  )


def ours(config):
  load = models.load_causal_lm
  return load if config.num_outputs is None else models.load_reward_model


class ParityTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())
    self.back = str(pathlib.Path(self.folder, "back"))
    self.tokens, self.mask = padded()

  def assert_close(self, config, got, expected):
    if config.num_outputs is None:
      got, expected = np.asarray(got)[self.mask], expected[self.mask]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)

  @parameterized.named_parameters(
    ("llama_gqa_biases", "llama", dict(attention_bias=True, mlp_bias=True)),
    ("llama_tied", "llama", dict(tie_word_embeddings=True)),
    ("llama_long_context", "llama", dict(rope_parameters=LLAMA3_ROPE)),
    ("llama_wide_heads", "llama", dict(head_dim=6, num_labels=1)),
    ("llama_two_outputs", "llama", dict(rms_norm_eps=1e-3, num_labels=2)),
    ("gpt2", "gpt2", dict(activation_function="gelu_new")),
    ("gpt2_untied", "gpt2", dict(tie_word_embeddings=False, n_inner=24)),
    ("gpt2_three_outputs", "gpt2", dict(num_labels=3)),
    ("neox", "gpt_neox", dict(rotary_pct=0.5)),
    ("neox_all_of_a_head", "gpt_neox", dict(rotary_pct=1.0, num_labels=1)),
    (
      "neox_sequential_tied",
      "gpt_neox",
      dict(
        rotary_pct=0.5, use_parallel_residual=False, tie_word_embeddings=True
      ),
    ),
    (
      "neox_without_biases",
      "gpt_neox",
      dict(attention_bias=False, rotary_pct=0.5),
    ),
    (
      "neox_linear_rope",
      "gpt_neox",
      dict(rope_parameters=LINEAR_ROPE | dict(partial_rotary_factor=0.5)),
    ),
    ("opt", "opt", dict()),
    ("opt_untied", "opt", dict(tie_word_embeddings=False)),
    ("opt_score", "opt", dict(num_labels=1, activation_function="gelu")),
    ("mistral_window", "mistral", dict(sliding_window=5)),
    ("mistral", "mistral", dict(sliding_window=None, head_dim=6)),
    ("mistral_score", "mistral", dict(num_labels=1)),
    ("qwen2", "qwen2", dict(rope_parameters=LLAMA3_ROPE)),
    ("qwen2_yarn", "qwen2", dict(rope_parameters=YARN_ROPE)),
    (
      "qwen3_yarn_scaled",
      "qwen3",
      dict(
        rope_parameters=YARN_ROPE | dict(attention_factor=1.3, truncate=False)
      ),
    ),
    (
      "llama_dynamic",
      "llama",
      dict(rope_parameters=DYNAMIC_ROPE),
    ),
    ("qwen2_tied", "qwen2", dict(tie_word_embeddings=True)),
    ("qwen2_score", "qwen2", dict(num_labels=2)),
    ("qwen3", "qwen3", dict(rope_parameters=LINEAR_ROPE)),
    (
      "qwen3_tied",
      "qwen3",
      dict(attention_bias=True, tie_word_embeddings=True),
    ),
    ("qwen3_score", "qwen3", dict(num_labels=1)),
    ("gemma2", "gemma2", dict()),
    (
      "gemma2_without_caps",
      "gemma2",
      dict(attn_logit_softcapping=None, final_logit_softcapping=None),
    ),
    (
      "gemma2_one_window",
      "gemma2",
      dict(
        layer_types=["sliding_attention"] * 2,
        tie_word_embeddings=False,
        attn_logit_softcapping=1.5,
        final_logit_softcapping=2.0,
        attention_bias=True,
      ),
    ),
    ("gemma2_score", "gemma2", dict(num_labels=2)),
    ("gemma3", "gemma3_text", dict(sliding_window_pattern=3)),
    (
      "gemma3_linear_rope",
      "gemma3_text",
      dict(
        rope_parameters=GEMMA3_ROPE,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        final_logit_softcapping=2.0,
      ),
    ),
    (
      "gemma3_without_window",
      "gemma3_text",
      dict(layer_types=["full_attention"] * 3, rope_parameters=GEMMA3_ROPE),
    ),
    ("gemma3_score", "gemma3_text", dict(num_labels=1)),
    ("phi3", "phi3", dict(tie_word_embeddings=True, sliding_window=5)),
    (
      "phi3_part_of_a_head",
      "phi3",
      dict(
        num_attention_heads=2,
        rope_parameters=dict(
          rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5
        ),
      ),
    ),
    (
      "phi3_short_texts",
      "phi3",
      dict(
        rope_parameters=dict(LONG_ROPE), original_max_position_embeddings=32
      ),
    ),
    ("phi3_score", "phi3", dict(num_labels=1)),
    ("smollm3", "smollm3", dict()),
    (
      "smollm3_untied",
      "smollm3",
      dict(
        tie_word_embeddings=False,
        no_rope_layers=[0, 1, 0, 1],
        attention_bias=True,
        mlp_bias=True,
      ),
    ),
    ("smollm3_score", "smollm3", dict(num_labels=1)),
    ("olmo2", "olmo2", dict(attention_bias=True)),
    ("olmo2_yarn", "olmo2", dict(rope_parameters=YARN_ROPE)),
    ("olmo2_score", "olmo2", dict(num_labels=3)),
  )
  def test_there_and_back(self, family, fields):
    torch_model = build(family, fields)
    expected, states = torch_outputs(torch_model, self.tokens, self.mask)
    # Shards small enough that the index is used.
    torch_model.save_pretrained(self.folder, max_shard_size="6KB")
    config = models.load_config(self.folder)
    self.assertEqual(config.family, family)
    apply, params, config = ours(config)(self.folder)
    out = jax.jit(models.model_of(config).apply)(params, self.tokens, self.mask)
    got = apply(params, self.tokens, self.mask)
    self.assert_close(config, got, expected)
    if config.num_outputs is None:
      self.assert_close(config, out.logits, expected)
      self.assert_close(config, out.hidden, states)
    else:
      self.assert_close(config, out.rewards, expected)
      last = np.max(np.where(self.mask, np.arange(24), 0), axis=-1)
      pooled = states[np.arange(4), last]
      self.assert_close(config, out.features, pooled)

    models.save_pretrained(self.back, params, config)
    self.assertEqual(models.load_config(self.back), config)
    again, _ = torch_outputs(auto(self.back, config), self.tokens, self.mask)
    np.testing.assert_array_equal(again, expected)

  @parameterized.parameters("phi3", "llama")
  def test_longrope_by_the_length_of_each_text(self, family):
    # transformers goes by the longest text of a batch: one text at a time.
    rope = dict(LONG_ROPE, original_max_position_embeddings=16)
    fields = dict(rope_parameters=rope)
    if family == "phi3":
      fields |= dict(original_max_position_embeddings=16)
    torch_model = build(family, fields)
    torch_model.save_pretrained(self.folder)
    apply, params, config = models.load_causal_lm(self.folder)
    got = apply(params, self.tokens, self.mask)
    lengths = self.mask.sum(1)
    self.assertGreater(lengths.max(), 16)
    self.assertLess(lengths.min(), 16)
    for row in range(4):
      text = self.tokens[row : row + 1, self.mask[row]]
      expected, _ = torch_outputs(torch_model, text, text >= 0)
      np.testing.assert_allclose(
        got[row, self.mask[row]], expected[0], atol=1e-5, rtol=1e-5
      )

  @parameterized.parameters(*BASES)
  def test_a_model_from_scratch_loads_in_torch(self, family):
    config = models.scratch_config(
      family,
      vocab_size=VOCAB,
      num_layers=2,
      num_heads=4,
      embed_dim=16,
      mlp_dim=24,
      max_positions=32,
      dropout=0.1,
      num_outputs=2,
      pad_id=PAD,
      **FROM_SCRATCH.get(family, {}),
    )
    model = models.reward_model(config)
    params = model.init(jax.random.key(0), self.tokens, self.mask)
    models.save_pretrained(self.folder, params, config)
    torch_model = auto(self.folder, config)
    expected, _ = torch_outputs(torch_model, self.tokens, self.mask)
    got = jax.jit(model.apply)(params, self.tokens, self.mask).rewards
    self.assert_close(config, got, expected)
    self.assertEqual(models.load_config(self.folder), config)


if __name__ == "__main__":
  absltest.main()
