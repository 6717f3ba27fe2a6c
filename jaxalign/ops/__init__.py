"""Numerics without a word of preferences: jax and numpy only."""

from jaxalign.ops.masked import masked_mean, masked_var, masked_whiten

__all__ = [
  "masked_mean",
  "masked_var",
  "masked_whiten",
]
