"""Preference and policy losses, pure and unreduced: jax and numpy only."""

from jaxalign.losses.contrastive import (
  difference_rows,
  ntxent_loss,
  pair_rows,
  simcse_loss,
  swav_loss,
)
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
from jaxalign.losses.feature_queue import (
  FeatureQueue,
  init_feature_queue,
  push_features,
)
from jaxalign.losses.meta import (
  adam_precondition,
  lookahead_gradient,
  reward_spread,
  unit_precondition,
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
  "FeatureQueue",
  "PreferenceStrength",
  "PreferenceTargets",
  "adam_precondition",
  "bradley_terry_loss",
  "difference_rows",
  "dpo_loss",
  "ensemble_probability",
  "exponentiated_weights",
  "flip_margin_targets",
  "flip_mask",
  "flip_targets",
  "group_robust_dpo_loss",
  "group_utilities",
  "init_feature_queue",
  "lookahead_gradient",
  "luce_choice_loss",
  "margin_targets",
  "maxmin_weights",
  "mixture_log_likelihood",
  "ntxent_loss",
  "pair_rows",
  "plackett_luce_loss",
  "preference_strength",
  "push_features",
  "reward_centering_penalty",
  "reward_spread",
  "sample_min_rewards",
  "simcse_loss",
  "smooth_margin_targets",
  "smooth_targets",
  "soft_min_weights",
  "soft_preference_loss",
  "swav_loss",
  "unit_precondition",
  "user_responsibilities",
  "welfare",
]
