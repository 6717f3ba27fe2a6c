"""Checkpoint family: the tables of config fields and tensors that define one.

A family is rows of config fields, rows of tensors, the values that its code
hard-wires and the fields that do not touch the function.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Required:
  """Marks a field without which a config.json cannot be read."""


class Field(NamedTuple):
  """One config field under both names, ours and the checkpoint's.

  Attributes:
    theirs: name in config.json.
    ours: fields of DecoderConfig that all take the value.
    default: value where theirs is absent or null: a constant, a function of
      config.json, or `Required`.
    words: their word -> our word, where the value is a word; several of theirs
      may mean one of ours, the first is written.
    optional: written only where it differs from the default.
    by_layer: a list of words, one per layer; None of ours means that all layers
      have it.
  """

  theirs: str
  ours: tuple[str, ...]
  default: Any = Required
  words: Mapping[Any, Any] | None = None
  optional: bool = False
  by_layer: bool = False


class Tensor(NamedTuple):
  """One tensor of a checkpoint.

  Attributes:
    theirs: name in the file, `{layer}` for the layer number.
    ours: paths in the parameter tree; several lie side by side on the tensor's
      output axis.
    transpose: theirs is [out, in], ours [in, out].
    by_head: several of ours take turns on the output axis, head by head.
  """

  theirs: str
  ours: tuple[str, ...]
  transpose: bool = False
  by_head: bool = False


class Rope(NamedTuple):
  """Where a family says how it rotates, beside `rope_parameters`.

  Attributes:
    theta: older field of the base of the wavelengths.
    fraction: older field of the share of a head that is rotated; None where
      that is all of it.
    default_fraction: the share where neither place names it.
    default_theta: the base where neither place names it.
    local_theta: older field of the base in layers with a window, for a family
      whose `rope_parameters` are by kind of layer; None for one base.
    context: field of the original context that counts before the one inside,
      None for none.
    default_context: its value where it is absent.
    kinds: kind of rotation that the family knows -> what its code makes of it;
      None for all kinds as they are.
  """

  theta: str = "rope_theta"
  fraction: str | None = None
  default_fraction: float = 1.0
  default_theta: float = 10_000.0
  local_theta: str | None = None
  context: str | None = None
  default_context: int | None = None
  kinds: Mapping[str, str] | None = None


class Family(NamedTuple):
  """One row of the family table.

  Attributes:
    model_type: the key in config.json.
    language: architecture name of the language model.
    reward: architecture name of the sequence classifier.
    prefix: in front of the backbone's tensors, absent in some older files.
    fields: config fields.
    fixed: DecoderConfig field -> the value that the family hard-wires, or a
      function of the config that gives it.
    allowed: config.json field -> values under which the function is ours; of a
      list, every entry must be among them.
    ignored: config.json fields that do not touch the function.
    tensors: the tensors.
    ignored_tensors: regular expression of buffers that hold no parameters.
    written: config.json fields -> value, or a function of the config, where
      neither a field of ours nor the default of transformers would do.
    rope: fields of the rotation, None without one.
  """

  model_type: str
  language: str
  reward: str
  prefix: str
  fields: tuple[Field, ...]
  fixed: Mapping[str, Any]
  allowed: Mapping[str, tuple[Any, ...]]
  ignored: frozenset[str]
  tensors: tuple[Tensor, ...]
  ignored_tensors: str
  written: Mapping[str, Any]
  rope: Rope | None = None


ACTIVATIONS = {
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu": "gelu",
  "silu": "silu",
  "swish": "silu",
  "relu": "relu",
}

# Book-keeping, training knobs and generation defaults of any family.
IGNORED = frozenset(
  {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_max_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
  }
)
ALLOWED = {
  "add_cross_attention": (False,),
  "is_decoder": (False, True),
  "is_encoder_decoder": (False,),
  "pruned_heads": ({},),
  "tie_encoder_decoder": (False,),
}
# What most families do not have.
PLAIN = {
  "norm_places": "before",
  "zero_centred_norms": False,
  "scale_embeddings": False,
  "rotary_layers": None,
  "sliding_window": None,
  "window_layers": None,
  "local_rope_theta": None,
  "attention_width": None,
  "attention_cap": None,
  "logit_cap": None,
  "qk_norm": False,
  "qk_norm_whole": False,
}
HEADS = (
  Tensor("lm_head.weight", ("lm_head/kernel",), transpose=True),
  Tensor("score.weight", ("score/kernel",), transpose=True),
  Tensor("value.weight", ("value/kernel",), transpose=True),
  Tensor("log_length.weight", ("log_length/kernel",), transpose=True),
  Tensor("hidden.weight", ("hidden/kernel",), transpose=True),
  Tensor("hidden.bias", ("hidden/bias",)),
  Tensor("layer_mixture.logits", ("layer_mixture/logits",)),
)
COMMON_FIELDS = (
  Field("vocab_size", ("vocab_size",)),
  Field("pad_token_id", ("pad_id",), None),
  Field("bos_token_id", ("bos_id",), None),
  Field("eos_token_id", ("eos_id",), None),
  Field("value_head", ("value_head",), False, optional=True),
  Field("num_values", ("num_values",), 1, optional=True),
  Field("pooling", ("pooling",), "last", optional=True),
  Field("mixed_layers", ("mixed_layers",), None, optional=True),
  Field("log_length", ("log_length",), None, optional=True),
  Field("head_units", ("head_units",), None, optional=True),
  Field("head_activation", ("head_activation",), "tanh", optional=True),
)
