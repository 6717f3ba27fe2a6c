"""Causal grouped-query attention that padding cannot reach.

Positions, keys and queries all go by the mask, so a sequence's outputs are the
same with padding on the left, on the right, on both sides or in the middle.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype, or float32 if that is wider."""
  wide = jnp.finfo(dtype).bits > 32
  return jnp.dtype(dtype) if wide else jnp.dtype(jnp.float32)


def positions_of(
  mask: jax.Array, segment_ids: jax.Array | None = None
) -> jax.Array:
  """Position of each token among the attended ones, int32 [B, T].

  Args:
    mask: True where a token is attended, bool [B, T].
    segment_ids: int32 [B, T], texts of a row one after another; None for one
      text per row.

  Returns:
    cumsum(mask) - 1 within the text, and 0 for padding before its first token.
  """
  counts = jnp.cumsum(mask, axis=-1, dtype=jnp.int32)
  if segment_ids is not None:
    before = counts - mask.astype(jnp.int32)
    starts = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = jnp.pad(starts, ((0, 0), (1, 0)))
    counts -= jax.lax.cummax(jnp.where(starts, before, 0), axis=1)
  return jnp.maximum(counts - 1, 0)


def lengths_of(
  mask: jax.Array, segment_ids: jax.Array | None = None
) -> jax.Array:
  """Attended tokens of the text that each token belongs to, int32 [B, T].

  Args:
    mask: True where a token is attended, bool [B, T].
    segment_ids: int32 [B, T], texts of a row one after another; None for one
      text per row.
  """
  if segment_ids is None:
    total = jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.int32)
    return jnp.broadcast_to(total, mask.shape)
  counts = jnp.cumsum(mask, axis=-1, dtype=jnp.int32)
  before = counts - mask.astype(jnp.int32)
  changes = segment_ids[:, 1:] != segment_ids[:, :-1]
  starts = jnp.pad(changes, ((0, 0), (1, 0)))
  ends = jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True)
  first = jax.lax.cummax(jnp.where(starts, before, 0), axis=1)
  most = counts[:, -1:]
  last = jax.lax.cummin(jnp.where(ends, counts, most), axis=1, reverse=True)
  return last - first


def attention_mask(
  mask: jax.Array,
  *,
  window: int | None = None,
  segment_ids: jax.Array | None = None,
) -> jax.Array:
  """Which key each query may read: attended, near and not in its future.

  Args:
    mask: bool [B, T].
    window: attended keys that a query may look back on, its own included; None
      for all of them.
    segment_ids: int32 [B, T]; a query reads its own text alone. None for one
      text per row.

  Returns:
    bool [B, 1, T, T], query then key.
  """
  length = mask.shape[-1]
  causal = jnp.tril(jnp.ones((length, length), jnp.bool_))
  seen = causal[None, None] & mask[:, None, None, :]
  if segment_ids is not None:
    seen &= segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
  if window is None or window >= length:
    return seen
  at = positions_of(mask, segment_ids)
  near = at[:, None, :, None] - at[:, None, None, :] < window
  return seen & near


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array,
  *,
  scale: float | None = None,
  cap: float | None = None,
) -> jax.Array:
  """Scaled dot-product attention, softmax in at least float32.

  Args:
    query: [B, T, H, d].
    key: [B, S, K, d]; query head h reads key head h // (H / K).
    value: [B, S, K, d].
    mask: bool [B, 1, T, S], True where a query may read a key.
    scale: factor of the products of query and key, None for 1 / sqrt(d).
    cap: c of c tanh(x / c) on the scaled products, None for none.

  Returns:
    [B, T, H, d] in the dtype of `value`. A query that may read nothing gets the
    plain mean of the values: finite, and so is its gradient.
  """
  batch, length, heads, width = query.shape
  kv_heads = key.shape[2]
  query = query.reshape(batch, length, kv_heads, heads // kv_heads, width)
  wide = at_least_float32(query.dtype)
  logits = jnp.einsum(
    "btkgd,bskd->bkgts", query, key, preferred_element_type=wide
  )
  odds, total = _odds(logits, mask, width, scale, cap)
  mixed = jnp.einsum(
    "bkgts,bskd->btkgd",
    odds.astype(value.dtype),
    value,
    preferred_element_type=wide,
  )
  mixed = mixed / jnp.moveaxis(total, -1, 1)[..., None]
  return mixed.astype(value.dtype).reshape(batch, length, heads, width)


SHORTEST_WINDOW = 128  # slots of a cache


def windows_of(slots: int) -> tuple[int, ...]:
  """Lengths at which a cache of so many slots is read, the last all of them.

  Args:
    slots: S.

  Returns:
    The powers of two from 128 that are below S, then S.
  """
  shorter = []
  while SHORTEST_WINDOW << len(shorter) < slots:
    shorter.append(SHORTEST_WINDOW << len(shorter))
  return (*shorter, slots)


def cached_attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array,
  used: jax.Array | None,
  *,
  scale: float | None = None,
  cap: float | None = None,
) -> jax.Array:
  """`attend` to a cache, of which only the first slots are in use.

  It reads the shortest of `windows_of` that holds them, so that a step costs
  what has been written and not what will be. The slots of one head lie side by
  side, as its products read them: at every token they would be copied else.

  Args:
    query: [B, T, H, d].
    key: [B, K, S, d].
    value: [B, K, S, d].
    mask: bool [B, 1, T, S].
    used: slots after which none may be read, int32 scalar; None for all.
    scale: factor of the products of query and key, None for 1 / sqrt(d).
    cap: c of c tanh(x / c) on the scaled products, None for none.

  Returns:
    [B, T, H, d] in the dtype of `value`.
  """
  windows = windows_of(key.shape[2])
  if used is None or len(windows) == 1:
    return _attend_by_head(query, key, value, mask, scale=scale, cap=cap)

  def within(size: int) -> Callable[..., jax.Array]:
    return lambda query, key, value, mask: _attend_by_head(
      query,
      key[:, :, :size],
      value[:, :, :size],
      mask[..., :size],
      scale=scale,
      cap=cap,
    )

  first = jnp.sum(used > jnp.array(windows[:-1], jnp.int32), dtype=jnp.int32)
  mixed: jax.Array = jax.lax.switch(
    first, [within(size) for size in windows], query, key, value, mask
  )
  return mixed


