"""Numerics that know nothing of preferences: jax and numpy only."""

from jaxalign.ops.assignment import (
  balanced_assignments,
  unit_rows,
)
from jaxalign.ops.masked import (
  masked_mean,
  masked_var,
  masked_whiten,
)
from jaxalign.ops.min_norm import min_norm_weights
from jaxalign.ops.returns import (
  Advantages,
  backward_recursion,
  gae,
  next_counted,
)
from jaxalign.ops.segments import (
  segment_count,
  segment_mean,
  segment_sum,
)
from jaxalign.ops.transport import (
  Sinkhorn,
  sinkhorn,
  sinkhorn_divergence,
  wasserstein_1d,
)

__all__ = [
  "Advantages",
  "Sinkhorn",
  "backward_recursion",
  "balanced_assignments",
  "gae",
  "masked_mean",
  "masked_var",
  "masked_whiten",
  "min_norm_weights",
  "next_counted",
  "segment_count",
  "segment_mean",
  "segment_sum",
  "sinkhorn",
  "sinkhorn_divergence",
  "unit_rows",
  "wasserstein_1d",
]
