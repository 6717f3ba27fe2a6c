"""GPT families: GPT-2, GPT-NeoX and OPT, with LayerNorm and biases."""

from jaxalign.models.hf.family import (
  ACTIVATIONS,
  ALLOWED,
  COMMON_FIELDS,
  HEADS,
  IGNORED,
  PLAIN,
  Family,
  Field,
  Rope,
  Tensor,
)

# A row of parameters: the kernel and bias of a projection, or scale and bias of
# a norm, under the names of the file and ours.
PROJECTION = (("weight", "kernel"), ("bias", "bias"))
NORM = (("weight", "scale"), ("bias", "bias"))

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
  fixed=PLAIN
  | {
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
    "output_past",
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
      for kind, leaf in NORM
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
      for kind, leaf in PROJECTION
    ),
    *HEADS,
  ),
  ignored_tensors=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
  written={"attn_pdrop": 0.0, "embd_pdrop": lambda config: config.dropout},
)

NEOX = Family(
  model_type="gpt_neox",
  language="GPTNeoXForCausalLM",
  reward="GPTNeoXForSequenceClassification",
  prefix="gpt_neox.",
  fields=(
    *COMMON_FIELDS,
    Field("hidden_size", ("embed_dim",)),
    Field("intermediate_size", ("mlp_dim",)),
    Field("num_hidden_layers", ("num_layers",)),
    Field("num_attention_heads", ("num_heads",)),
    Field("hidden_act", ("activation",), "gelu", ACTIVATIONS),
    Field("max_position_embeddings", ("max_positions",), 2048),
    Field("layer_norm_eps", ("norm_eps",), 1e-5),
    Field("hidden_dropout", ("dropout",), 0.0),
    Field("use_parallel_residual", ("parallel_residual",), True),
    Field("attention_bias", ("qkv_bias", "out_bias"), True),
    Field("tie_word_embeddings", ("tie_embeddings",), False),
  ),
  fixed=PLAIN
  | {
    "norm": "layer",
    "gated": False,
    "positions": "rotary",
    "mlp_bias": True,
    "num_kv_heads": lambda config: config.num_heads,
    "head_dim": lambda config: config.embed_dim // config.num_heads,
  },
  allowed=ALLOWED,
  ignored=IGNORED | {"attention_dropout"},
  tensors=(
    Tensor("gpt_neox.embed_in.weight", ("embed/tokens",)),
    *(
      Tensor(f"gpt_neox.{theirs}.{kind}", (f"{ours}/{leaf}",))
      for theirs, ours in (
        ("final_layer_norm", "final_norm"),
        ("layers.{layer}.input_layernorm", "layers/attention_norm"),
        ("layers.{layer}.post_attention_layernorm", "layers/mlp_norm"),
      )
      for kind, leaf in NORM
    ),
    *(
      Tensor(
        f"gpt_neox.layers.{{layer}}.{theirs}.{kind}",
        tuple(f"layers/{path}/{leaf}" for path in ours),
        transpose=kind == "weight",
        by_head=len(ours) > 1,
      )
      for theirs, ours in (
        (
          "attention.query_key_value",
          ("attention/query", "attention/key", "attention/value"),
        ),
        ("attention.dense", ("attention/out",)),
        ("mlp.dense_h_to_4h", ("mlp/up",)),
        ("mlp.dense_4h_to_h", ("mlp/down",)),
      )
      for kind, leaf in PROJECTION
    ),
    Tensor("embed_out.weight", ("lm_head/kernel",), transpose=True),
    *HEADS[1:],
  ),
  ignored_tensors=(
    r"(gpt_neox\.)?layers\.\d+\.attention\."
    r"((masked_)?bias|rotary_emb\.inv_freq)"
  ),
  written={"attention_dropout": 0.0},
  rope=Rope("rotary_emb_base", "rotary_pct", 0.25),
)

OPT = Family(
  model_type="opt",
  language="OPTForCausalLM",
  reward="OPTForSequenceClassification",
  prefix="model.",
  fields=(
    *COMMON_FIELDS,
    Field("hidden_size", ("embed_dim",)),
    # Equal to the width: the projections of other checkpoints are not ours.
    Field(
      "word_embed_proj_dim",
      ("embed_dim",),
      lambda theirs: theirs["hidden_size"],
    ),
    Field("ffn_dim", ("mlp_dim",)),
    Field("num_hidden_layers", ("num_layers",)),
    Field("num_attention_heads", ("num_heads",)),
    Field("activation_function", ("activation",), "relu", ACTIVATIONS),
    Field("max_position_embeddings", ("max_positions",), 2048),
    Field("dropout", ("dropout",), 0.1),
    Field("enable_bias", ("qkv_bias", "out_bias", "mlp_bias"), True),
    Field("tie_word_embeddings", ("tie_embeddings",), True),
  ),
  fixed=PLAIN
  | {
    "norm": "layer",
    "norm_eps": 1e-5,
    "gated": False,
    "positions": "learned",
    "position_offset": 2,
    "num_kv_heads": lambda config: config.num_heads,
    "head_dim": lambda config: config.embed_dim // config.num_heads,
  },
  allowed=ALLOWED
  | {
    "_remove_final_layer_norm": (False,),
    "do_layer_norm_before": (True,),
    "layer_norm_elementwise_affine": (True,),
  },
  ignored=IGNORED
  | {
    "activation_dropout",
    "attention_dropout",
    "init_std",
    "layerdrop",
  },
  tensors=(
    Tensor("model.decoder.embed_tokens.weight", ("embed/tokens",)),
    Tensor("model.decoder.embed_positions.weight", ("embed/positions",)),
    *(
      Tensor(f"model.decoder.{theirs}.{kind}", (f"{ours}/{leaf}",))
      for theirs, ours in (
        ("final_layer_norm", "final_norm"),
        ("layers.{layer}.self_attn_layer_norm", "layers/attention_norm"),
        ("layers.{layer}.final_layer_norm", "layers/mlp_norm"),
      )
      for kind, leaf in NORM
    ),
    *(
      Tensor(
        f"model.decoder.layers.{{layer}}.{theirs}.{kind}",
        (f"layers/{ours}/{leaf}",),
        transpose=kind == "weight",
      )
      for theirs, ours in (
        ("self_attn.q_proj", "attention/query"),
        ("self_attn.k_proj", "attention/key"),
        ("self_attn.v_proj", "attention/value"),
        ("self_attn.out_proj", "attention/out"),
        ("fc1", "mlp/up"),
        ("fc2", "mlp/down"),
      )
      for kind, leaf in PROJECTION
    ),
    *HEADS,
  ),
  ignored_tensors=r"$^",
  written={"attention_dropout": 0.0, "layerdrop": 0.0},
)