def _attend_by_head(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array,
  *,
  scale: float | None,
  cap: float | None,
) -> jax.Array:
  """`attend` to keys and values [B, K, S, d]."""
  batch, length, heads, width = query.shape
  kv_heads = key.shape[1]
  group = heads // kv_heads
  query = query.reshape(batch, length, kv_heads, group, width)
  query = query.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, width)
  product = functools.partial(
    jax.lax.dot_general,
    preferred_element_type=at_least_float32(query.dtype),
  )
  logits = product(query, key, (((3,), (3,)), ((0, 1), (0, 1))))
  shape = (batch, kv_heads, group, length, key.shape[2])
  odds, total = _odds(logits.reshape(shape), mask, width, scale, cap)
  odds = odds.astype(value.dtype).reshape(logits.shape)
  mixed = product(odds, value, (((3,), (2,)), ((0, 1), (0, 1))))
  mixed = mixed.reshape(*total.shape, width) / total[..., None]
  mixed = mixed.transpose(0, 3, 1, 2, 4).astype(value.dtype)
  return mixed.reshape(batch, length, heads, width)


def _odds(
  logits: jax.Array,
  mask: jax.Array,
  width: int,
  scale: float | None,
  cap: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Softmax of products of query and key [B, K, G, T, S], and its divisor."""
  logits = logits * (width**-0.5 if scale is None else scale)
  if cap is not None:
    logits = cap * jnp.tanh(logits / cap)
  # Finite, not -inf: a row of -inf alone is NaN under softmax.
  lowest = 0.7 * float(jnp.finfo(logits.dtype).min)
  logits = jnp.where(mask[:, :, None], logits, lowest)
  # The softmax is divided out after mixing: one [T, S] array to keep for the
  # backward pass instead of two, and a division per output, not per pair.
  peak = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  odds = jnp.exp(logits - peak)
  return odds, jnp.sum(odds, axis=-1)


def fused_attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array,
  *,
  scale: float | None = None,
) -> jax.Array:
  """`attend` by `jax.nn.dot_product_attention`: cuDNN's kernel on a GPU.

  On a GPU the kernel wants bfloat16, an even T and d a multiple of 8.

  Args:
    query: [B, T, H, d].
    key: [B, S, K, d].
    value: [B, S, K, d].
    mask: bool [B, 1, T, S].
    scale: factor of the products of query and key, None for 1 / sqrt(d).

  Returns:
    [B, T, H, d] in the dtype of `value`.
  """
  on_gpu = jax.default_backend() == "gpu"
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    mask=mask,
    scale=scale,
    implementation="cudnn" if on_gpu else "xla",
  )
