"""Reward sources: a model, a server or a function that scores texts."""

from jaxalign.runtime.reward_sources.base import FunctionSource, RewardSource

__all__ = ["FunctionSource", "RewardSource"]
