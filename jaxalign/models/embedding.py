"""Token embedding, and the logits that share or do not share it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxalign.models import blocks
from jaxalign.models.config import DecoderConfig

EMBED_STD = 0.02


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
