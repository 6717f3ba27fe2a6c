"""The checkpoint families, a table each, read in both directions.

A new family is one more table here; `translate` reads the config rows and
`layout` the tensor rows, and neither knows a family by name.
"""

from jaxalign.models.family import (
  ACTIVATIONS,
  ALLOWED,
  COMMON_FIELDS,
  HEADS,
  IGNORED,
  Family,
  Field,
  Tensor,
)

LLAMA = Family(
  model_type="llama",
  language="LlamaForCausalLM",
  reward="LlamaForSequenceClassification",
  prefix="model.",
  fields=(
    *COMMON_FIELDS,
    Field("hidden_size", ("embed_dim",)),
    Field("intermediate_size", ("mlp_dim",)),
    Field("num_hidden_layers", ("num_layers",)),
    Field("num_attention_heads", ("num_heads",)),
    Field("num_key_value_heads", ("num_kv_heads",), None),
    Field("head_dim", ("head_dim",), None),
    Field("hidden_act", ("activation",), "silu", ACTIVATIONS),
    Field("max_position_embeddings", ("max_positions",), 2048),
    Field("rms_norm_eps", ("norm_eps",), 1e-6),
    Field("attention_bias", ("qkv_bias", "out_bias"), False),
    Field("mlp_bias", ("mlp_bias",), False),
    Field("tie_word_embeddings", ("tie_embeddings",), False),
    Field("resid_pdrop", ("dropout",), 0.0, optional=True),
  ),
  fixed={"norm": "rms", "gated": True, "positions": "rotary"},
  allowed=ALLOWED,
  # Dropout of attention probabilities is a training knob that we do not have.
  ignored=IGNORED | {"attention_dropout", "pretraining_tp"},
  tensors=(
    Tensor("model.embed_tokens.weight", ("embed/tokens",)),
    Tensor("model.norm.weight", ("final_norm/scale",)),
    Tensor(
      "model.layers.{layer}.input_layernorm.weight",
      ("layers/attention_norm/scale",),
    ),
    Tensor(
      "model.layers.{layer}.post_attention_layernorm.weight",
      ("layers/mlp_norm/scale",),
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
  ),
  ignored_tensors=r".*\.rotary_emb\.inv_freq",
  written={},
)

GPT2 = Family(
  model_type="gpt2",
  language="GPT2LMHeadModel",
  reward="GPT2ForSequenceClassification",
  prefix="transformer.",
  fields=(
    *COMMON_FIELDS,
    Field("n_embd", ("embed_dim",)),
    Field("n_inner", ("mlp_dim",), lambda theirs: 4 * theirs["n_embd"]),
    Field("n_layer", ("num_layers",)),
    Field("n_head", ("num_heads",)),
    Field("n_positions", ("max_positions",), 1024),
    Field("activation_function", ("activation",), "gelu_new", ACTIVATIONS),
    Field("layer_norm_epsilon", ("norm_eps",), 1e-5),
    Field("resid_pdrop", ("dropout",), 0.1),
    Field("tie_word_embeddings", ("tie_embeddings",), True),
  ),
  fixed={
    "norm": "layer",
    "gated": False,
    "positions": "learned",
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "num_kv_heads": lambda config: config.num_heads,
    "head_dim": lambda config: config.embed_dim // config.num_heads,
  },
  allowed=ALLOWED
  | {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
  },
  ignored=IGNORED
  | {
    "attn_pdrop",
    "embd_pdrop",
    "n_ctx",
    "reorder_and_upcast_attn",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
  },
  tensors=(
    Tensor("transformer.wte.weight", ("embed/tokens",)),
    Tensor("transformer.wpe.weight", ("embed/positions",)),
    *(
      Tensor(f"transformer.{theirs}.{kind}", (f"{ours}/{leaf}",))
      for theirs, ours in (
        ("ln_f", "final_norm"),
        ("h.{layer}.ln_1", "layers/attention_norm"),
        ("h.{layer}.ln_2", "layers/mlp_norm"),
      )
      for kind, leaf in (("weight", "scale"), ("bias", "bias"))
    ),
    *(
      Tensor(
        f"transformer.h.{{layer}}.{theirs}.{kind}",
        tuple(f"layers/{path}/{leaf}" for path in ours),
      )
      for theirs, ours in (
        (
          "attn.c_attn",
          ("attention/query", "attention/key", "attention/value"),
        ),
        ("attn.c_proj", ("attention/out",)),
        ("mlp.c_fc", ("mlp/up",)),
        ("mlp.c_proj", ("mlp/down",)),
      )
      for kind, leaf in (("weight", "kernel"), ("bias", "bias"))
    ),
    *HEADS,
  ),
  ignored_tensors=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
  written={"attn_pdrop": 0.0, "embd_pdrop": lambda config: config.dropout},
)

FAMILIES = {family.model_type: family for family in (LLAMA, GPT2)}
