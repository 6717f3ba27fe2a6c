"""Clustered bootstrap: intervals over people rather than over their pairs.

Pairs of one person succeed and fail together, so an interval that draws pairs
is too narrow. People are drawn here, each with all of their pairs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.metrics.preference import Interval, check_resampling
from jaxalign.ops import checks, segment_sum


def clustered_interval(
  statistic: Callable[..., jax.Array],
  *arrays: jax.Array,
  cluster: jax.Array,
  num_clusters: int,
  key: jax.Array,
  level: float = 0.95,
  num_samples: int = 1000,
) -> Interval:
  """Percentile bootstrap interval that draws whole clusters of rows.

    s(Σ_u n_u Σ_{i in u} x_i),   n_u: how often cluster u was drawn of U draws

  The statistic is a function of totals over rows, such as a ratio of two of
  them. With a cluster per row it is the bootstrap over rows.

  Args:
    statistic: function of the arrays' totals, [...] each without the leading
      axis, to a float array [...].
    *arrays: float arrays with one leading axis of rows, [N, ...].
    cluster: who a row belongs to, int [N]; a row outside [0, num_clusters)
      counts for nobody.
    num_clusters: U, a Python int. With few of them, below about 20, the
      interval is too narrow, as that of any small sample is.
    key: typed PRNG key, consumed.
    level: share of bootstrap values inside the interval, in (0, 1).
    num_samples: number of resamples.

  Returns:
    `low` and `high`, [...] each.

  Raises:
    TypeError: an array is not floating point, or `cluster` not integer.
    ValueError: no array, other lengths, or a number out of range.

  References:
    Davison & Hinkley, "Bootstrap methods and their application", 1997,
    section 3.8.
    Miller, "Adding error bars to evals", 2024, section 2.2.
  """
  if not arrays:
    raise ValueError("clustered_interval needs at least one array, got none")
  if num_clusters < 2:
    raise ValueError(f"num_clusters must be at least 2, got {num_clusters}")
  check_resampling(level, num_samples)
  checks.integer(cluster=cluster)
  totals = [
    segment_sum(jnp.asarray(array), segment=cluster, num_segments=num_clusters)
    for array in arrays
  ]

  def resampled(sample_key: jax.Array) -> jax.Array:
    index = jax.random.randint(sample_key, (num_clusters,), 0, num_clusters)
    times = jnp.zeros(num_clusters, totals[0].dtype).at[index].add(1.0)
    return statistic(
      *(
        jnp.tensordot(
          times.astype(total.dtype),
          total,
          axes=1,
          precision=jax.lax.Precision.HIGHEST,
        )
        for total in totals
      )
    )

  values = jax.lax.map(
    resampled, jax.random.split(key, num_samples), batch_size=50
  )
  tail = (1 - level) / 2
  low, high = jnp.quantile(
    values, jnp.asarray([tail, 1 - tail], values.dtype), axis=0
  )
  return Interval(low, high)
