"""Decoder, reward heads and weights; the only folder that imports flax."""

from jaxalign.models.config import DecoderConfig, RopeScaling
from jaxalign.models.heads import (
  LanguageOutput,
  Model,
  RewardOutput,
  causal_lm,
  model_of,
  reward_model,
)
from jaxalign.models.translate import scratch_config
from jaxalign.models.weights import (
  load_causal_lm,
  load_config,
  load_params,
  load_reward_model,
  save_pretrained,
)

__all__ = [
  "DecoderConfig",
  "LanguageOutput",
  "Model",
  "RewardOutput",
  "RopeScaling",
  "causal_lm",
  "load_causal_lm",
  "load_config",
  "load_params",
  "load_reward_model",
  "model_of",
  "reward_model",
  "save_pretrained",
  "scratch_config",
]
