"""Token-by-token decoding: a cache per layer, and no scan over layers."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import attention, blocks, decoder, layer_kinds
from jaxalign.models.config import DecoderConfig

Params = Any  # nested dict of arrays, `layers` a tuple of trees


class Prefilled(NamedTuple):
  """Caches and last output of a prompt.

  Attributes:
    logits: of the token after each row's last attended one, [B, V].
    caches: keys and values of each layer, `blocks.Cache` of [B, K, T, d].
    positions: of each slot's token among the attended ones, int32 [B, T]; -1
      where nothing is attended.
  """

  logits: jax.Array
  caches: tuple[blocks.Cache, ...]
  positions: jax.Array


def prefill(
  config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array
) -> Prefilled:
  """Runs the prompts and keeps their keys and values.

  Args:
    config: of a language model.
    params: its parameters, `layers` by layer.
    tokens: int [B, T], padded anywhere.
    mask: True where a token is attended, bool [B, T].

  Returns:
    Logits, caches and positions.
  """
  positions = attention.positions_of(mask)
  around = layer_kinds.surroundings(config, mask, blocks.wide_dtype(config))
  empty = [None] * config.num_layers
  tokens = jnp.where(mask, tokens, 0)
  x, caches = _layers(config, params, tokens, positions, around, empty, None)
  # The head reads one token of each row.
  at = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1])[None], 0), axis=-1)
  last = jnp.take_along_axis(x, at[:, None, None], axis=1)
  return Prefilled(
    _logits(config, params, last), caches, jnp.where(mask, positions, -1)
  )


def step(
  config: DecoderConfig,
  params: Params,
  tokens: jax.Array,
  positions: jax.Array,
  caches: tuple[blocks.Cache, ...],
  cached: jax.Array,
  slot: jax.Array,
  used: jax.Array | None = None,
) -> tuple[jax.Array, tuple[blocks.Cache, ...]]:
  """Runs one token of each row against the caches and adds it to them.

  Args:
    config: of a language model.
    params: its parameters, `layers` by layer.
    tokens: int [B].
    positions: of the tokens, int32 [B].
    caches: keys and values of each layer, [B, K, S, d].
    cached: position of the token in each slot, int32 [B, S], -1 where there is
      none; that of the new token included.
    slot: where the new token goes, int32 scalar, one for all rows.
    used: slots from the first that may hold a token, that one included, int32
      scalar; None for all.

  Returns:
    (logits of the next token [B, V], the caches).
  """
  at = positions[:, None]
  before = (cached >= 0) & (cached <= at)

  def around(kind: layer_kinds.LayerKind) -> layer_kinds.Surroundings:
    near = before
    if kind.window is not None:
      near &= at - cached < kind.window
    wide = blocks.wide_dtype(config)
    angles = layer_kinds.angles_of(config, kind, at, at + 1, wide)
    return layer_kinds.Surroundings(near[:, None, None], angles)

  kinds = tuple(around(kind) for kind in layer_kinds.kinds(config))
  x, caches = _layers(
    config, params, tokens[:, None], at, kinds, caches, slot, used
  )
  return _logits(config, params, x), caches


def _layers(
  config: DecoderConfig,
  params: Params,
  tokens: jax.Array,
  positions: jax.Array,
  around: tuple[layer_kinds.Surroundings, ...],
  caches: Any,
  slot: jax.Array | None,
  used: jax.Array | None = None,
) -> tuple[jax.Array, tuple[blocks.Cache, ...]]:
  """The residual stream [B, T, D] after all layers, and their caches."""
  embed = decoder.Embedding(config)
  x = embed.apply({"params": params["embed"]}, tokens, positions)
  # As the network has it: the embedding leaves its rows laid out by width, and
  # a first layer that took them so would add its products up over devices.
  x = nn.with_logical_constraint(x, ("batch", None, None))
  block = blocks.Block(config, keep_cache=True)
  kept = []
  kinds = layer_kinds.kind_of_layers(config)
  for layer, kind, cache in zip(params["layers"], kinds, caches, strict=True):
    x, cache = block.apply(
      {"params": layer}, x, None, *around[kind], None, cache, slot, used
    )
    kept.append(cache)
  return x, tuple(kept)


def _logits(config: DecoderConfig, params: Params, x: jax.Array) -> jax.Array:
  """Logits [B, V] of the residual stream x [B, 1, D], at least float32."""
  norm = blocks.Norm(config)
  hidden = norm.apply({"params": params["final_norm"]}, x[:, 0])
  if config.tie_embeddings:
    embed = decoder.Embedding(config)
    logits = embed.apply({"params": params["embed"]}, hidden, method="logits")
  else:
    head = decoder.language_head(config)
    logits = head.apply({"params": params["lm_head"]}, hidden)
    logits = decoder.capped(logits, config)
  return nn.with_logical_constraint(logits, ("batch", "vocab"))
