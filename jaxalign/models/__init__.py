"""Decoder, reward heads and weights; the only folder that imports flax."""

from flax.linen import logical_axis_rules

from jaxalign.models.config import DecoderConfig
from jaxalign.models.heads import (
  LanguageOutput,
  Model,
  RewardOutput,
  causal_lm,
  reward_model,
)

__all__ = [
  "DecoderConfig",
  "LanguageOutput",
  "Model",
  "RewardOutput",
  "causal_lm",
  "logical_axis_rules",
  "reward_model",
]
