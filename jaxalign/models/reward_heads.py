"""Reward networks: a decoder, or features that are given, read by a head."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import blocks, decoder
from jaxalign.models.config import DecoderConfig


class RewardOutput(NamedTuple):
  """Output of a reward model per sequence.

  Attributes:
    rewards: [B, num_outputs], float32 or wider; 0 for a sequence without an
      attended token.
    features: the vector that the linear head reads, [B, D], float32 or wider;
      the hidden units, [B, head_units], of a head that has some.
  """

  rewards: jax.Array
  features: jax.Array


ACTIVATIONS = {"tanh": jnp.tanh, "gelu": blocks.ACTIVATIONS["gelu"]}


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
  """A linear map, computed in at least float32."""

  config: DecoderConfig
  features: int
  std: float
  axis: str | None = "embed"  # logical, of what it reads
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x [..., D] to [..., features]."""
    dtype = jnp.dtype(self.config.param_dtype)
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(
        nn.initializers.normal(self.std), (self.axis, "outputs")
      ),
      (x.shape[-1], self.features),
      dtype,
    )
    # An accelerator's default would take these float32 products in bfloat16.
    y = jnp.dot(x, kernel.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)
    if self.use_bias:
      bias = self.param(
        "bias",
        nn.with_logical_partitioning(nn.initializers.zeros, ("outputs",)),
        (self.features,),
        dtype,
      )
      y = y + blocks.along_last(bias.astype(y.dtype), y)
    return y


class LayerMixture(nn.Module):
  """Several layers as one vector, by learned weights that sum to 1.

    f = Σ_l s_l N(h_l),  s = softmax(a)

  N is the final norm, which a layer that is read alone goes through too.

  References:
    Peters et al., "Deep contextualized word representations", 2018, equation 1;
    its factor before the sum is left to the head.
  """

  config: DecoderConfig

  @nn.compact
  def __call__(self, each: jax.Array) -> jax.Array:
    """Maps [B, n, D] to [B, D]."""
    logits = self.param(
      "logits",
      nn.with_logical_partitioning(nn.initializers.zeros, ("outputs",)),
      each.shape[1:2],
      jnp.dtype(self.config.param_dtype),
    )
    return jnp.einsum(
      "n,bnd->bd",
      jax.nn.softmax(logits.astype(each.dtype)),
      each,
      precision=jax.lax.Precision.HIGHEST,
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
    # Rewards of about unit variance at the start, as the final norm has unit
    # power.
    std = (config.num_features + 1) ** -0.5
    if config.head_units is None:
      self.score = Head(config, config.num_outputs, std)
    else:
      self.score = Head(config, config.num_outputs, std, axis=None)
      self.hidden = Head(
        config, config.head_units, config.embed_dim**-0.5, use_bias=True
      )
    if config.log_length is not None:
      self.log_length = LogLength(config)
    if config.mixed_layers is not None:
      self.layer_mixture = LayerMixture(config)

  def mixed(self, features: jax.Array, attended: jax.Array) -> jax.Array:
    """One vector per text, [B, D], of that, or of [B, n, D] of n layers."""
    if self.config.mixed_layers is None:
      return features
    return self.layer_mixture(jnp.where(attended[:, None, None], features, 0.0))

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
    if self.config.head_units is not None:
      units = ACTIVATIONS[self.config.head_activation](self.hidden(features))
      features = jnp.where(attended[:, None], units, 0.0)
    rewards = self.score(features)
    if self.config.log_length is not None:
      rewards = self.log_length(rewards, log_length())
    return RewardOutput(rewards, features)


class RewardNetwork(RewardHeads, decoder.Decoder):
  """The decoder read by a head: at one token, or over the response."""

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
    attended = jnp.any(mask, axis=-1)
    pooled = self.pooled(tokens, mask, dropout_keys, response)
    features = self.mixed(pooled, attended)
    return self.read(
      features,
      attended,
      lambda: log_lengths(mask, response, features.dtype),
    )

  def pooled(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    response: jax.Array | None = None,
  ) -> jax.Array:
    """What is read of tokens [B, T]: [B, D], or [B, n, D] of n layers."""
    residual = self.residual(tokens, mask, dropout_keys)
    if self.config.pooling == "mean":
      read = lambda x: masked_mean(self.final_norm(x), mask, response)
    else:
      # Pooled before the norm, which would otherwise run over every token.
      at = last_attended(mask, but_one=self.config.pooling == "before_last")
      at = at[:, None, None]
      read = lambda x: self.final_norm(jnp.take_along_axis(x, at, axis=1)[:, 0])
    if self.config.mixed_layers is None:
      return read(residual)
    return jnp.stack([*map(read, residual)], axis=1)


class FeatureNetwork(RewardHeads, nn.Module):
  """A head on features that are given: a text is one token, its number.

  The parameter `features`, [num_texts, D], stands where `RewardNetwork` has a
  decoder, so whatever trains or scores that one does the same with this. With
  `mixed_layers` it has the D features of one layer after those of another, with
  `log_length` a last column more, the log of each response's length.
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
      (config.num_texts, self.width + bool(config.log_length)),
      jnp.dtype(config.param_dtype),
    )
    self.add_heads()

  @property
  def width(self) -> int:
    """Features of a text, of all layers that are read."""
    return self.config.embed_dim * len(self.config.mixed_layers or (None,))

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
    attended = mask[:, 0]
    features = found[:, : self.width]
    if self.config.mixed_layers is not None:
      features = features.reshape(len(found), -1, self.config.embed_dim)
    features = self.mixed(features, attended)
    features = blocks.row_dropout(
      features[:, None], dropout_keys, self.config.dropout
    )[:, 0]
    return self.read(
      features, attended, lambda: jnp.where(attended, found[:, -1], 0.0)
    )
