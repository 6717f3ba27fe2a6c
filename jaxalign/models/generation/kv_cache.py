"""Decoding state with a ring KV cache: one step for rows at any position.

The cache is a ring of slots, and all rows write the same slot at a step. A key
carries its position, so its slot does not matter. A row that begins while
others are halfway has its prompt put into the slots just before the one to be
written next, and no row waits for another.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.models import blocks
from jaxalign.models.config import DecoderConfig
from jaxalign.models.generation import decode, sampling

Params = Any  # nested dict of arrays, `layers` a tuple of trees


class Slots(NamedTuple):
  """Decoding state of B rows with S cache slots each.

  Attributes:
    caches: keys and values of each layer, `blocks.Cache` of [B, K, S, d].
    cached: position of the token in each slot, int32 [B, S]; -1 for none.
    slot: the next to be written, int32 scalar.
    token: the last token, not yet in the cache, int32 [B].
    position: of that token, int32 [B].
    count: new tokens so far, int32 [B].
    limit: new tokens at most, int32 [B].
    done: rows that have ended, bool [B].
    key_data: of each row's key, uint32 [B, ...].
    seen: tokens that the row holds, bool [B, V]; None without a penalty.
    tokens: new tokens, int32 [B, N].
    log_probs: theirs under the model, [B, N].
  """

  caches: tuple[blocks.Cache, ...]
  cached: jax.Array
  slot: jax.Array
  token: jax.Array
  position: jax.Array
  count: jax.Array
  limit: jax.Array
  done: jax.Array
  key_data: jax.Array
  seen: jax.Array | None
  tokens: jax.Array
  log_probs: jax.Array


def empty_slots(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  *,
  batch: int,
  prompt_length: int,
) -> Slots:
  """Rows that have all ended, to be filled by `start_rows`.

  Args:
    config: of a language model.
    options: see `SamplingOptions`.
    batch: B.
    prompt_length: longest prompt with its padding; S is this and the longest
      result.

  Returns:
    The rows.
  """
  size = prompt_length + options.max_new_tokens
  shape = (batch, config.num_kv_heads, size, config.head_dim)
  dtype = jnp.dtype(config.dtype)
  cache = lambda: blocks.Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
  zeros = lambda *shape: jnp.zeros((batch, *shape), jnp.int32)
  key_shape = jax.eval_shape(
    lambda: jax.random.key_data(jax.random.key(0, impl=options.key_kind))
  ).shape
  seen = None
  if options.penalised:
    seen = jnp.zeros((batch, config.vocab_size), jnp.bool_)
  return Slots(
    caches=tuple(cache() for _ in range(config.num_layers)),
    cached=zeros(size) - 1,
    slot=jnp.int32(prompt_length),
    token=zeros(),
    position=zeros(),
    count=zeros(),
    limit=zeros(),
    done=jnp.ones(batch, jnp.bool_),
    key_data=jnp.zeros((batch, *key_shape), jnp.uint32),
    seen=seen,
    tokens=zeros(options.max_new_tokens) + options.pad_id,
    log_probs=jnp.zeros((batch, options.max_new_tokens), jnp.float32),
  )


def start_all(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  params: Params,
  knobs: sampling.Knobs,
  prompts: jax.Array,
  mask: jax.Array,
  key_data: jax.Array,
) -> Slots:
  """The rows of B prompts, G of each, all at once, with their first tokens.

  What `start_rows` makes of empty slots, but a prompt passes the network once,
  whatever G is, and the caches are those of the prompts with room behind: no
  second set is made to put them into.

  Args:
    config: of a language model.
    options: see `SamplingOptions`.
    params: parameters, `layers` by layer.
    knobs: see `sampling.Knobs`.
    prompts: int [B, P].
    mask: True where a token is attended, bool [B, P]; a row without one has
      ended at once.
    key_data: of the keys, uint32 [B G, ...].

  Returns:
    The rows, those of a prompt one after another.
  """
  batch, length = len(key_data), prompts.shape[1]
  filled = decode.prefill(config, params, prompts, mask)
  if batch > len(prompts):
    filled, prompts, mask = jax.tree.map(
      lambda x: jnp.repeat(x, batch // len(prompts), axis=0),
      (filled, prompts, mask),
    )

  def extended(array: jax.Array, fill: int, axis: int) -> jax.Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, options.max_new_tokens)
    return jnp.pad(array, widths, constant_values=fill)

  blank = empty_slots(config, options, batch=batch, prompt_length=length)
  blank = blank._replace(
    caches=jax.tree.map(lambda part: extended(part, 0, 2), filled.caches),
    cached=extended(filled.positions, -1, 1),
    position=jnp.max(filled.positions, axis=1),
    limit=jnp.full(batch, options.max_new_tokens, jnp.int32),
    done=~jnp.any(mask, axis=1),
    key_data=key_data,
    seen=None if blank.seen is None else _held(config, prompts, mask),
  )
  everywhere = jnp.ones(batch, jnp.bool_)
  return _drawn(options, knobs, blank, filled.logits, everywhere)


def start_rows(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  params: Params,
  knobs: sampling.Knobs,
  slots: Slots,
  rows: jax.Array,
  prompts: jax.Array,
  mask: jax.Array,
  key_data: jax.Array,
  limit: jax.Array,
) -> Slots:
  """Puts R prompts in place of R rows and draws their first tokens.

  Args:
    config: of a language model.
    options: see `SamplingOptions`.
    params: parameters, `layers` by layer.
    knobs: see `sampling.Knobs`.
    slots: the rows so far.
    rows: which to replace, int32 [R]; B or more for none.
    prompts: int [R, P].
    mask: True where a token is attended, bool [R, P]; a row without one has
      ended at once.
    key_data: of the keys, uint32 [R, ...].
    limit: new tokens at most, int32 [R].

  Returns:
    The rows, the replaced ones with one new token.
  """
  filled = decode.prefill(config, params, prompts, mask)
  size = slots.cached.shape[1]
  length = prompts.shape[1]
  before = slots.slot - length

  def ring(array: jax.Array, fill: int, axis: int) -> jax.Array:
    """P places along an axis as S of them that end before the next slot."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - length)
    padded = jnp.pad(array, widths, constant_values=fill)
    return jnp.roll(padded, before, axis=axis)

  put = lambda whole, part: whole.at[rows].set(part, mode="drop")
  caches = tuple(
    jax.tree.map(lambda whole, part: put(whole, ring(part, 0, 2)), *pair)
    for pair in zip(slots.caches, filled.caches, strict=True)
  )
  number, seen = len(rows), slots.seen
  if seen is not None:
    seen = put(seen, _held(config, prompts, mask))
  blank = slots._replace(
    caches=caches,
    cached=put(slots.cached, ring(filled.positions, -1, 1)),
    position=put(slots.position, jnp.max(filled.positions, axis=1)),
    count=put(slots.count, jnp.zeros(number, jnp.int32)),
    limit=put(slots.limit, limit),
    done=put(slots.done, ~jnp.any(mask, axis=1)),
    key_data=put(slots.key_data, key_data),
    seen=seen,
    tokens=put(
      slots.tokens,
      jnp.full((number, options.max_new_tokens), options.pad_id, jnp.int32),
    ),
    log_probs=put(
      slots.log_probs, jnp.zeros((number, options.max_new_tokens), jnp.float32)
    ),
  )
  fresh = put(jnp.zeros_like(slots.done), jnp.ones(number, jnp.bool_))
  logits = jnp.zeros((len(slots.done), config.vocab_size), filled.logits.dtype)
  return _drawn(options, knobs, blank, put(logits, filled.logits), fresh)


