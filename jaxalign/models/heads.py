"""Reward and language models: pure `init` and `apply` over nested dicts.

`token_log_probs` computes logits for a slice of the vocabulary at a time, as
the logits of a long batch are the largest array of a language model.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import blocks, decoder
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks

Params = Any  # a nested dict of arrays
FEATURES = "features"  # the table of a network that is a head alone


class RewardOutput(NamedTuple):
  """Output of a reward model per sequence.

  Attributes:
    rewards: [B, num_outputs], float32 or wider; 0 for a sequence without an
      attended token.
    features: the vector that the linear head reads, [B, D], float32 or wider.
  """

  rewards: jax.Array
  features: jax.Array


class LanguageOutput(NamedTuple):
  """Output of a language model per token.

  Attributes:
    logits: of the next token, [B, T, V], float32 or wider.
    hidden: the vector that the heads read, [B, T, D], float32 or wider.
    values: what the value head reads, float32 or wider: the expected return
      from here, [B, T], or [B, T, num_values] with several; None without
      `value_head`.
  """

  logits: jax.Array
  hidden: jax.Array
  values: jax.Array | None


class Model(NamedTuple):
  """A model as two pure functions, `init` and `apply`.

  Attributes:
    init: `(key, tokens [B, T], mask [B, T]) -> params`; only the shapes of
      tokens and mask are used.
    apply: `(params, tokens [B, T] int, mask [B, T] bool, *, dropout_keys=None,
      segment_ids=None, response=None) -> RewardOutput | LanguageOutput`, not
      jitted; `dropout_keys` are typed keys [B], one per row, and `segment_ids`
      int [B, T] tell texts apart that are packed into one row, as if each had a
      row of its own. `response`, bool [B, T], marks the tokens of the response:
      `pooling="mean"` of a reward model needs it, others never read it.
    axes: the tree of params with a tuple of logical axis names, one per array
      dimension, in place of each array.
  """

  init: Callable[..., Params]
  apply: Callable[..., Any]
  axes: Any


def last_attended(mask: jax.Array, *, but_one: bool = False) -> jax.Array:
  """Index of each row's last attended token, int32 [B]; 0 if there is none.

  Args:
    mask: bool [B, T].
    but_one: gives the last but one instead, where a row has two.
  """
  steps = jnp.arange(mask.shape[-1], dtype=jnp.int32)[None]
  last = jnp.max(jnp.where(mask, steps, 0), axis=-1)
  if not but_one:
    return last
  before = jnp.max(jnp.where(mask & (steps < last[:, None]), steps, -1), -1)
  return jnp.where(before < 0, last, before)


def masked_mean(
  states: jax.Array, mask: jax.Array, response: jax.Array | None
) -> jax.Array:
  """Mean over the attended tokens of the response, [B, D].

  Args:
    states: of each token, [B, T, D].
    mask: True where a token is attended, bool [B, T].
    response: True on tokens of the response, bool [B, T]; None for all. A row
      without any is read over all its attended tokens.
  """
  read = mask if response is None else mask & response
  read = jnp.where(jnp.any(read, axis=-1, keepdims=True), read, mask)
  share = read.astype(states.dtype)
  share = share / jnp.maximum(jnp.sum(share, axis=-1, keepdims=True), 1)
  return jnp.einsum(
    "bt,btd->bd",
    share,
    jnp.where(read[..., None], states, 0.0),
    precision=jax.lax.Precision.HIGHEST,
  )


class Head(nn.Module):
  """A linear head without bias, computed in at least float32."""

  config: DecoderConfig
  features: int
  std: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [..., D] to [..., features]."""
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(
        nn.initializers.normal(self.std), ("embed", "outputs")
      ),
      (x.shape[-1], self.features),
      jnp.dtype(self.config.param_dtype),
    )
    # An accelerator's default would take these float32 products in bfloat16.
    return jnp.dot(
      x, kernel.astype(x.dtype), precision=jax.lax.Precision.HIGHEST
    )


