"""What is reported and never optimised: jax and numpy only."""

from jaxalign.metrics.calibration import (
  NoiseFloor,
  ReliabilityCurve,
  adaptive_calibration_error,
  calibration_noise_floor,
  expected_calibration_error,
  maximum_calibration_error,
  reliability_curve,
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

__all__ = [
  "Interval",
  "NoiseFloor",
  "ReliabilityCurve",
  "WorstGroup",
  "adaptive_calibration_error",
  "bootstrap_interval",
  "brier_score",
  "calibration_noise_floor",
  "expected_calibration_error",
  "maximum_calibration_error",
  "negative_log_likelihood",
  "preference_accuracy",
  "reliability_curve",
  "worst_group",
]
