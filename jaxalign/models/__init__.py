"""Models: decoder, reward heads and weights; the only folder with flax."""

from jaxalign.models.config import DecoderConfig, RopeScaling
from jaxalign.models.decoder import stack_layers, unstack_layers
from jaxalign.models.generation.continuous_batching import generate_queue
from jaxalign.models.generation.generate import (
  Generation,
  Sampler,
  generate,
  local_sampler,
)
from jaxalign.models.heads import (
  LanguageOutput,
  Model,
  causal_lm,
  model_of,
  reward_model,
  token_log_probs,
)
from jaxalign.models.hf.config_map import scratch_config
from jaxalign.models.hf.peft import load_adapters, save_adapters
from jaxalign.models.hf.weights import (
  load_causal_lm,
  load_config,
  load_params,
  load_reward_model,
  save_pretrained,
)
from jaxalign.models.lora import (
  LoraConfig,
  adapted,
  adapter_axes,
  init_adapters,
  merge,
)
from jaxalign.models.reward_heads import RewardOutput

__all__ = [
  "DecoderConfig",
  "Generation",
  "LanguageOutput",
  "LoraConfig",
  "Model",
  "RewardOutput",
  "RopeScaling",
  "Sampler",
  "adapted",
  "adapter_axes",
  "causal_lm",
  "generate",
  "generate_queue",
  "init_adapters",
  "load_adapters",
  "load_causal_lm",
  "load_config",
  "load_params",
  "load_reward_model",
  "local_sampler",
  "merge",
  "model_of",
  "reward_model",
  "save_adapters",
  "save_pretrained",
  "scratch_config",
  "stack_layers",
  "token_log_probs",
  "unstack_layers",
]
