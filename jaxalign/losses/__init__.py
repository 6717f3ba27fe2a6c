"""Preference and policy losses, pure and unreduced: jax and numpy only."""

from jaxalign.losses.contrastive import (
  difference_rows,
  ntxent_loss,
  pair_rows,
  simcse_loss,
  swav_loss,
)
from jaxalign.losses.critic import (
  categorical_advantages,
  categorical_critic_loss,
  categorical_returns,
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
from jaxalign.losses.kl import (
  KLController,
  LogProbMismatch,
  adaptive_kl_update,
  fixed_kl_update,
  full_kl,
  init_kl_controller,
  kl_estimate,
  log_prob_mismatch,
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
from jaxalign.losses.policy import (
  clipped_policy_loss,
  clipped_value_loss,
  group_relative_advantages,
  policy_clipped,
  truncated_importance_weights,
)
from jaxalign.losses.shaping import (
  clipped_scores,
  missing_eos_penalty,
  overlong_penalty,
  repeated_ngram_fraction,
  token_rewards,
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
  "KLController",
  "LogProbMismatch",
  "PreferenceStrength",
  "PreferenceTargets",
  "adam_precondition",
  "adaptive_kl_update",
  "bradley_terry_loss",
  "categorical_advantages",
  "categorical_critic_loss",
  "categorical_returns",
  "clipped_policy_loss",
  "clipped_scores",
  "clipped_value_loss",
  "difference_rows",
  "dpo_loss",
  "ensemble_probability",
  "exponentiated_weights",
  "fixed_kl_update",
  "flip_margin_targets",
  "flip_mask",
  "flip_targets",
  "full_kl",
  "group_relative_advantages",
  "group_robust_dpo_loss",
  "group_utilities",
  "init_feature_queue",
  "init_kl_controller",
  "kl_estimate",
  "log_prob_mismatch",
  "lookahead_gradient",
  "luce_choice_loss",
  "margin_targets",
  "maxmin_weights",
  "missing_eos_penalty",
  "mixture_log_likelihood",
  "ntxent_loss",
  "overlong_penalty",
  "pair_rows",
  "plackett_luce_loss",
  "policy_clipped",
  "preference_strength",
  "push_features",
  "repeated_ngram_fraction",
  "reward_centering_penalty",
  "reward_spread",
  "sample_min_rewards",
  "simcse_loss",
  "smooth_margin_targets",
  "smooth_targets",
  "soft_min_weights",
  "soft_preference_loss",
  "swav_loss",
  "token_rewards",
  "truncated_importance_weights",
  "unit_precondition",
  "user_responsibilities",
  "welfare",
]
