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
LLAMA3_ROPE = dict(
  rope_type="llama3",
  rope_theta=500.0,
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=16,
)


def build(kind, fields):
  """A torch model with every parameter random, biases and norms included."""
  config_class, model_class = {
    "llama_lm": ("LlamaConfig", "LlamaForCausalLM"),
    "llama_rm": ("LlamaConfig", "LlamaForSequenceClassification"),
    "gpt2_lm": ("GPT2Config", "GPT2LMHeadModel"),
    "gpt2_rm": ("GPT2Config", "GPT2ForSequenceClassification"),
  }[kind]
  config = getattr(transformers, config_class)(**fields)
  model = getattr(transformers, model_class)(config).eval()
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


def torch_logits(model, tokens, mask):
  positions = np.maximum(mask.cumsum(-1) - 1, 0)
  with torch.no_grad():
    return model(
      input_ids=torch.tensor(tokens).long(),
      attention_mask=torch.tensor(mask).long(),
      position_ids=torch.tensor(positions),
    ).logits.numpy()


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

  def assert_close(self, config, got, expected, atol):
    if config.num_outputs is None:
      got, expected = np.asarray(got)[self.mask], expected[self.mask]
    np.testing.assert_allclose(got, expected, atol=atol, rtol=1e-5)

  @parameterized.named_parameters(
    ("llama_gqa_biases", "llama_lm", dict(attention_bias=True, mlp_bias=True)),
    ("llama_tied", "llama_lm", dict(tie_word_embeddings=True)),
    ("llama_long_context", "llama_lm", dict(rope_parameters=LLAMA3_ROPE)),
    ("llama_wide_heads", "llama_rm", dict(head_dim=6, num_labels=1)),
    ("gpt2", "gpt2_lm", dict(activation_function="gelu_new")),
    ("gpt2_untied", "gpt2_lm", dict(tie_word_embeddings=False, n_inner=24)),
    ("gpt2_three_outputs", "gpt2_rm", dict(num_labels=3)),
    ("llama_two_outputs", "llama_rm", dict(rms_norm_eps=1e-3)),
  )
  def test_there_and_back(self, kind, fields):
    base = LLAMA if kind.startswith("llama") else GPT2
    torch_model = build(kind, base | fields)
    expected = torch_logits(torch_model, self.tokens, self.mask)
    # Shards small enough that the index is used.
    torch_model.save_pretrained(self.folder, max_shard_size="6KB")
    config = models.load_config(self.folder)
    apply, params, config = ours(config)(self.folder)
    got = jax.jit(apply)(params, self.tokens, self.mask)
    self.assert_close(config, got, expected, 1e-5)

    models.save_pretrained(self.back, params, config)
    self.assertEqual(models.load_config(self.back), config)
    again = torch_logits(auto(self.back, config), self.tokens, self.mask)
    np.testing.assert_array_equal(again, expected)

  @parameterized.parameters("llama", "gpt2")
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
      **({"activation": "gelu"} if family == "gpt2" else {}),
    )
    model = models.reward_model(config)
    params = model.init(jax.random.key(0), self.tokens, self.mask)
    models.save_pretrained(self.folder, params, config)
    expected = torch_logits(auto(self.folder, config), self.tokens, self.mask)
    got = jax.jit(model.apply)(params, self.tokens, self.mask).rewards
    self.assert_close(config, got, expected, 1e-5)
    self.assertEqual(models.load_config(self.folder), config)


if __name__ == "__main__":
  absltest.main()
