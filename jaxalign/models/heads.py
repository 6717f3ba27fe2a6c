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

from jaxalign.models import blocks, decoder, reward_heads
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks

Params = Any  # a nested dict of arrays
FEATURES = "features"  # the table of a network that is a head alone


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


class LanguageNetwork(decoder.Decoder):
  """The decoder read by a language head, and a value head if there is one."""

  def setup(self) -> None:
    """Adds the heads."""
    super().setup()
    config = self.config
    if not config.tie_embeddings:
      self.lm_head = decoder.language_head(config)
    if config.value_head:
      self.value = reward_heads.Head(config, config.num_values, 0.0)

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
    return _model(reward_heads.FeatureNetwork(config))
  return _model(reward_heads.RewardNetwork(config))


def pooled_features(
  config: DecoderConfig,
  params: Params,
  tokens: jax.Array,
  mask: jax.Array,
  response: jax.Array,
) -> jax.Array:
  """What the head of a reward model reads of texts.

  Args:
    config: of a reward model with a decoder.
    params: its parameters.
    tokens: int [B, T].
    mask: True where a token is attended, bool [B, T].
    response: True on tokens of the response, bool [B, T].

  Returns:
    [B, D], float32 or wider, before any hidden units of the head; of a mixture
    of layers [B, n, D], before it.
  """
  return reward_heads.RewardNetwork(config).apply(
    {"params": params}, tokens, mask, response=response, method="pooled"
  )


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
