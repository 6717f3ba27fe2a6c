"""Reward and language models as pure `init` and `apply` over nested dicts."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import decoder, embedding
from jaxalign.models.config import DecoderConfig

Params = Any  # a nested dict of arrays


class RewardOutput(NamedTuple):
  """What a reward model says of each sequence.

  Attributes:
    rewards: [B, num_outputs], float32 or wider; 0 for a sequence without an
      attended token.
    features: the vector that the linear head reads, [B, D], float32 or wider.
  """

  rewards: jax.Array
  features: jax.Array


class LanguageOutput(NamedTuple):
  """What a language model says at each token.

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
  """A network as two pure functions.

  Attributes:
    init: `(key, tokens [B, T], mask [B, T]) -> params`; only the shapes of
      tokens and mask are used.
    apply: `(params, tokens [B, T] int, mask [B, T] bool, *, dropout_keys=None,
      segment_ids=None) -> RewardOutput | LanguageOutput`, not jitted;
      `dropout_keys` are typed keys [B], one per row, and `segment_ids` int
      [B, T] tell texts apart that are packed into one row, as if each had a row
      of its own.
    axes: the tree of params with a tuple of logical axis names, one per array
      dimension, in place of each array.
  """

  init: Callable[..., Params]
  apply: Callable[..., Any]
  axes: Any


def last_attended(mask: jax.Array) -> jax.Array:
  """Index of each row's last attended token, int32 [B]; 0 if there is none.

  Args:
    mask: bool [B, T].
  """
  steps = jnp.arange(mask.shape[-1], dtype=jnp.int32)
  return jnp.max(jnp.where(mask, steps[None], 0), axis=-1)


class Head(nn.Module):
  """A linear read-out without bias, computed in at least float32."""

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


class RewardNetwork(decoder.Decoder):
  """The decoder read by a linear head at the last attended token."""

  def setup(self) -> None:
    """Adds the head."""
    super().setup()
    config = self.config
    # Rewards of unit variance at the start, as the final norm has unit power.
    std = (config.embed_dim + 1) ** -0.5
    self.score = Head(config, config.num_outputs, std)

  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
  ) -> RewardOutput:
    """Rewards of tokens [B, T]."""
    if segment_ids is not None:
      raise ValueError(
        "segment_ids must be None for a reward model, which reads a row's last "
        "token: give each text a row of its own"
      )
    residual = self.residual(tokens, mask, dropout_keys)
    # Pooled before the norm, which would otherwise run over every token.
    at = last_attended(mask)[:, None, None]
    pooled = jnp.take_along_axis(residual, at, axis=1)[:, 0]
    features = self.final_norm(pooled)
    features = jnp.where(jnp.any(mask, axis=-1)[:, None], features, 0.0)
    return RewardOutput(self.score(features), features)


class LanguageNetwork(decoder.Decoder):
  """The decoder read by a language head, and a value head if there is one."""

  def setup(self) -> None:
    """Adds the heads."""
    super().setup()
    config = self.config
    if not config.tie_embeddings:
      self.lm_head = embedding.language_head(config)
    if config.value_head:
      self.value = Head(config, config.num_values, 0.0)

  def __call__(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
  ) -> LanguageOutput:
    """Next-token logits of tokens [B, T]."""
    residual = self.residual(tokens, mask, dropout_keys, segment_ids)
    hidden = self.final_norm(residual)
    tied = self.config.tie_embeddings
    read = self.embed.logits if tied else self.lm_head
    logits = read(hidden.reshape(-1, hidden.shape[-1]))
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
  ) -> Any:
    variables = {"params": params}
    return network.apply(variables, tokens, mask, dropout_keys, segment_ids)

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
    config: with `num_outputs` set.

  Returns:
    `init`, `apply` and the logical axes of the parameters. Rewards are read at
    the last attended token, so padding of any kind never changes them.

  Raises:
    ValueError: `num_outputs` is None.
  """
  if config.num_outputs is None:
    raise ValueError("num_outputs must be set for a reward model, got None")
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
