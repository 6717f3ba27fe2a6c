"""Llama families: RMSNorm, rotary positions and a gated MLP."""

from collections.abc import Mapping
from typing import Any

from jaxalign.models.hf.family import (
  ACTIVATIONS,
  ALLOWED,
  COMMON_FIELDS,
  HEADS,
  IGNORED,
  Family,
  Field,
  Required,
  Rope,
  Tensor,
)

FIELDS = (
  *COMMON_FIELDS,
  Field("hidden_size", ("embed_dim",)),
  Field("intermediate_size", ("mlp_dim",)),
  Field("num_hidden_layers", ("num_layers",)),
  Field("num_attention_heads", ("num_heads",)),
  Field("hidden_act", ("activation",), "silu", ACTIVATIONS),
  Field("rms_norm_eps", ("norm_eps",), 1e-6),
  Field("tie_word_embeddings", ("tie_embeddings",), False),
  Field("resid_pdrop", ("dropout",), 0.0, optional=True),
)
FIXED = {"norm": "rms", "gated": True, "positions": "rotary"}
# Dropout of attention probabilities is a training knob that we do not have.
TRAINING_KNOBS = IGNORED | {"attention_dropout"}
# A window over some of the layers is not ours; what the two other fields say
# is then unused.
NO_WINDOW = {"use_sliding_window": (False,), "layer_types": ("full_attention",)}
WINDOW_FIELDS = frozenset({"max_window_layers", "sliding_window"})


def _positions(default: int) -> Field:
  return Field("max_position_embeddings", ("max_positions",), default)


def _window(theirs: Mapping[str, Any]) -> int | None:
  """Null is no window, and no word the one that transformers fills in."""
  return None if "sliding_window" in theirs else 4096


TENSORS = (
  Tensor("model.embed_tokens.weight", ("embed/tokens",)),
  Tensor("model.norm.weight", ("final_norm/scale",)),
  *(
    Tensor(f"model.layers.{{layer}}.{theirs}.weight", (f"layers/{ours}/scale",))
    for theirs, ours in (
      ("input_layernorm", "attention_norm"),
      ("post_attention_layernorm", "mlp_norm"),
      ("self_attn.q_norm", "attention/query_norm"),
      ("self_attn.k_norm", "attention/key_norm"),
    )
  ),
  *(
    Tensor(
      f"model.layers.{{layer}}.{theirs}.{kind}",
      (f"layers/{ours}/{leaf}",),
      transpose=kind == "weight",
    )
    for theirs, ours in (
      ("self_attn.q_proj", "attention/query"),
      ("self_attn.k_proj", "attention/key"),
      ("self_attn.v_proj", "attention/value"),
      ("self_attn.o_proj", "attention/out"),
      ("mlp.gate_proj", "mlp/gate"),
      ("mlp.up_proj", "mlp/up"),
      ("mlp.down_proj", "mlp/down"),
    )
    for kind, leaf in (("weight", "kernel"), ("bias", "bias"))
  ),
  *HEADS,
)
BUFFERS = r".*\.rotary_emb\.inv_freq"

# Llama 1, 2 and 3, Alpaca, Tulu 2, TinyStories.
LLAMA = Family(
  model_type="llama",
  language="LlamaForCausalLM",
  reward="LlamaForSequenceClassification",
  prefix="model.",
  fields=(
    *FIELDS,
    _positions(2048),
    Field("num_key_value_heads", ("num_kv_heads",), None),
    Field("head_dim", ("head_dim",), None),
    Field("attention_bias", ("qkv_bias", "out_bias"), False),
    Field("mlp_bias", ("mlp_bias",), False),
  ),
  fixed=FIXED,
  # Of SmolLM2; interleaved pairs are not ours, nor transformers'.
  allowed=ALLOWED | {"rope_interleaved": (False,)},
  ignored=TRAINING_KNOBS
  | {"is_llama_config", "max_sequence_length", "pretraining_tp"},
  tensors=TENSORS,
  ignored_tensors=BUFFERS,
  written={},
  rope=Rope(),
)

MISTRAL = Family(
  model_type="mistral",
  language="MistralForCausalLM",
  reward="MistralForSequenceClassification",
  prefix="model.",
  fields=(
    *FIELDS,
    _positions(131_072),
    Field("num_key_value_heads", ("num_kv_heads",), Required),
    Field("head_dim", ("head_dim",), None),
    Field("sliding_window", ("sliding_window",), _window),
  ),
  fixed=FIXED | {"qkv_bias": False, "out_bias": False, "mlp_bias": False},
  allowed=ALLOWED,
  ignored=TRAINING_KNOBS,
  tensors=TENSORS,
  ignored_tensors=BUFFERS,
  written={},
  rope=Rope(),
)

QWEN2 = Family(
  model_type="qwen2",
  language="Qwen2ForCausalLM",
  reward="Qwen2ForSequenceClassification",
  prefix="model.",
  fields=(
    *FIELDS,
    _positions(32_768),
    Field("num_key_value_heads", ("num_kv_heads",), Required),
    Field("head_dim", ("head_dim",), None),
  ),
  fixed=FIXED | {"qkv_bias": True, "out_bias": False, "mlp_bias": False},
  allowed=ALLOWED | NO_WINDOW,
  ignored=TRAINING_KNOBS | WINDOW_FIELDS | {"use_mrope"},
  tensors=TENSORS,
  ignored_tensors=BUFFERS,
  written={"use_sliding_window": False},
  rope=Rope(),
)

QWEN3 = Family(
  model_type="qwen3",
  language="Qwen3ForCausalLM",
  reward="Qwen3ForSequenceClassification",
  prefix="model.",
  fields=(
    *FIELDS,
    _positions(32_768),
    Field("num_key_value_heads", ("num_kv_heads",), Required),
    Field("head_dim", ("head_dim",), 128),
    Field("attention_bias", ("qkv_bias", "out_bias"), False),
  ),
  fixed=FIXED | {"mlp_bias": False, "qk_norm": True},
  allowed=ALLOWED | NO_WINDOW,
  ignored=TRAINING_KNOBS | WINDOW_FIELDS,
  tensors=TENSORS,
  ignored_tensors=BUFFERS,
  written={"use_sliding_window": False},
  rope=Rope(),
)
