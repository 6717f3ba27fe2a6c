"""Preference and policy losses, pure and unreduced: jax and numpy only."""

from jaxalign.losses.denoise import (
  PreferenceStrength,
  PreferenceTargets,
  ensemble_probability,
  flip_margin_targets,
  flip_mask,
  flip_targets,
  margin_targets,
  preference_strength,
  smooth_margin_targets,
  smooth_targets,
)
from jaxalign.losses.direct import (
  dpo_loss,
  group_robust_dpo_loss,
)
from jaxalign.losses.mixture import (
  mixture_log_likelihood,
  user_responsibilities,
)
from jaxalign.losses.pairwise import (
  bradley_terry_loss,
  luce_choice_loss,
  plackett_luce_loss,
  reward_centering_penalty,
  soft_preference_loss,
)
from jaxalign.losses.welfare import (
  exponentiated_weights,
  group_utilities,
  maxmin_weights,
  sample_min_rewards,
  soft_min_weights,
  welfare,
)

__all__ = [
  "PreferenceStrength",
  "PreferenceTargets",
  "bradley_terry_loss",
  "dpo_loss",
  "ensemble_probability",
  "exponentiated_weights",
  "flip_margin_targets",
  "flip_mask",
  "flip_targets",
  "group_robust_dpo_loss",
  "group_utilities",
  "luce_choice_loss",
  "margin_targets",
  "maxmin_weights",
  "mixture_log_likelihood",
  "plackett_luce_loss",
  "preference_strength",
  "reward_centering_penalty",
  "sample_min_rewards",
  "smooth_margin_targets",
  "smooth_targets",
  "soft_min_weights",
  "soft_preference_loss",
  "user_responsibilities",
  "welfare",
]
