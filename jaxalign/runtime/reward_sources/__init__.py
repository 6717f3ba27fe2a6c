"""Reward sources: a model, a server or a function that scores texts."""

from jaxalign.runtime.reward_sources.base import FunctionSource, RewardSource
from jaxalign.runtime.reward_sources.trainer_functions import reward_functions

__all__ = ["FunctionSource", "RewardSource", "reward_functions"]
