"""Llama families: RMSNorm, rotary positions and a gated MLP.

Llama, Mistral, Qwen, Phi-3, SmolLM3 and OLMo 2.
"""

import functools
from collections.abc import Mapping
from typing import Any

from jaxalign.models.hf.family import (
  ACTIVATIONS,
  ALLOWED,
  COMMON_FIELDS,
  HEADS,
  IGNORED,
  PLAIN,
  Family,
  Field,
  Required,
  Rope,
  Tensor,
)


def common_fields(
  *,
  eps: float = 1e-6,
  tied: bool = False,
  activation: str = "hidden_act",
  default: str = "silu",
) -> tuple[Field, ...]:
  """The fields that all have, with the defaults of one family.

  Args:
    eps: added to the variance in norms.
    tied: whether the language head is the embedding.
    activation: name of the field of the activation.
    default: the activation where it is silent, also its first name.
  """
  words = {default: ACTIVATIONS[default]} | ACTIVATIONS
  return (
    *COMMON_FIELDS,
    Field("hidden_size", ("embed_dim",)),
    Field("intermediate_size", ("mlp_dim",)),
    Field("num_hidden_layers", ("num_layers",)),
    Field("num_attention_heads", ("num_heads",)),
    Field(activation, ("activation",), default, words),
    Field("rms_norm_eps", ("norm_eps",), eps),
    Field("tie_word_embeddings", ("tie_embeddings",), tied),
    Field("resid_pdrop", ("dropout",), 0.0, optional=True),
  )


FIELDS = common_fields()
UNBIASED = {"qkv_bias": False, "out_bias": False, "mlp_bias": False}
FIXED = PLAIN | {"norm": "rms", "gated": True, "positions": "rotary"}
# Dropout of attention probabilities is a training knob that we do not have.
TRAINING_KNOBS = IGNORED | {"attention_dropout"}
# A window over some of the layers is not ours; what the two other fields say
# is then unused.
NO_WINDOW = {"use_sliding_window": (False,), "layer_types": ("full_attention",)}
WINDOW_FIELDS = frozenset({"max_window_layers", "sliding_window"})


def _positions(default: int) -> Field:
  return Field("max_position_embeddings", ("max_positions",), default)


def layer_numbers(theirs: Mapping[str, Any]) -> range:
  """The layers, counted from 0.

  Args:
    theirs: content of config.json.

  Raises:
    TypeError: `num_hidden_layers` cannot be their number.
  """
  number = theirs["num_hidden_layers"]
  if not isinstance(number, int) or not 0 < number < 10_000:
    raise TypeError(f"num_hidden_layers is {number!r}")
  return range(number)


def all_but(fixed: Mapping[str, Any], *names: str) -> dict[str, Any]:
  """The values that a family hard-wires, without some that its fields say.

  Args:
    fixed: those of most families.
    *names: to leave out.
  """
  return {name: fixed[name] for name in fixed if name not in names}


def _window(theirs: Mapping[str, Any]) -> int | None:
  """Null is no window, and no word the one that transformers fills in."""
  return None if "sliding_window" in theirs else 4096


NORMS = (
  ("input_layernorm", "attention_norm"),
  ("post_attention_layernorm", "mlp_norm"),
)
PROJECTIONS = (
  ("self_attn.q_proj", ("attention/query",)),
  ("self_attn.k_proj", ("attention/key",)),
  ("self_attn.v_proj", ("attention/value",)),
  ("self_attn.o_proj", ("attention/out",)),
  ("mlp.gate_proj", ("mlp/gate",)),
  ("mlp.up_proj", ("mlp/up",)),
  ("mlp.down_proj", ("mlp/down",)),
)


def tensors(
  norms: tuple[tuple[str, str], ...] = NORMS,
  projections: tuple[tuple[str, tuple[str, ...]], ...] = PROJECTIONS,
) -> tuple[Tensor, ...]:
  """The rows of tensors of a family.

  Args:
    norms: (theirs, ours) of the norms around a layer's branches.
    projections: (theirs, ours) of a layer's products; several of ours lie side
      by side.
  """
  of_heads = (
    ("self_attn.q_norm", "attention/query_norm"),
    ("self_attn.k_norm", "attention/key_norm"),
  )
  return (
    Tensor("model.embed_tokens.weight", ("embed/tokens",)),
    Tensor("model.norm.weight", ("final_norm/scale",)),
    *(
      Tensor(
        f"model.layers.{{layer}}.{theirs}.weight", (f"layers/{ours}/scale",)
      )
      for theirs, ours in norms + of_heads
    ),
    *(
      Tensor(
        f"model.layers.{{layer}}.{theirs}.{kind}",
        tuple(f"layers/{path}/{leaf}" for path in ours),
        transpose=kind == "weight",
      )
      for theirs, ours in projections
      for kind, leaf in (("weight", "kernel"), ("bias", "bias"))
    ),
    *HEADS,
  )


TENSORS = tensors()
BUFFERS = r".*\.rotary_emb\.inv_freq"

