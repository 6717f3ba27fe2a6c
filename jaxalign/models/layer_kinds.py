"""Kinds of layers: which keys a layer's queries may read, how they rotate.

Most decoders have one kind. Gemma alternates between layers with a window and
layers without, SmolLM3 leaves every fourth layer without a rotation.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.models import attention, rotary
from jaxalign.models.config import DecoderConfig, RopeScaling

Angles = tuple[jax.Array, jax.Array] | None


class LayerKind(NamedTuple):
  """What layers of one kind have in common.

  Attributes:
    window: keys a query may look back on, its own included; None for all.
    theta: base of the rotary wavelengths; None where nothing is rotated.
    scaling: how the wavelengths are stretched.
  """

  window: int | None
  theta: float | None
  scaling: RopeScaling | None


class Surroundings(NamedTuple):
  """What a layer knows about the places of its tokens.

  Attributes:
    seen: which key each query may read, bool [B, 1, T, S]; for splash attention
      the number of each token's text, int32 [B, T].
    angles: cosine and sine of the rotation, [B, T, 1, rotary_dim / 2] each;
      None for a decoder without any.
  """

  seen: jax.Array
  angles: Angles


@functools.cache
def kinds(config: DecoderConfig) -> tuple[LayerKind, ...]:
  """The different kinds of a decoder's layers.

  Args:
    config: of the decoder.

  Returns:
    Each kind once, in the order of the first layer that has it.
  """
  return tuple(
    dict.fromkeys(_kind(config, i) for i in range(config.num_layers))
  )


@functools.cache
def kind_of_layers(config: DecoderConfig) -> tuple[int, ...]:
  """Index of each layer's kind in `kinds`.

  Args:
    config: of the decoder.
  """
  found = kinds(config)
  return tuple(found.index(_kind(config, i)) for i in range(config.num_layers))


def _kind(config: DecoderConfig, layer: int) -> LayerKind:
  windowed = config.window_layers is None or config.window_layers[layer]
  window = config.sliding_window if windowed else None
  rotates = config.rotary_layers is None or config.rotary_layers[layer]
  if config.positions != "rotary" or not rotates:
    return LayerKind(window, None, None)
  if window is not None and config.local_rope_theta is not None:
    return LayerKind(window, config.local_rope_theta, None)
  return LayerKind(window, config.rope_theta, config.rope_scaling)


def angles_of(
  config: DecoderConfig,
  kind: LayerKind,
  positions: jax.Array,
  lengths: jax.Array,
  dtype: jnp.dtype,
) -> Angles:
  """The rotation of a kind of layers.

  Args:
    config: of the decoder.
    kind: one of its kinds.
    positions: int [B, T].
    lengths: tokens of the text that each token belongs to, int [B, T].
    dtype: float32 or wider.

  Returns:
    (cos, sin), [B, T, 1, rotary_dim / 2] each; of the identity for a kind that
    does not rotate, and None if none does.
  """
  if config.positions != "rotary":
    return None
  if kind.theta is None:
    shape = (*positions.shape, 1, config.rotary_dim // 2)
    return jnp.ones(shape, dtype), jnp.zeros(shape, dtype)
  return rotary.rotation_of(
    config.rotary_dim, kind.theta, kind.scaling, positions, lengths, dtype
  )


def surroundings(
  config: DecoderConfig,
  mask: jax.Array,
  dtype: jnp.dtype,
  segment_ids: jax.Array | None = None,
) -> tuple[Surroundings, ...]:
  """Masks and rotations of whole texts, one entry per kind of layer.

  Args:
    config: of the decoder.
    mask: True where a token is attended, bool [B, T].
    dtype: of the rotation, float32 or wider.
    segment_ids: int [B, T], or None for one text per row.

  Returns:
    In the order of `kinds`.
  """
  positions = attention.positions_of(mask, segment_ids)
  lengths = attention.lengths_of(mask, segment_ids)
  return tuple(
    Surroundings(
      visible(config, mask, segment_ids, window=kind.window),
      angles_of(config, kind, positions, lengths, dtype),
    )
    for kind in kinds(config)
  )


def stacked(found: tuple[Surroundings, ...]) -> Surroundings:
  """All kinds in one tree, for layers that pick theirs by a traced index.

  Args:
    found: of each kind.

  Returns:
    The only one as it is, or several with a leading axis of kinds.
  """
  if len(found) == 1:
    return found[0]
  return jax.tree.map(lambda *each: jnp.stack(each), *found)


def visible(
  config: DecoderConfig,
  mask: jax.Array,
  segment_ids: jax.Array | None = None,
  *,
  window: int | None,
) -> jax.Array:
  """Attention mask inputs: padding, texts of packed rows, window.

  Args:
    config: of the decoder.
    mask: True where a token is attended, bool [B, T].
    segment_ids: int [B, T], or None for one text per row.
    window: keys a query may look back on, its own included; None for all.

  Returns:
    bool [B, 1, T, T], query then key; for splash attention int32 [B, T], the
    number of each token's text from 1 on, 0 for padding.
  """
  if config.attention != "splash":
    return attention.attention_mask(
      mask, window=window, segment_ids=segment_ids
    )
  texts = mask.astype(jnp.int32)
  if segment_ids is not None:
    lowest = jnp.min(segment_ids)
    texts = jnp.where(mask, segment_ids - lowest + 1, 0).astype(jnp.int32)
  return texts
