"""Log-probabilities of given tokens, a slice of the vocabulary at a time.

Logits of a long batch are the largest array of a language model. Here no more
than one slice of them exists, forwards or backwards.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.models import blocks
from jaxalign.models.config import DecoderConfig
from jaxalign.ops import checks

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
  that nobody reads are not computed, so `apply(...).hidden` is all it takes.

  Args:
    config: of a language model.
    params: its parameters.
    hidden: what the head reads, [B, T, D], as `LanguageOutput` has it.
    tokens: int [B, T].
    slice_size: tokens of the vocabulary whose logits exist at the same time.

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
  spare = number * slice_size - config.vocab_size
  # A row of padding scores nothing: its logit is put out of the sum.
  table = jnp.pad(table.astype(dtype), ((0, spare), (0, 0)))
  table = table.reshape(number, slice_size, -1)
  flat = hidden.astype(dtype).reshape(-1, hidden.shape[-1])
  wanted = tokens.reshape(-1)
  lowest = 0.7 * float(jnp.finfo(wide).min)
  columns = jnp.arange(slice_size, dtype=wanted.dtype)[None]

  # The backward pass takes the logits of a slice again.
  @jax.checkpoint
  def add(carry: Any, part: Any) -> tuple[Any, None]:
    peak, total, chosen = carry
    start, rows = part
    logits = jax.lax.dot_general(
      flat, rows, (((1,), (1,)), ((), ())), preferred_element_type=wide
    )
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

  starts = jnp.arange(number, dtype=wanted.dtype) * slice_size
  # Zeros that vary over the devices as the rows do.
  zero = jnp.zeros_like(flat[:, 0], wide)
  carry = (jax.lax.stop_gradient(zero + lowest), zero, zero)
  (peak, total, chosen), _ = jax.lax.scan(add, carry, (starts, table))
  return (chosen - peak - jnp.log(total)).reshape(tokens.shape)
