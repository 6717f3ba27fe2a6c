"""Embedding and decoder: token ids and a mask in, the residual stream out.

Training scans over the layers, so their parameters lie in one array. Decoding
runs through them one by one, and a layer cut from the middle of an array would
be copied at every token. `unstack_layers` and `stack_layers` convert.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import attention, blocks, layer_kinds
from jaxalign.models.config import DecoderConfig, available_dtype
from jaxalign.ops import checks

__all__ = ["Decoder", "DecoderConfig"]


EMBED_STD = 0.02
PARTS = ("embed", "layers", "final_norm")  # of the parameters, heads aside


class Embedding(nn.Module):
  """Token embeddings, plus learned positions where the config has them."""

  config: DecoderConfig

  def setup(self) -> None:
    """Declares the tables."""
    config = self.config
    table = lambda name, rows, axis: self.param(
      name,
      nn.with_logical_partitioning(
        nn.initializers.normal(EMBED_STD), (axis, "embed")
      ),
      (rows, config.embed_dim),
      jnp.dtype(config.param_dtype),
    )
    self.tokens = table("tokens", config.vocab_size, "vocab")
    if config.positions == "learned":
      rows = config.max_positions + config.position_offset
      self.positions = table("positions", rows, "positions")

  def __call__(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """Looks up tokens [B, T], giving [B, T, D] in the compute dtype."""

    # An id outside the vocabulary, below 0 too, gives NaN, which no training
    # step survives, and not some other token's row.
    def look(table: jax.Array, at: jax.Array) -> jax.Array:
      # Laid out as the rows will be, or on 16 x 16 devices the compiler rather
      # gathers the table, and adds its gradient up whole over all of them.
      at = nn.with_logical_constraint(at, ("replica", None))
      return table.at[at].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
      )

    x = look(self.tokens, tokens)
    # Laid out by width within a replica first, so that a device adds gradients
    # of its replica's rows to its columns of the table. From rows straight to
    # columns the compiler finds no way but a whole copy on every device.
    x = nn.with_logical_constraint(x, ("replica", None, "embed"))
    if self.config.positions == "learned":
      x = x + look(self.positions, positions + self.config.position_offset)
    x = x.astype(jnp.dtype(self.config.dtype))
    if self.config.scale_embeddings:
      # Rounded to the compute type, as transformers has it.
      x = x * jnp.asarray(self.config.embed_dim**0.5, x.dtype)
    return x

  def logits(self, hidden: jax.Array) -> jax.Array:
    """Scores hidden [N, D] against every token's embedding, [N, V]."""
    dtype = jnp.dtype(self.config.dtype)
    logits = jax.lax.dot_general(
      hidden.astype(dtype),
      self.tokens.astype(dtype),
      (((1,), (1,)), ((), ())),
      preferred_element_type=blocks.wide_dtype(self.config),
    )
    return capped(logits, self.config)


def capped(logits: jax.Array, config: DecoderConfig) -> jax.Array:
  """Logits of the next token, bent under `logit_cap` where there is one.

  Args:
    logits: as the head gives them.
    config: of a language model.

  Returns:
    Of the same shape.
  """
  cap = config.logit_cap
  return logits if cap is None else cap * jnp.tanh(logits / cap)


def language_head(config: DecoderConfig) -> blocks.Dense:
  """The head of a language model that is not tied to the embedding.

  Args:
    config: of a language model.

  Returns:
    The projection from [N, D] to logits [N, V], at least float32, before
    `capped`.
  """
  return blocks.Dense(
    config,
    config.vocab_size,
    ("embed", "vocab"),
    False,
    output_dtype=blocks.wide_dtype(config),
  )


class KeepingBlock(blocks.Block):
  """A layer that keeps its output where the config mixes it.

  The carry is the residual stream, [B, T, D], and what is kept, [n, B, T, D].
  """

  def __call__(
    self, carry: tuple[jax.Array, jax.Array], index: jax.Array, *args: Any
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    """Goes through the layer of number `index`, the rest as of `Block`."""
    x, kept = carry
    x, _ = super().__call__(x, index, *args)
    number = jnp.asarray(self.config.mixed_layers, index.dtype)
    here = (number == index + 1).reshape(-1, 1, 1, 1)
    return (x, jnp.where(here, x[None], kept)), None


class Decoder(nn.Module):
  """Embedding, scanned layers and final norm; subclasses add heads."""

  config: DecoderConfig

  def setup(self) -> None:
    """Declares the modules whose names are the parameter tree."""
    config = self.config
    available_dtype("dtype", config.dtype)
    available_dtype("param_dtype", config.param_dtype)
    block = blocks.Block if config.mixed_layers is None else KeepingBlock
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
    self.embed = Embedding(config)
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
      [B, T, D] in the compute dtype; with `mixed_layers` [n, B, T, D], after
      each of them.

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
    given = index, *layer_kinds.stacked(around), dropout_keys
    if config.mixed_layers is None:
      return self.layers(x, *given)[0]
    # Zeros that vary over the devices as the rows do.
    kept = jnp.stack([jnp.zeros_like(x)] * len(config.mixed_layers))
    kept = nn.with_logical_constraint(kept, (None, "batch", None, None))
    (_, kept), _ = self.layers((x, kept), *given)
    return kept


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