def advance(
  config: DecoderConfig,
  options: sampling.SamplingOptions,
  params: Params,
  knobs: sampling.Knobs,
  slots: Slots,
) -> Slots:
  """One token more for each row that has not ended.

  Args:
    config: of a language model.
    options: see `SamplingOptions`.
    params: parameters, `layers` by layer.
    knobs: see `sampling.Knobs`.
    slots: the rows so far.

  Returns:
    The rows.
  """
  size = slots.cached.shape[1]
  at = slots.slot % size
  cached = jax.lax.dynamic_update_slice(
    slots.cached, slots.position[:, None], (jnp.zeros_like(at), at)
  )
  logits, caches = decode.step(
    config,
    params,
    slots.token,
    slots.position,
    slots.caches,
    cached,
    at,
    # Slots fill from the first on; once round the ring, all are in use.
    jnp.minimum(slots.slot + 1, size),
  )
  slots = slots._replace(caches=caches, cached=cached, slot=slots.slot + 1)
  return _drawn(options, knobs, slots, logits, ~slots.done)


def _held(
  config: DecoderConfig, prompts: jax.Array, mask: jax.Array
) -> jax.Array:
  """Tokens that each prompt holds, bool [R, V]."""
  number = len(prompts)
  held = jnp.where(mask, prompts, config.vocab_size)
  nothing = jnp.zeros((number, config.vocab_size), jnp.bool_)
  return nothing.at[jnp.arange(number)[:, None], held].set(True, mode="drop")


def _drawn(
  options: sampling.SamplingOptions,
  knobs: sampling.Knobs,
  slots: Slots,
  logits: jax.Array,
  where: jax.Array,
) -> Slots:
  """Draws a token from logits [B, V] for the rows `where` that go on."""
  where &= ~slots.done
  token, log_prob = sampling.draw_tokens(
    logits,
    options,
    knobs,
    key_data=slots.key_data,
    seen=slots.seen,
    count=slots.count,
  )
  rows = jnp.arange(len(where), dtype=jnp.int32)
  column = jnp.where(where, slots.count, options.max_new_tokens)
  write = lambda whole, part: whole.at[rows, column].set(
    part.astype(whole.dtype), mode="drop"
  )
  more = where.astype(jnp.int32)
  count = slots.count + more
  ended = count >= slots.limit
  for eos in options.eos_ids:
    ended |= token == eos
  seen = slots.seen
  if seen is not None:
    held = jnp.where(where, token, seen.shape[1])
    seen = seen.at[rows, held].set(True, mode="drop")
  return slots._replace(
    token=jnp.where(where, token, slots.token),
    position=slots.position + more,
    count=count,
    done=slots.done | (where & ended),
    seen=seen,
    tokens=write(slots.tokens, token),
    log_probs=write(slots.log_probs, log_prob),
  )
