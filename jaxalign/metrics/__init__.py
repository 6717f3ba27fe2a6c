"""Metrics that are reported and never optimised: jax and numpy only."""

from jaxalign.metrics.agreement import (
  diversity_matrix,
  preference_diversity,
  reward_drift,
)
from jaxalign.metrics.best_of_n import best_of_n_kl, best_of_n_values
from jaxalign.metrics.bounds import (
  alignment_gap,
  alignment_gap_bound,
  distinctiveness,
  optimal_policy,
  regularised_utility,
  reward_mismatch_bound,
)
from jaxalign.metrics.calibration import (
  NoiseFloor,
  ReliabilityCurve,
  adaptive_calibration_error,
  calibration_noise_floor,
  calibration_terms,
  expected_calibration_error,
  maximum_calibration_error,
  reliability_curve,
)
from jaxalign.metrics.clusters import clustered_interval
from jaxalign.metrics.maxmin_dual import (
  MaxMinSolution,
  maxmin_policy,
)
from jaxalign.metrics.preference import (
  Interval,
  WorstGroup,
  bootstrap_interval,
  brier_score,
  negative_log_likelihood,
  preference_accuracy,
  worst_group,
)
from jaxalign.metrics.resolution import (
  detectable_accuracy_difference,
  detectable_accuracy_over_chance,
  detectable_calibration_difference,
  gaps_of_accuracy,
)
from jaxalign.metrics.structure import (
  Structure,
  permutation_test,
  shared_taste_scores,
)
from jaxalign.metrics.ties import ties_score
from jaxalign.metrics.votes import rater_agreement, vote_entropy

__all__ = [
  "Interval",
  "MaxMinSolution",
  "NoiseFloor",
  "ReliabilityCurve",
  "Structure",
  "WorstGroup",
  "adaptive_calibration_error",
  "alignment_gap",
  "alignment_gap_bound",
  "best_of_n_kl",
  "best_of_n_values",
  "bootstrap_interval",
  "brier_score",
  "calibration_noise_floor",
  "calibration_terms",
  "clustered_interval",
  "detectable_accuracy_difference",
  "detectable_accuracy_over_chance",
  "detectable_calibration_difference",
  "distinctiveness",
  "diversity_matrix",
  "expected_calibration_error",
  "gaps_of_accuracy",
  "maximum_calibration_error",
  "maxmin_policy",
  "negative_log_likelihood",
  "optimal_policy",
  "permutation_test",
  "preference_accuracy",
  "preference_diversity",
  "rater_agreement",
  "regularised_utility",
  "reliability_curve",
  "reward_drift",
  "reward_mismatch_bound",
  "shared_taste_scores",
  "ties_score",
  "vote_entropy",
  "worst_group",
]
