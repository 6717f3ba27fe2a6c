"""Causal grouped-query attention that padding cannot reach.

Positions, keys and queries all go by the mask, so a sequence's outputs are the
same with padding on the left, on the right, on both sides or in the middle.
"""

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
  logits = logits * (width**-0.5 if scale is None else scale)
  if cap is not None:
    logits = cap * jnp.tanh(logits / cap)
  # Finite, not -inf: a row of -inf alone is NaN under softmax.
  lowest = 0.7 * float(jnp.finfo(wide).min)
  logits = jnp.where(mask[:, :, None], logits, lowest)
  # The softmax is divided out after mixing: one [T, S] array to keep for the
  # backward pass instead of two, and a division per output, not per pair.
  peak = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
  odds = jnp.exp(logits - peak)
  total = jnp.sum(odds, axis=-1)
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
  used: jax.Array,
  *,
  scale: float | None = None,
  cap: float | None = None,
) -> jax.Array:
  """`attend` to a cache of which only the first slots are in use.

  It reads the shortest of `windows_of` that holds them, so that a step costs
  what has been written and not what will be.

  Args:
    query: [B, T, H, d].
    key: [B, S, K, d].
    value: [B, S, K, d].
    mask: bool [B, 1, T, S].
    used: slots after which none may be read, int32 scalar.
    scale: factor of the products of query and key, None for 1 / sqrt(d).
    cap: c of c tanh(x / c) on the scaled products, None for none.

  Returns:
    [B, T, H, d] in the dtype of `value`.
  """
  windows = windows_of(key.shape[1])
  if len(windows) == 1:
    return attend(query, key, value, mask, scale=scale, cap=cap)

  def within(size: int) -> Callable[..., jax.Array]:
    return lambda query, key, value, mask: attend(
      query,
      key[:, :size],
      value[:, :size],
      mask[..., :size],
      scale=scale,
      cap=cap,
    )

  first = jnp.sum(used > jnp.array(windows[:-1], jnp.int32), dtype=jnp.int32)
  mixed: jax.Array = jax.lax.switch(
    first, [within(size) for size in windows], query, key, value, mask
  )
  return mixed


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
