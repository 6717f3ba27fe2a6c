"""What is reported and never optimised: jax and numpy only."""

from jaxalign.metrics.agreement import (
  diversity_matrix,
  preference_agreement,
  preference_diversity,
  reward_drift,
)
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
  expected_calibration_error,
  maximum_calibration_error,
  reliability_curve,
)
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
from jaxalign.metrics.ties import ties_score

__all__ = [
  "Interval",
  "MaxMinSolution",
  "NoiseFloor",
  "ReliabilityCurve",
  "WorstGroup",
  "adaptive_calibration_error",
  "alignment_gap",
  "alignment_gap_bound",
  "bootstrap_interval",
  "brier_score",
  "calibration_noise_floor",
  "distinctiveness",
  "diversity_matrix",
  "expected_calibration_error",
  "maximum_calibration_error",
  "maxmin_policy",
  "negative_log_likelihood",
  "optimal_policy",
  "preference_accuracy",
  "preference_agreement",
  "preference_diversity",
  "regularised_utility",
  "reliability_curve",
  "reward_drift",
  "reward_mismatch_bound",
  "ties_score",
  "worst_group",
]
