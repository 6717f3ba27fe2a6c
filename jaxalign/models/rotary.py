"""Rotary positions (RoPE): frequencies of each pair, and the rotation."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models.config import RopeScaling


def rotary_frequencies(
  rotary_dim: int,
  theta: float,
  scaling: RopeScaling | None,
  *,
  beyond: bool = False,
) -> np.ndarray:
  """Radians per position of each pair of a head, float64 [rotary_dim / 2].

    f[i] = theta ** (-2 i / rotary_dim), then slowed down as `scaling` says.

  Args:
    rotary_dim: entries of each head that are rotated, even.
    theta: base of the wavelengths.
    scaling: None leaves them as they are.
    beyond: of texts longer than the original context, "longrope" only.

  Returns:
    Constants: nothing here is traced.
  """
  frequencies = theta ** -(np.arange(0, rotary_dim, 2) / rotary_dim)
  if scaling is None or scaling.kind == "dynamic":
    return frequencies
  if scaling.kind == "yarn":
    kept = 1 - _blend(rotary_dim, theta, scaling)
    return frequencies * (kept + (1 - kept) / scaling.factor)
  if scaling.kind == "linear":
    return frequencies / scaling.factor
  if scaling.kind == "longrope":
    return frequencies / np.asarray(
      scaling.long_factor if beyond else scaling.short_factor
    )
  turns = scaling.original_max_positions * frequencies / (2 * np.pi)
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return frequencies * (kept + (1 - kept) / scaling.factor)


def _blend(rotary_dim: int, theta: float, scaling: RopeScaling) -> np.ndarray:
  """Share of the stretched frequency per index, float64 [rotary_dim / 2]."""

  def index_of(turns: float) -> float:
    length = scaling.original_max_positions / (2 * np.pi * turns)
    return rotary_dim * math.log(length) / (2 * math.log(theta))

  low, high = index_of(scaling.beta_fast), index_of(scaling.beta_slow)
  if scaling.truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, rotary_dim - 1)
  high = high + 0.001 if low == high else high
  return np.clip((np.arange(rotary_dim // 2) - low) / (high - low), 0.0, 1.0)


def rotary_scale(scaling: RopeScaling | None) -> float:
  """Scale of the cosines and sines.

  References:
    Peng et al., "YaRN: efficient context window extension of large language
    models", 2023, equation 22; Ding et al., "LongRoPE: extending LLM context
    window beyond 2 million tokens", 2024, whose scale is that of its code.
  """
  if scaling is None or scaling.kind not in ("yarn", "longrope"):
    return 1.0
  if scaling.attention_factor is not None:
    return scaling.attention_factor
  if scaling.kind == "longrope":
    context = math.log(scaling.original_max_positions)
    return math.sqrt(1.0 + math.log(scaling.factor) / context)
  return 0.1 * math.log(scaling.factor) + 1.0


def rotation_of(
  rotary_dim: int,
  theta: float,
  scaling: RopeScaling | None,
  positions: jax.Array,
  lengths: jax.Array,
  dtype: jnp.dtype,
) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine of every position's rotation.

  Args:
    rotary_dim: entries of each head that are rotated, even.
    theta: base of the wavelengths.
    scaling: how they are stretched.
    positions: int [B, T].
    lengths: tokens of the text that each token belongs to, int [B, T].
    dtype: float32 or wider.

  Returns:
    (cos, sin), [B, T, 1, rotary_dim / 2] each.
  """
  frequencies = rotary_frequencies(rotary_dim, theta, scaling)
  cos, sin = rotary_angles(positions, frequencies, dtype)
  if scaling is not None and scaling.kind == "longrope":
    far = rotary_frequencies(rotary_dim, theta, scaling, beyond=True)
    longer = (lengths > scaling.original_max_positions)[:, :, None, None]
    far_cos, far_sin = rotary_angles(positions, far, dtype)
    cos, sin = jnp.where(longer, far_cos, cos), jnp.where(longer, far_sin, sin)
  scale = rotary_scale(scaling)
  return (cos, sin) if scale == 1.0 else (cos * scale, sin * scale)


def rotary_angles(
  positions: jax.Array, frequencies: np.ndarray, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine of every position's rotation.

    angle[t, i] = positions[t] * frequencies[i]

  Args:
    positions: int [B, T].
    frequencies: radians per position, [rotary_dim / 2].
    dtype: float32 or wider.

  Returns:
    (cos, sin), [B, T, 1, rotary_dim / 2] each, to broadcast over heads.
  """
  frequencies = jnp.asarray(frequencies, dtype)[None, None, None]
  angles = positions.astype(dtype)[:, :, None, None] * frequencies
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates the two halves of each head's first entries against each other.

  Args:
    x: queries or keys [B, T, H, head_dim].
    cos: [B, T, 1, rotary_dim / 2], float32 or wider; entries of a head from
      `rotary_dim` on stay as they are.
    sin: likewise.

  Returns:
    [B, T, H, head_dim] in the dtype of x.

  References:
    Su et al., "RoFormer: enhanced transformer with rotary position embedding",
    2021, equation 34, with the pairs laid out as halves.
  """
  half = cos.shape[-1]
  wide = x.astype(cos.dtype)
  first, second, rest = jnp.split(wide, (half, 2 * half), axis=-1)
  rotated = [first * cos - second * sin, second * cos + first * sin]
  if rest.shape[-1]:
    rotated.append(rest)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