class LogLength(nn.Module):
  """The part of a reward that goes with the log of a response's length."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, rewards: jax.Array, log_length: jax.Array) -> jax.Array:
    """Rewards [B, H] with the term added, or as they are with "remove"."""
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(nn.initializers.zeros, (None, "outputs")),
      (1, rewards.shape[-1]),
      jnp.dtype(self.config.param_dtype),
    )
    if self.config.log_length == "remove":
      return rewards
    return rewards + log_length[:, None] * kernel.astype(rewards.dtype)


def log_lengths(
  mask: jax.Array, response: jax.Array | None, dtype: jnp.dtype
) -> jax.Array:
  """Log of the number of attended tokens of each response, [B]; 0 for none."""
  read = mask if response is None else mask & response
  return jnp.log(jnp.maximum(jnp.sum(read, axis=-1, dtype=dtype), 1))


class RewardHeads:
  """What networks of rewards have in common: heads on features of a text."""

  config: DecoderConfig

  def add_heads(self) -> None:
    """Declares the heads; to be called in `setup`."""
    config = self.config
    # Rewards of unit variance at the start, as the final norm has unit power.
    std = (config.embed_dim + 1) ** -0.5
    self.score = Head(config, config.num_outputs, std)
    if config.log_length is not None:
      self.log_length = LogLength(config)

  def read(
    self,
    features: jax.Array,
    attended: jax.Array,
    log_length: Callable[[], jax.Array],
  ) -> RewardOutput:
    """Rewards [B, H] of features [B, D], 0 for a text without a token.

    `log_length` gives that of each response, [B], where rewards have its term.
    """
    features = jnp.where(attended[:, None], features, 0.0)
    rewards = self.score(features)
    if self.config.log_length is not None:
      rewards = self.log_length(rewards, log_length())
    return RewardOutput(rewards, features)


class RewardNetwork(RewardHeads, decoder.Decoder):
  """The decoder read by a linear head: at one token, or over the response."""

  def setup(self) -> None:
    """Adds the heads."""
    super().setup()
    self.add_heads()

  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    response: jax.Array | None = None,
  ) -> RewardOutput:
    """Rewards of tokens [B, T]."""
    if segment_ids is not None:
      raise ValueError(
        "segment_ids must be None for a reward model, which reads a row's last "
        "token: give each text a row of its own"
      )
    residual = self.residual(tokens, mask, dropout_keys)
    if self.config.pooling == "mean":
      features = masked_mean(self.final_norm(residual), mask, response)
    else:
      # Pooled before the norm, which would otherwise run over every token.
      at = last_attended(mask, but_one=self.config.pooling == "before_last")
      pooled = jnp.take_along_axis(residual, at[:, None, None], axis=1)[:, 0]
      features = self.final_norm(pooled)
    return self.read(
      features,
      jnp.any(mask, axis=-1),
      lambda: log_lengths(mask, response, features.dtype),
    )


class FeatureNetwork(RewardHeads, nn.Module):
  """A head on features that are given: a text is one token, its number.

  The parameter `features`, [num_texts, D], stands where `RewardNetwork` has a
  decoder, so whatever trains or scores that one does the same with this. With
  `log_length` it has a last column more, the log of each response's length.
  """

  config: DecoderConfig

  def setup(self) -> None:
    """Declares the table, which a run keeps frozen, and the head."""
    config = self.config
    self.features = self.param(
      "features",
      nn.with_logical_partitioning(
        nn.initializers.zeros, (None, None if config.log_length else "embed")
      ),
      (config.num_texts, config.embed_dim + bool(config.log_length)),
      jnp.dtype(config.param_dtype),
    )
    self.add_heads()

  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    response: jax.Array | None = None,
  ) -> RewardOutput:
    """Rewards of texts by their numbers, tokens [B, 1]."""
    del segment_ids, response
    numbers = jnp.where(mask[:, 0], tokens[:, 0], 0)
    found = self.features[numbers].astype(blocks.wide_dtype(self.config))
    features = found[:, : self.config.embed_dim]
    features = blocks.row_dropout(
      features[:, None], dropout_keys, self.config.dropout
    )[:, 0]
    attended = mask[:, 0]
    return self.read(
      features, attended, lambda: jnp.where(attended, found[:, -1], 0.0)
    )


class LanguageNetwork(decoder.Decoder):
  """The decoder read by a language head, and a value head if there is one."""

  def setup(self) -> None:
    """Adds the heads."""
    super().setup()
    config = self.config
    if not config.tie_embeddings:
      self.lm_head = decoder.language_head(config)
    if config.value_head:
      self.value = Head(config, config.num_values, 0.0)

  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    response: jax.Array | None = None,
  ) -> LanguageOutput:
    """Next-token logits of tokens [B, T]."""
    del response
    residual = self.residual(tokens, mask, dropout_keys, segment_ids)
    hidden = self.final_norm(residual)
    flat = hidden.reshape(-1, hidden.shape[-1])
    if self.config.tie_embeddings:
      logits = self.embed.logits(flat)
    else:
      logits = decoder.capped(self.lm_head(flat), self.config)
    logits = logits.reshape(*tokens.shape, -1)
    logits = nn.with_logical_constraint(logits, ("batch", None, "vocab"))
    values = None
    if self.config.value_head:
      values = self.value(hidden)
      values = values[..., 0] if self.config.num_values == 1 else values
    return LanguageOutput(logits, hidden, values)


def _model(network: nn.Module) -> Model:
  """The pure functions of a Linen module."""

  # Compiled, so that one key gives the same bits whether or not the caller
  # jits; lazy, so that no forward pass is run.
  @jax.jit
  def init(key: jax.Array, tokens: jax.Array, mask: jax.Array) -> Params:
    shaped = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (tokens, mask)]
    return nn.unbox(network.lazy_init(key, *shaped)["params"])

  def apply(
    params: Params,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    response: jax.Array | None = None,
  ) -> Any:
    config = network.config
    reads = config.pooling == "mean" or config.log_length == "keep"
    if reads and config.num_texts is None and response is None:
      raise ValueError(
        "response must mark the tokens that pooling='mean' is the mean of and "
        "log_length='keep' counts, got None"
      )
    if response is not None:
      checks.boolean(response=response)
      checks.same_shape(tokens=tokens, response=response)
    variables = {"params": params}
    return network.apply(
      variables, tokens, mask, dropout_keys, segment_ids, response
    )

  shape = (1, 1)
  boxed = jax.eval_shape(
    network.init,
    jax.random.key(0),
    jax.ShapeDtypeStruct(shape, jnp.int32),
    jax.ShapeDtypeStruct(shape, jnp.bool_),
  )["params"]
  axes = jax.tree.map(
    lambda box: tuple(box.names),
    boxed,
    is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned),
  )
  return Model(init, apply, axes)


@functools.cache
def reward_model(config: DecoderConfig) -> Model:
  """A reward model: `apply` gives `RewardOutput`.

  Args:
    config: with `num_outputs` set; with `num_texts` too it is a head alone.

  Returns:
    `init`, `apply` and the logical axes of the parameters. Rewards are read at
    attended tokens, so padding of any kind never changes them.

  Raises:
    ValueError: `num_outputs` is None.
  """
  if config.num_outputs is None:
    raise ValueError("num_outputs must be set for a reward model, got None")
  if config.num_texts is not None:
    return _model(FeatureNetwork(config))
  return _model(RewardNetwork(config))


@functools.cache
def causal_lm(config: DecoderConfig) -> Model:
  """A language model: `apply` gives `LanguageOutput`.

  Args:
    config: with `num_outputs` None.

  Returns:
    `init`, `apply` and the logical axes of the parameters.

  Raises:
    ValueError: `num_outputs` is set.
  """
  if config.num_outputs is not None:
    raise ValueError(
      f"num_outputs must be None for a language model, got {config.num_outputs}"
    )
  return _model(LanguageNetwork(config))


def model_of(config: DecoderConfig) -> Model:
  """The reward model if `num_outputs` is set, else the language model.

  Args:
    config: of either.

  Returns:
    `init`, `apply` and the logical axes of the parameters.
  """
  return (
    causal_lm(config) if config.num_outputs is None else reward_model(config)
  )


SLICE = 8192  # tokens of the vocabulary at a time


def token_log_probs(
  config: DecoderConfig,
  params: Any,
  hidden: jax.Array,
  tokens: jax.Array,
  *,
  slice_size: int = SLICE,
) -> jax.Array:
  """Log-probability of each token under the head at its place.

    log p = z[token] - log sum_v exp z[v]

  For the tokens of a text, pass `hidden[:, :-1]` and `tokens[:, 1:]`. Logits
  that are not read are not computed, so `apply(...).hidden` is all it takes.

  Args:
    config: of a language model.
    params: its parameters.
    hidden: what the head reads, [B, T, D], as `LanguageOutput` has it.
    tokens: int [B, T].
    slice_size: most tokens of the vocabulary whose logits exist at the same
      time; slices are of one size, so that next to none of it is padding.

  Returns:
    [B, T], float32 or wider.

  Raises:
    TypeError, ValueError: an argument has the wrong type or shape.
  """
  checks.floating(hidden=hidden)
  checks.integer(tokens=tokens)
  checks.rank(2, tokens=tokens)
  if hidden.shape[:2] != tokens.shape:
    raise ValueError(
      f"hidden must have the leading axes of tokens {tokens.shape}, got shape "
      f"{hidden.shape}"
    )
  if slice_size < 1:
    raise ValueError(f"slice_size must be >= 1, got {slice_size}")
  dtype, wide = jnp.dtype(config.dtype), blocks.wide_dtype(config)
  if config.tie_embeddings:
    table = params["embed"]["tokens"]
  else:
    table = params["lm_head"]["kernel"].T
  number = -(-config.vocab_size // slice_size)
  slice_size = -(-config.vocab_size // number)
  spare = number * slice_size - config.vocab_size
  # A row of padding scores nothing: its logit is put out of the sum.
  table = jnp.pad(table.astype(dtype), ((0, spare), (0, 0)))
  table = table.reshape(number, slice_size, -1)
  flat = hidden.astype(dtype).reshape(-1, hidden.shape[-1])
  wanted = tokens.reshape(-1)
  lowest = 0.7 * float(jnp.finfo(wide).min)
  columns = jnp.arange(slice_size, dtype=wanted.dtype)[None]

  def add(carry: Any, part: Any) -> tuple[Any, None]:
    peak, total, chosen = carry
    start, rows = part
    logits = jax.lax.dot_general(
      flat, rows, (((1,), (1,)), ((), ())), preferred_element_type=wide
    )
    logits = decoder.capped(logits, config)
    logits = jnp.where(columns < config.vocab_size - start, logits, lowest)
    higher = jnp.maximum(peak, jax.lax.stop_gradient(logits.max(-1)))
    total = total * jnp.exp(peak - higher)
    total = total + jnp.sum(jnp.exp(logits - higher[:, None]), axis=-1)
    here = columns == (wanted - start)[:, None]
    return (
      higher,
      total,
      chosen + jnp.sum(jnp.where(here, logits, 0.0), axis=-1),
    ), None

  # With several, the backward pass takes the logits of a slice again.
  again = add if number == 1 else jax.checkpoint(add)
  starts = jnp.arange(number, dtype=wanted.dtype) * slice_size
  # Zeros that vary over the devices as the rows do.
  zero = jnp.zeros_like(flat[:, 0], wide)
  carry = (jax.lax.stop_gradient(zero + lowest), zero, zero)
  (peak, total, chosen), _ = jax.lax.scan(again, carry, (starts, table))
  return (chosen - peak - jnp.log(total)).reshape(tokens.shape)
