"""Preference and policy losses, pure and unreduced: jax and numpy only."""

from jaxalign.losses.contrastive import (
  difference_rows,
  pair_rows,
  simcse_loss,
  swav_loss,
)
from jaxalign.losses.critic import (
  categorical_advantages,
  categorical_critic_loss,
  categorical_returns,
  projected_returns,
  two_hot,
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
from jaxalign.losses.distributional import (
  cvar_utility,
  debiased_transport_loss,
  expected_utility,
  label_cross_entropy,
  mixed_transport_loss,
  optimal_transport_loss,
  wasserstein_1d_loss,
)
from jaxalign.losses.feature_queue import (
  FeatureQueue,
  init_feature_queue,
  push_features,
)
from jaxalign.losses.head_gradients import (
  gradient_ema,
  head_gradients,
  reward_head_gradients,
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
from jaxalign.losses.labels import (
  HELPFUL_HARMLESS_LABELS,
  LabelSet,
  add_votes,
  additive_label_set,
  helpful_harmless_label_set,
  label_posterior,
  targeted_label_smoothing,
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
from jaxalign.losses.multi_objective import (
  MoreDiagnostics,
  more_diagnostics,
  more_weights,
  source_weighted_loss,
)
from jaxalign.losses.pairwise import (
  bradley_terry_loss,
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
from jaxalign.losses.uncertain import (
  mean_variance_loss,
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
  "HELPFUL_HARMLESS_LABELS",
  "KLController",
  "LabelSet",
  "LogProbMismatch",
  "MoreDiagnostics",
  "PreferenceStrength",
  "PreferenceTargets",
  "adam_precondition",
  "adaptive_kl_update",
  "add_votes",
  "additive_label_set",
  "bradley_terry_loss",
  "categorical_advantages",
  "categorical_critic_loss",
  "categorical_returns",
  "clipped_policy_loss",
  "clipped_scores",
  "clipped_value_loss",
  "cvar_utility",
  "debiased_transport_loss",
  "difference_rows",
  "dpo_loss",
  "ensemble_probability",
  "expected_utility",
  "exponentiated_weights",
  "fixed_kl_update",
  "flip_margin_targets",
  "flip_mask",
  "flip_targets",
  "full_kl",
  "gradient_ema",
  "group_relative_advantages",
  "group_robust_dpo_loss",
  "group_utilities",
  "head_gradients",
  "helpful_harmless_label_set",
  "init_feature_queue",
  "init_kl_controller",
  "kl_estimate",
  "label_cross_entropy",
  "label_posterior",
  "log_prob_mismatch",
  "lookahead_gradient",
  "margin_targets",
  "maxmin_weights",
  "mean_variance_loss",
  "missing_eos_penalty",
  "mixed_transport_loss",
  "mixture_log_likelihood",
  "more_diagnostics",
  "more_weights",
  "optimal_transport_loss",
  "overlong_penalty",
  "pair_rows",
  "plackett_luce_loss",
  "policy_clipped",
  "preference_strength",
  "projected_returns",
  "push_features",
  "repeated_ngram_fraction",
  "reward_centering_penalty",
  "reward_head_gradients",
  "reward_spread",
  "sample_min_rewards",
  "simcse_loss",
  "smooth_margin_targets",
  "smooth_targets",
  "soft_min_weights",
  "soft_preference_loss",
  "source_weighted_loss",
  "swav_loss",
  "targeted_label_smoothing",
  "token_rewards",
  "truncated_importance_weights",
  "two_hot",
  "unit_precondition",
  "user_responsibilities",
  "wasserstein_1d_loss",
  "welfare",
]
