"""Decoder config: frozen, hashable, checked when made."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxalign.ops import checks

NORMS = ("layer", "rms")
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")
POSITIONS = ("rotary", "learned")
ROPE_KINDS = ("linear", "llama3", "yarn", "dynamic", "longrope")
NORM_PLACES = ("before", "after", "both")
ATTENTIONS = ("dense", "fused", "splash")
REMATS = ("none", "dots", "full")
POOLINGS = ("last", "mean", "before_last")
LOG_LENGTHS = ("keep", "remove")
HEAD_ACTIVATIONS = ("tanh", "gelu")
# How a reward model reads a text, as language models, which do not, have it.
READING = {
  "pooling": "last",
  "mixed_layers": None,
  "log_length": None,
  "head_units": None,
  "head_activation": "tanh",
}
DTYPES = ("bfloat16", "float32", "float64")
PARAM_DTYPES = ("float32", "float64")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How rotary wavelengths are stretched beyond the original context.

  Attributes:
    kind: "linear" divides every frequency by `factor`; "llama3" does so only
      below `low_freq_factor` turns per original context, not at all above
      `high_freq_factor`, and blends in between; "yarn" does so below
      `beta_slow` and above `beta_fast`, blends by the index of the frequency,
      and scales queries and keys; "dynamic" changes nothing up to
      `max_positions`, and no sequence is longer here; "longrope" divides each
      frequency by a number of its own, of `short_factor` for a text within the
      original context and of `long_factor` for a longer one, and scales queries
      and keys.
    factor: how much longer the context became.
    low_freq_factor: turns per original context, "llama3" only.
    high_freq_factor: likewise.
    original_max_positions: the original context in tokens, "llama3", "yarn" and
      "longrope".
    beta_fast: turns per original context, "yarn" only.
    beta_slow: likewise.
    attention_factor: scale of cosines and sines, "yarn" and "longrope"; None
      for 0.1 ln(factor) + 1 and sqrt(1 + ln(factor) / ln(original context)).
    truncate: whether the blend begins and ends at whole indices, "yarn" only.
    short_factor: a divisor per pair of a head that is rotated, "longrope" only.
    long_factor: likewise.
  """

  kind: str
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_max_positions: int = 8192
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  attention_factor: float | None = None
  truncate: bool = True
  short_factor: tuple[float, ...] | None = None
  long_factor: tuple[float, ...] | None = None

  def __post_init__(self) -> None:
    checks.one_of(ROPE_KINDS, kind=self.kind)
    if not self.factor >= 1:
      raise ValueError(f"factor must be >= 1, got {self.factor}")
    if not 0 < self.low_freq_factor < self.high_freq_factor:
      raise ValueError(
        "low_freq_factor must be in (0, high_freq_factor), got "
        f"{self.low_freq_factor} and {self.high_freq_factor}"
      )
    if not 0 < self.beta_slow < self.beta_fast:
      raise ValueError(
        f"beta_slow must be in (0, beta_fast), got {self.beta_slow} and "
        f"{self.beta_fast}"
      )
    if self.attention_factor is not None and not self.attention_factor > 0:
      raise ValueError(
        f"attention_factor must be > 0 or None, got {self.attention_factor}"
      )
    _positive("original_max_positions", self.original_max_positions)
    for name in ("short_factor", "long_factor"):
      given = getattr(self, name)
      if (given is None) == (self.kind == "longrope"):
        raise ValueError(f"{name} belongs to kind 'longrope', got {given}")
      if given is not None and not all(divisor > 0 for divisor in given):
        raise ValueError(f"{name} must be numbers > 0, got {given}")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """All settings that decide a decoder's parameters and its function.

  Attributes:
    vocab_size: V, rows of the token embedding.
    num_layers: pre-norm blocks.
    num_heads: H, query heads.
    embed_dim: D, width of the residual stream.
    mlp_dim: hidden width of the MLP.
    num_kv_heads: key and value heads, a divisor of `num_heads`; None means
      `num_heads`.
    head_dim: width of one head; None means `embed_dim / num_heads`.
    max_positions: longest sequence that is accepted, in tokens.
    norm: "layer" (mean and variance, with a bias) or "rms".
    norm_eps: added to the variance.
    norm_places: "before" each residual branch, "after" it or "both".
    zero_centred_norms: scales of norms are stored less 1.
    activation: "gelu", "gelu_tanh", "silu" or "relu".
    gated: the MLP is down(act(gate(x)) * up(x)) rather than down(act(up(x))).
    parallel_residual: attention and MLP of a block both read its input, and
      their results are added to it together.
    scale_embeddings: token embeddings are multiplied by sqrt(embed_dim).
    positions: "rotary" (halves rotated against each other) or "learned".
    position_offset: rows of the learned table before that of position 0.
    rope_theta: base of the rotary wavelengths.
    rope_scaling: how they are stretched, None for not at all.
    rotary_fraction: share of each head that is rotated, its first entries.
    rotary_layers: whether each layer rotates; None for all of them.
    sliding_window: keys a query may look back on, its own included; None for
      all of them.
    window_layers: whether each layer has the window; None for all of them.
    local_rope_theta: base of the wavelengths in layers with a window, which are
      not stretched then; None for as in the others.
    attention_width: attention logits are divided by its square root; None for
      `head_dim`.
    attention_cap: c of c tanh(x / c) on attention logits; None for none.
    logit_cap: likewise on the logits of the next token.
    qk_norm: queries and keys are RMS-normalised per head, before any rotation.
    qk_norm_whole: over all heads together, with `qk_norm`.
    qkv_bias: query, key and value projections have a bias.
    out_bias: the attention output projection has a bias.
    mlp_bias: the MLP projections have a bias.
    tie_embeddings: the language head is the token embedding.
    dropout: rate on the embeddings and on each residual branch, used only when
      `apply` is given keys.
    attention: "dense" (any device, differentiable twice), "fused" (cuDNN on a
      GPU, in bfloat16) or "splash" (Pallas on a TPU). Decoding is dense.
    dtype: type of the matrix products; norms, softmax and heads use at least
      float32.
    param_dtype: type in which parameters are stored.
    remat: what the backward pass takes again beside norms and activations:
      "none", "dots" (attention too, so that products with weights are all that
      is kept) or "full" (all but each layer's input).
    unroll: layers per iteration of the layer scan.
    num_outputs: rewards per sequence; None for a language model.
    pooling: where a reward model reads a text: "last" attended token, the one
      "before_last", or the "mean" over the tokens of the response.
    mixed_layers: layers whose outputs a reward model reads, mixed by learned
      weights, ascending; the last of them is `num_layers`. None reads that one
      alone.
    log_length: a reward model also has a weight for the log of a response's
      number of tokens, whose term it adds ("keep") or leaves out ("remove");
      None for no such weight.
    head_units: units of a hidden layer between what a reward model reads of a
      text and its rewards; None for a linear head.
    head_activation: "tanh" or "gelu" of these units; "tanh" without any.
    num_texts: texts of which a reward model is given the features in place of a
      decoder; None for a decoder.
    value_head: a language model also gives a value per token.
    num_values: numbers that a value head gives per token; 1 without one.
    pad_id: padding token, None if there is none. Never read by the model, which
      goes by the mask; kept for the checkpoint.
    bos_id: first token of a text.
    eos_id: token or tokens that end a text.
    family: row of `FAMILIES` by which checkpoints are written.

  Raises:
    TypeError: a field has the wrong type.
    ValueError: a field is out of range or two fields contradict each other.
  """

  vocab_size: int
  num_layers: int
  num_heads: int
  embed_dim: int
  mlp_dim: int
  num_kv_heads: int | None = None
  head_dim: int | None = None
  max_positions: int = 2048
  norm: str = "rms"
  norm_eps: float = 1e-5
  norm_places: str = "before"
  zero_centred_norms: bool = False
  activation: str = "silu"
  gated: bool = True
  parallel_residual: bool = False
  scale_embeddings: bool = False
  positions: str = "rotary"
  position_offset: int = 0
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  rotary_fraction: float = 1.0
  rotary_layers: tuple[bool, ...] | None = None
  sliding_window: int | None = None
  window_layers: tuple[bool, ...] | None = None
  local_rope_theta: float | None = None
  attention_width: int | None = None
  attention_cap: float | None = None
  logit_cap: float | None = None
  qk_norm: bool = False
  qk_norm_whole: bool = False
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  tie_embeddings: bool = False
  dropout: float = 0.0
  attention: str = "dense"
  dtype: str = "float32"
  param_dtype: str = "float32"
  remat: str = "none"
  unroll: int = 1
  num_outputs: int | None = None
  pooling: str = "last"
  mixed_layers: tuple[int, ...] | None = None
  log_length: str | None = None
  head_units: int | None = None
  head_activation: str = "tanh"
  num_texts: int | None = None
  value_head: bool = False
  num_values: int = 1
  pad_id: int | None = None
  bos_id: int | None = None
  eos_id: int | tuple[int, ...] | None = None
  family: str = "llama"

  def __post_init__(self) -> None:
    for name in ("num_heads", "embed_dim"):
      _positive(name, getattr(self, name))
    if self.num_kv_heads is None:
      object.__setattr__(self, "num_kv_heads", self.num_heads)
    if self.head_dim is None:
      if self.embed_dim % self.num_heads:
        raise ValueError(
          "embed_dim must be a multiple of num_heads unless head_dim is set, "
          f"got {self.embed_dim} and {self.num_heads}"
        )
      object.__setattr__(self, "head_dim", self.embed_dim // self.num_heads)
    self._check_types()
    self._check_ranges()
    self._check_layers()

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """`eos_id` as a tuple, empty for None."""
    if self.eos_id is None:
      return ()
    return self.eos_id if isinstance(self.eos_id, tuple) else (self.eos_id,)

  @property
  def rotary_dim(self) -> int:
    """Entries of each head that are rotated."""
    return int(self.head_dim * self.rotary_fraction)

  @property
  def num_features(self) -> int:
    """Width of what the linear head of a reward model reads."""
    return self.embed_dim if self.head_units is None else self.head_units

  def _check_types(self) -> None:
    for name in (
      "vocab_size",
      "num_layers",
      "mlp_dim",
      "num_kv_heads",
      "head_dim",
      "max_positions",
      "unroll",
    ):
      _positive(name, getattr(self, name))
    for name in (
      "num_outputs",
      "sliding_window",
      "num_values",
      "num_texts",
      "attention_width",
      "head_units",
    ):
      if getattr(self, name) is not None:
        _positive(name, getattr(self, name))
    for name in (
      "gated",
      "parallel_residual",
      "zero_centred_norms",
      "scale_embeddings",
      "qk_norm",
      "qk_norm_whole",
      "qkv_bias",
      "out_bias",
      "mlp_bias",
      "tie_embeddings",
      "value_head",
    ):
      if not isinstance(getattr(self, name), bool):
        raise TypeError(f"{name} must be a bool, got {getattr(self, name)!r}")
    for name in ("norm_eps", "rope_theta", "rotary_fraction", "dropout"):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    for name in ("local_rope_theta", "attention_cap", "logit_cap"):
      value = getattr(self, name)
      if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float))
      ):
        raise TypeError(f"{name} must be a number or None, got {value!r}")
    checks.one_of(NORMS, norm=self.norm)
    checks.one_of(NORM_PLACES, norm_places=self.norm_places)
    checks.one_of(ACTIVATIONS, activation=self.activation)
    checks.one_of(POSITIONS, positions=self.positions)
    checks.one_of(ATTENTIONS, attention=self.attention)
    checks.one_of(REMATS, remat=self.remat)
    checks.one_of(POOLINGS, pooling=self.pooling)
    if self.log_length is not None:
      checks.one_of(LOG_LENGTHS, log_length=self.log_length)
    checks.one_of(HEAD_ACTIVATIONS, head_activation=self.head_activation)
    checks.one_of(DTYPES, dtype=self.dtype)
    checks.one_of(PARAM_DTYPES, param_dtype=self.param_dtype)

  def _check_ranges(self) -> None:
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        "num_heads must be a multiple of num_kv_heads, got "
        f"{self.num_heads} and {self.num_kv_heads}"
      )
    if not 0 < self.rotary_fraction <= 1:
      raise ValueError(
        f"rotary_fraction must be in (0, 1], got {self.rotary_fraction}"
      )
    if self.positions == "rotary" and (
      self.rotary_dim % 2 or not self.rotary_dim
    ):
      raise ValueError(
        "head_dim * rotary_fraction must be even for rotary positions, got "
        f"{self.head_dim} * {self.rotary_fraction}"
      )
    if self.position_offset < 0:
      raise ValueError(
        f"position_offset must be >= 0, got {self.position_offset}"
      )
    if self.unroll > self.num_layers:
      raise ValueError(
        f"unroll must be at most num_layers = {self.num_layers}, got "
        f"{self.unroll}"
      )
    if not 0.0 <= self.dropout < 1.0:
      raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
    for name in (
      "norm_eps",
      "rope_theta",
      "local_rope_theta",
      "attention_cap",
      "logit_cap",
    ):
      value = getattr(self, name)
      if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"{name} must be > 0, got {value}")
    if self.qk_norm_whole and not self.qk_norm:
      raise ValueError("qk_norm_whole needs qk_norm")
    if self.attention_cap is not None and self.attention == "fused":
      raise ValueError(
        "attention must be 'dense' or 'splash' with attention_cap, got 'fused'"
      )
    if self.num_outputs is not None and self.value_head:
      raise ValueError(
        "value_head belongs to a language model: num_outputs must be None, got "
        f"{self.num_outputs}"
      )
    if self.num_outputs is None and self.num_texts is not None:
      raise ValueError("num_texts belongs to a reward model: set num_outputs")
    for name, unread in READING.items():
      value = getattr(self, name)
      if self.num_outputs is None and value != unread:
        raise ValueError(
          f"{name} belongs to a reward model: it must be {unread!r} where "
          f"num_outputs is None, got {value!r}"
        )
    if self.head_units is None and self.head_activation != "tanh":
      raise ValueError(
        "head_activation is that of head_units: it must be 'tanh' where these "
        f"are None, got {self.head_activation!r}"
      )
    if self.head_units == 1:
      raise ValueError(
        "head_units must be None or >= 2, got 1: rewards of one unit rank "
        "texts as a linear head does"
      )
    if self.num_values > 1 and not self.value_head:
      raise ValueError(f"num_values={self.num_values} needs value_head")
    for name in ("pad_id", "bos_id", "eos_id"):
      value = getattr(self, name)
      ids = value if isinstance(value, tuple) else (value,)
      for token in ids:
        if token is not None and not 0 <= token < self.vocab_size:
          raise ValueError(
            f"{name} must be in [0, vocab_size) = [0, {self.vocab_size}), got "
            f"{value}"
          )

  def _check_layers(self) -> None:
    """Checks what differs from layer to layer; all alike becomes None."""
    mixed = self.mixed_layers
    if mixed is not None and (
      not is_layers(mixed) or mixed[-1] != self.num_layers
    ):
      raise ValueError(
        f"mixed_layers must be {LAYERS}, the last num_layers = "
        f"{self.num_layers}, got {mixed!r}"
      )
    for name in ("rotary_layers", "window_layers"):
      layers = getattr(self, name)
      if layers is None:
        continue
      if (
        not isinstance(layers, tuple)
        or len(layers) != self.num_layers
        or not all(isinstance(layer, bool) for layer in layers)
      ):
        raise ValueError(
          f"{name} must be a tuple of num_layers = {self.num_layers} bools, "
          f"got {layers!r}"
        )
      if all(layers):
        object.__setattr__(self, name, None)
    if self.attention_width == self.head_dim:
      object.__setattr__(self, "attention_width", None)
    if self.window_layers is not None and not any(self.window_layers):
      object.__setattr__(self, "window_layers", None)
      object.__setattr__(self, "sliding_window", None)
    if self.sliding_window is None:
      if self.window_layers is not None:
        raise ValueError("window_layers needs sliding_window, got None")
      object.__setattr__(self, "local_rope_theta", None)
    scaling = self.rope_scaling
    if scaling is not None and scaling.kind == "longrope":
      for name in ("short_factor", "long_factor"):
        if len(getattr(scaling, name)) != self.rotary_dim // 2:
          raise ValueError(
            f"{name} must hold a number for each of the {self.rotary_dim // 2} "
            f"pairs of a head, got {len(getattr(scaling, name))}"
          )


LAYERS = "two or more layers in ascending order, from 1 on"


def is_layers(value: object) -> bool:
  """Whether a value is what `LAYERS` says, as a tuple."""
  return (
    isinstance(value, tuple)
    and len(value) > 1
    and all(type(layer) is int for layer in value)
    and value[0] > 0
    and all(a < b for a, b in zip(value, value[1:], strict=False))
  )


def _positive(name: str, value: object) -> None:
  if isinstance(value, bool) or not isinstance(value, int):
    raise TypeError(f"{name} must be an int, got {value!r}")
  if value < 1:
    raise ValueError(f"{name} must be >= 1, got {value}")


def available_dtype(field: str, name: str) -> jnp.dtype:
  """The dtype; ValueError if JAX would silently narrow it.

  Args:
    field: the config field that asks for it, for the error.
    name: "bfloat16", "float32" or "float64".

  Returns:
    The dtype.

  Raises:
    ValueError: float64 without `jax_enable_x64`.
  """
  dtype = jnp.dtype(name)
  if jax.dtypes.canonicalize_dtype(dtype) != dtype:
    raise ValueError(
      f"{field}={name!r} needs the JAX option jax_enable_x64, which is off"
    )
  return dtype