# Llama 1, 2 and 3, Alpaca, Tulu 2, TinyStories.
# What a row of the table says only where it is otherwise.
like_llama = functools.partial(
  Family,
  prefix="model.",
  allowed=ALLOWED,
  ignored=TRAINING_KNOBS,
  tensors=TENSORS,
  ignored_tensors=BUFFERS,
  written={},
  rope=Rope(),
)

LLAMA = like_llama(
  model_type="llama",
  language="LlamaForCausalLM",
  reward="LlamaForSequenceClassification",
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
)

MISTRAL = like_llama(
  model_type="mistral",
  language="MistralForCausalLM",
  reward="MistralForSequenceClassification",
  fields=(
    *FIELDS,
    _positions(131_072),
    Field("num_key_value_heads", ("num_kv_heads",), Required),
    Field("head_dim", ("head_dim",), None),
    Field("sliding_window", ("sliding_window",), _window),
  ),
  fixed=all_but(FIXED, "sliding_window") | UNBIASED,
)

QWEN2 = like_llama(
  model_type="qwen2",
  language="Qwen2ForCausalLM",
  reward="Qwen2ForSequenceClassification",
  fields=(
    *FIELDS,
    _positions(32_768),
    Field("num_key_value_heads", ("num_kv_heads",), Required),
    Field("head_dim", ("head_dim",), None),
  ),
  fixed=FIXED | {"qkv_bias": True, "out_bias": False, "mlp_bias": False},
  allowed=ALLOWED | NO_WINDOW,
  ignored=TRAINING_KNOBS | WINDOW_FIELDS | {"use_mrope"},
  written={"use_sliding_window": False},
)

QWEN3 = like_llama(
  model_type="qwen3",
  language="Qwen3ForCausalLM",
  reward="Qwen3ForSequenceClassification",
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
  written={"use_sliding_window": False},
)

# Phi-3, Phi-3.5 and Phi-4-mini.
PHI3 = like_llama(
  model_type="phi3",
  language="Phi3ForCausalLM",
  reward="Phi3ForSequenceClassification",
  fields=(
    *common_fields(eps=1e-5),
    _positions(4096),
    Field("num_key_value_heads", ("num_kv_heads",), None),
    Field("sliding_window", ("sliding_window",), None),
  ),
  fixed=all_but(FIXED, "sliding_window")
  | UNBIASED
  | {"head_dim": lambda config: config.embed_dim // config.num_heads},
  allowed=ALLOWED
  | {
    "attention_bias": (False,),
    "lm_head_bias": (False,),
    "mlp_bias": (False,),
  },
  ignored=TRAINING_KNOBS | {"auto_map", "embd_pdrop", "full_attn_mod"},
  tensors=tensors(
    projections=(
      (
        "self_attn.qkv_proj",
        ("attention/query", "attention/key", "attention/value"),
      ),
      ("self_attn.o_proj", ("attention/out",)),
      ("mlp.gate_up_proj", ("mlp/gate", "mlp/up")),
      ("mlp.down_proj", ("mlp/down",)),
    )
  ),
  rope=Rope(
    fraction="partial_rotary_factor",
    context="original_max_position_embeddings",
    default_context=4096,
    kinds={
      "default": "default",
      "longrope": "longrope",
      "su": "longrope",
      "yarn": "longrope",
    },
  ),
)


def _rotates(theirs: Mapping[str, Any]) -> list[int]:
  """All layers but every fourth, or another interval."""
  interval = theirs.get("no_rope_layer_interval") or 4
  return [int((i + 1) % interval != 0) for i in layer_numbers(theirs)]


SMOLLM3 = like_llama(
  model_type="smollm3",
  language="SmolLM3ForCausalLM",
  reward="SmolLM3ForSequenceClassification",
  fields=(
    *common_fields(tied=True),
    _positions(32_768),
    Field("num_key_value_heads", ("num_kv_heads",), 4),
    Field("head_dim", ("head_dim",), None),
    Field("attention_bias", ("qkv_bias", "out_bias"), False),
    Field("mlp_bias", ("mlp_bias",), False),
    Field(
      "no_rope_layers",
      ("rotary_layers",),
      _rotates,
      {1: True, 0: False},
      by_layer=True,
    ),
  ),
  fixed=all_but(FIXED, "rotary_layers"),
  allowed=ALLOWED | NO_WINDOW,
  ignored=TRAINING_KNOBS
  | WINDOW_FIELDS
  | {"no_rope_layer_interval", "pretraining_tp"},
  written={"use_sliding_window": False},
  rope=Rope(default_theta=2_000_000.0),
)

OLMO2 = like_llama(
  model_type="olmo2",
  language="Olmo2ForCausalLM",
  reward="Olmo2ForSequenceClassification",
  fields=(
    *common_fields(eps=1e-5),
    _positions(2048),
    Field("num_key_value_heads", ("num_kv_heads",), None),
    Field("head_dim", ("head_dim",), None),
    Field("attention_bias", ("qkv_bias", "out_bias"), False),
  ),
  fixed=FIXED
  | {
    "mlp_bias": False,
    "norm_places": "after",
    "qk_norm": True,
    "qk_norm_whole": True,
  },
  tensors=tensors(
    norms=(
      ("post_attention_layernorm", "attention_out_norm"),
      ("post_feedforward_layernorm", "mlp_out_norm"),
    )
  ),
)
