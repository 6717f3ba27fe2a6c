"""Text augmentation for contrastive views: masked tokens and a deleted span.

Texts are padded on the right. The first and the last token stay, as a tokenizer
puts its markers there and a reward is read at the last one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.algorithms.update import Batch

KINDS = ("masking", "deletion")

# (key, tokens [T], mask [T], begin []) -> tokens and mask of the changed text
Change = Callable[
  [jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]
]


def changeable(mask: jax.Array, begin: jax.Array) -> jax.Array:
  """Which tokens of a text may be changed.

  Args:
    mask: of its tokens, padded on the right, bool [T].
    begin: tokens of the prompt, which stay, int [].

  Returns:
    bool [T]: from the response on, but the first and last token of the text.
  """
  at = jnp.arange(mask.shape[0], dtype=jnp.int32)
  end = jnp.sum(mask, dtype=jnp.int32) - 1
  return (at >= jnp.maximum(begin, 1)) & (at < end)


def masked(rate: float, token: int) -> Change:
  """Replaces each token of a response with a probability.

  Args:
    rate: that probability, Python float in (0, 1).
    token: id written in its place.

  Returns:
    The change. The length stays.
  """

  def change(
    key: jax.Array, tokens: jax.Array, mask: jax.Array, begin: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    drawn = jax.random.bernoulli(key, rate, tokens.shape)
    drawn &= changeable(mask, begin)
    return jnp.where(drawn, jnp.asarray(token, tokens.dtype), tokens), mask

  return change


def shortened(rate: float) -> Change:
  """Takes one span out of a response; what follows moves up.

  Args:
    rate: share of the tokens that may be changed, Python float in (0, 1); the
      span has ⌈rate·n⌉ of them, and each place is equally likely.

  Returns:
    The change. What is behind the new end is masked.
  """

  def change(
    key: jax.Array, tokens: jax.Array, mask: jax.Array, begin: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    may = changeable(mask, begin)
    number = jnp.sum(may, dtype=jnp.int32)
    length = jnp.ceil(rate * number - 1e-6).astype(jnp.int32)
    place = jax.random.randint(key, (), 0, number - length + 1)
    start = jnp.maximum(begin, 1) + place
    at = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    source = jnp.where(at < start, at, at + length)
    inside = source < tokens.shape[0]
    source = jnp.where(inside, source, at)
    return tokens[source], mask[source] & inside

  return change


def second_view(change: Change, batch: Batch) -> dict[str, jax.Array]:
  """Every response of a batch as it is, and changed.

  Args:
    change: of one text.
    batch: `tokens` int32 and `mask` bool [B, R, T], `key` [B], and
      `prompt_lengths` int [B, R] where it tells prompts apart.

  Returns:
    `tokens` and `mask` [B, 2 R, T], changed ones behind the others, and fresh
    keys under `key`.
  """
  tokens, mask = batch["tokens"], batch["mask"]
  rows, responses, _ = tokens.shape
  begin = batch.get("prompt_lengths")
  if begin is None:
    begin = jnp.zeros((rows, responses), jnp.int32)
  keys = jax.vmap(jax.random.split, (0, None))(batch["key"], responses + 1)
  new_tokens, new_mask = jax.vmap(jax.vmap(change))(
    keys[:, 1:], tokens, mask, begin
  )
  return {
    "tokens": jnp.concatenate([tokens, new_tokens], axis=1),
    "mask": jnp.concatenate([mask, new_mask], axis=1),
    "key": keys[:, 0],
  }
