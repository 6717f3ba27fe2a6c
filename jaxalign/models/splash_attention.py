"""Splash attention on TPUs: blocks of keys, never the [T, T] weights.

The kernel runs on what a device holds, inside `jax.shard_map` where a mesh is
in force. It has a backward pass and no forward-mode derivative, so what
differentiates twice takes the dense attention.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

LANES = 128  # length of a block must be a multiple of it
MAX_BLOCK = 512
INTERPRET = False  # tests set it, to run the kernel without a TPU


def splash_attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  segment_ids: jax.Array,
  *,
  window: int | None,
  scale: float | None = None,
  cap: float | None = None,
) -> jax.Array:
  """Causal attention within segments; what is padded reads only padding.

  Args:
    query: [B, T, H, d].
    key: [B, T, K, d]; query head h reads key head h // (H / K).
    value: [B, T, K, d].
    segment_ids: int32 [B, T], 0 for padding; a query reads keys of its own
      number.
    window: slots that a query may look back on, its own included; None for all.
    scale: factor of the products of query and key, None for 1 / sqrt(d).
    cap: c of c tanh(x / c) on the scaled products, None for none.

  Returns:
    [B, T, H, d] in the dtype of `value`.
  """
  local = functools.partial(_local, window=window, scale=scale, cap=cap)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return local(query, key, value, segment_ids)
  spec = lambda *names: nn.logical_to_mesh_axes(names)
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(
      spec("batch", None, "heads", None),
      spec("batch", None, "kv_heads", None),
      spec("batch", None, "kv_heads", None),
      spec("batch", None),
    ),
    out_specs=spec("batch", None, "heads", None),
    check_vma=False,  # the kernel does not say over which axes it varies
  )(query, key, value, segment_ids)


def _local(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  segment_ids: jax.Array,
  *,
  window: int | None,
  scale: float | None,
  cap: float | None,
) -> jax.Array:
  """The kernel on one device's rows and heads."""
  # Pallas takes half as long to import as jax, and other attention needs none.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  length, heads = query.shape[1:3]
  padded = -length % LANES
  size = length + padded
  widen = lambda x: jnp.pad(x, [(0, 0), (0, padded)] + [(0, 0)] * (x.ndim - 2))
  turned = lambda x: jnp.swapaxes(widen(x), 1, 2)  # [B, heads, T, d]
  shape = (size, size)
  mask = (
    masks.CausalMask(shape)
    if window is None or window >= length
    else masks.LocalMask(shape, (window - 1, 0), 0)
  )
  block = next(
    b for b in range(min(MAX_BLOCK, size), 0, -LANES) if size % b == 0
  )
  blocks = kernels.BlockSizes(
    block_q=block,
    block_kv=block,
    block_kv_compute=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_kv_dkv_compute=block,
    block_q_dq=block,
    block_kv_dq=block,
  )
  attend = kernels.make_splash_mha(
    masks.MultiHeadMask([mask] * heads),
    block_sizes=blocks,
    head_shards=1,
    q_seq_shards=1,
    attn_logits_soft_cap=cap,
    interpret=INTERPRET,
  )
  segments = widen(segment_ids)
  ids = kernels.SegmentIds(q=segments, kv=segments)
  scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
  mixed = jax.vmap(attend)(turned(scaled), turned(key), turned(value), ids)
  return jnp.swapaxes(mixed, 1, 2)[:, :length].astype(value.dtype)
