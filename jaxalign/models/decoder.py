"""Decoder: token ids and a mask in, the residual stream out.

Training scans over the layers, so their parameters lie in one array. Decoding
runs through them one by one, and a layer cut from the middle of an array would
be copied at every token. `unstack_layers` and `stack_layers` convert.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import attention, blocks, embedding, layer_kinds
from jaxalign.models.config import DecoderConfig, available_dtype
from jaxalign.ops import checks

__all__ = ["Decoder", "DecoderConfig"]


class Decoder(nn.Module):
  """Embedding, scanned layers and final norm; subclasses add heads."""

  config: DecoderConfig

  def setup(self) -> None:
    """Declares the modules whose names are the parameter tree."""
    config = self.config
    available_dtype("dtype", config.dtype)
    available_dtype("param_dtype", config.param_dtype)
    block = blocks.Block
    if config.remat != "none":
      policies = jax.checkpoint_policies
      policy = {
        "dots": policies.dots_with_no_batch_dims_saveable,
        "full": policies.nothing_saveable,
      }[config.remat]
      # A loop keeps XLA from merging the two computations; without one,
      # when all layers are unrolled, it would undo the rematerialisation.
      block = nn.remat(
        block, policy=policy, prevent_cse=config.unroll == config.num_layers
      )
    self.embed = embedding.Embedding(config)
    self.layers = nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
      length=config.num_layers,
      unroll=config.unroll,
      metadata_params={nn.PARTITION_NAME: "layers"},
    )(config)
    self.final_norm = blocks.Norm(config)

  def residual(
    self,
    tokens: jax.Array,
    mask: jax.Array,
    dropout_keys: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
  ) -> jax.Array:
    """The residual stream after the last layer, before the final norm.

    Args:
      tokens: ids, integer [B, T]; what lies under the mask is never read.
      mask: True where a token is attended, bool [B, T].
      dropout_keys: typed keys [B], or None for no dropout.
      segment_ids: int [B, T], several texts in a row, one after another, each
        with a number of its own; None for one text per row.

    Returns:
      [B, T, D] in the compute dtype.

    Raises:
      TypeError, ValueError: an argument has the wrong type or shape, or T
        exceeds `max_positions`.
    """
    config = self.config
    checks.integer(tokens=tokens)
    checks.boolean(mask=mask)
    checks.rank(2, tokens=tokens)
    checks.same_shape(tokens=tokens, mask=mask)
    if tokens.shape[1] > config.max_positions:
      raise ValueError(
        f"tokens are {tokens.shape[1]} long, the model takes at most "
        f"max_positions = {config.max_positions}"
      )
    if dropout_keys is not None and dropout_keys.shape != tokens.shape[:1]:
      raise ValueError(
        "dropout_keys must be typed keys, one per row of tokens "
        f"{tokens.shape}, got shape {dropout_keys.shape}"
      )
    if segment_ids is not None:
      checks.integer(segment_ids=segment_ids)
      checks.same_shape(tokens=tokens, segment_ids=segment_ids)
    positions = attention.positions_of(mask, segment_ids)
    x = self.embed(jnp.where(mask, tokens, 0), positions)
    x = nn.with_logical_constraint(x, ("batch", None, None))
    if dropout_keys is not None:
      last = config.num_layers
      fold = jax.vmap(jax.random.fold_in, (0, None))
      x = blocks.row_dropout(x, fold(dropout_keys, last), config.dropout)
    wide = blocks.wide_dtype(config)
    around = layer_kinds.surroundings(config, mask, wide, segment_ids)
    index = jnp.arange(config.num_layers, dtype=jnp.int32)
    x, _ = self.layers(x, index, *layer_kinds.stacked(around), dropout_keys)
    return x


Params = Any  # a nested dict of arrays


def unstack_layers(params: Params) -> Params:
  """Parameters with `layers` as a tuple of trees, one per layer.

  It copies the layers once. Do it once per change of the parameters: what reads
  parameters layer by layer takes either form, and converts if it must.

  Args:
    params: of a model, [L, ...] under `layers`, or already by layer.

  Returns:
    The same tree with a tuple of L trees of [...] under `layers`.
  """
  layers = params["layers"]
  if isinstance(layers, tuple):
    return params
  number = jax.tree.leaves(layers)[0].shape[0]
  each = tuple(
    jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(number)
  )
  return {**params, "layers": each}


def stack_layers(params: Params) -> Params:
  """Parameters with the layers of each kind in one array, as `init` gives them.

  Args:
    params: as `unstack_layers` gives them.

  Returns:
    The same tree with [L, ...] under `layers`.
  """
  layers = params["layers"]
  if not isinstance(layers, tuple):
    return params
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
  return {**params, "layers": stacked}
