"""Gemma 2 and Gemma 3 (text): windows on some layers, norms on both sides."""

from collections.abc import Mapping
from typing import Any

from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import llama
from jaxalign.models.hf.family import ALLOWED, Field, Rope
from jaxalign.models.hf.llama import (
  TRAINING_KNOBS,
  all_but,
  common_fields,
  layer_numbers,
  like_llama,
  tensors,
)

WORDS = {"sliding_attention": True, "full_attention": False}


def _window_layers(default_period: int) -> Field:
  """Which layers have the window: all but every `default_period`th."""

  def layers(theirs: Mapping[str, Any]) -> list[str]:
    period = theirs.get("sliding_window_pattern") or default_period
    return [
      "sliding_attention" if (i + 1) % period else "full_attention"
      for i in layer_numbers(theirs)
    ]

  return Field("layer_types", ("window_layers",), layers, WORDS, by_layer=True)


def _fields(max_positions: int, period: int) -> tuple[Field, ...]:
  return (
    *common_fields(
      tied=True, activation="hidden_activation", default="gelu_pytorch_tanh"
    ),
    Field("max_position_embeddings", ("max_positions",), max_positions),
    Field("num_key_value_heads", ("num_kv_heads",), 4),
    # Functions, so that a model from scratch does not begin with these sizes.
    Field("head_dim", ("head_dim",), lambda theirs: 256),
    Field("query_pre_attn_scalar", ("attention_width",), lambda theirs: 256),
    Field("sliding_window", ("sliding_window",), lambda theirs: 4096),
    _window_layers(period),
    Field("attention_bias", ("qkv_bias", "out_bias"), False),
  )


def _cap(theirs: str, ours: str, default: float) -> Field:
  """Null is no cap, and no word the one that transformers fills in."""
  return Field(
    theirs, (ours,), lambda read: None if theirs in read else default
  )


def _layer_types(config: DecoderConfig) -> list[str]:
  windowed = config.window_layers
  if windowed is None:
    windowed = (config.sliding_window is not None,) * config.num_layers
  return [
    "sliding_attention" if each else "full_attention" for each in windowed
  ]


FIXED = all_but(
  llama.FIXED, "sliding_window", "window_layers", "attention_width"
) | {
  "mlp_bias": False,
  "norm_places": "both",
  "zero_centred_norms": True,
  "scale_embeddings": True,
}
NORMS = (
  ("input_layernorm", "attention_norm"),
  ("post_attention_layernorm", "attention_out_norm"),
  ("pre_feedforward_layernorm", "mlp_norm"),
  ("post_feedforward_layernorm", "mlp_out_norm"),
)
# transformers wants numbers where ours may be None, and a window even where no
# layer has one.
WRITTEN = {
  "query_pre_attn_scalar": lambda config: (
    config.attention_width or config.head_dim
  ),
  "sliding_window": lambda config: (
    config.sliding_window or config.max_positions
  ),
  "layer_types": _layer_types,
}
CAUSAL = ALLOWED | {"use_bidirectional_attention": (False,)}

GEMMA2 = like_llama(
  model_type="gemma2",
  language="Gemma2ForCausalLM",
  reward="Gemma2ForSequenceClassification",
  fields=(
    *_fields(8192, 2),
    _cap("attn_logit_softcapping", "attention_cap", 50.0),
    _cap("final_logit_softcapping", "logit_cap", 30.0),
  ),
  fixed=all_but(FIXED, "attention_cap", "logit_cap"),
  allowed=CAUSAL,
  # transformers reads hidden_activation alone.
  ignored=TRAINING_KNOBS | {"cache_implementation", "hidden_act"},
  tensors=tensors(norms=NORMS),
  written=WRITTEN,
)

GEMMA3 = like_llama(
  model_type="gemma3_text",
  language="Gemma3ForCausalLM",
  reward="Gemma3TextForSequenceClassification",
  fields=(
    *_fields(131_072, 6),
    Field("final_logit_softcapping", ("logit_cap",), None),
  ),
  fixed=all_but(FIXED, "logit_cap", "local_rope_theta") | {"qk_norm": True},
  # transformers passes over a cap of the attention logits, so one is refused.
  allowed=CAUSAL | {"attn_logit_softcapping": (None,)},
  ignored=TRAINING_KNOBS
  | {
    "_sliding_window_pattern",
    "cache_implementation",
    "hidden_act",
    "sliding_window_pattern",
  },
  tensors=tensors(norms=NORMS),
  written=WRITTEN,
  rope=Rope(default_theta=1_000_000.0, local_theta="rope_local_base_freq"),
)
