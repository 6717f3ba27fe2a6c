"""Preference accuracy and loss: how far rewards fit recorded choices."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


class WorstGroup(NamedTuple):
  """The worst-off group and its value."""

  index: jax.Array  # type: ignore[assignment]  # int32 [], −1 for no group
  value: jax.Array  # float [], NaN if no group is counted


class Interval(NamedTuple):
  """Both ends of an interval, in the unit of the statistic."""

  low: jax.Array  # float [...]
  high: jax.Array  # float [...]


def _mask(x: jax.Array, where: jax.Array | None) -> jax.Array:
  """`where`, checked against `x`; all True when none is given."""
  if where is None:
    return jnp.ones(jnp.shape(x), jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(values=x, where=where)
  return where


def preference_accuracy(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  where: jax.Array | None = None,
  ties: str = "half",
) -> tuple[jax.Array, jax.Array]:
  """Number of pairs ranked as the annotators did, and how many were counted.

  Args:
    chosen: reward of the preferred response, float [...].
    rejected: reward of the other response, float [...].
    where: bool [...], True counts, all by default.
    ties: worth of equal rewards: "half" a pair, "exclude" from the count, or
      "wrong".

  Returns:
    (total, count), float scalars: add both over batches, then divide. A NaN
    reward that is counted makes the total NaN.

  Raises:
    TypeError: a reward is not floating point or `where` is not bool.
    ValueError: shapes differ, or `ties` is another word.
  """
  checks.one_of(("half", "exclude", "wrong"), ties=ties)
  checks.same_shape(chosen=chosen, rejected=rejected)
  chosen, rejected = checks.floating(chosen=chosen, rejected=rejected)
  counted = _mask(chosen, where)
  side = jnp.sign(jnp.where(counted, chosen - rejected, 0.0))
  credit = (side + 1) / 2  # the sign keeps a NaN, a comparison would hide it
  if ties == "exclude":
    counted = counted & (side != 0)
  elif ties == "wrong":
    credit = jnp.where(side == 0, 0.0, credit)
  total = jnp.sum(jnp.where(counted, credit, 0.0))
  return total, jnp.sum(counted, dtype=total.dtype)


def brier_score(
  gaps: jax.Array, *, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Squared error of the predicted win probability, summed over pairs.

    b = (1 − σ(gap))²

  Args:
    gaps: reward of chosen minus rejected, float [...].
    where: bool [...], True counts, all by default.

  Returns:
    (total, count), float scalars: add both over batches, then divide. A
    model that says 0.5 of every pair scores 0.25.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ.

  References:
    Brier, "Verification of forecasts expressed in terms of probability", 1950.
  """
  counted = _mask(gaps, where)
  (gaps,) = checks.floating(gaps=gaps)
  miss = jax.nn.sigmoid(-jnp.where(counted, gaps, 0.0))
  total = jnp.sum(jnp.where(counted, miss * miss, 0.0))
  return total, jnp.sum(counted, dtype=total.dtype)


def negative_log_likelihood(
  gaps: jax.Array, *, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Surprise at the recorded preferences in nats, summed over pairs.

    n = −log σ(gap)

  Args:
    gaps: reward of chosen minus rejected, float [...].
    where: bool [...], True counts, all by default.

  Returns:
    (total, count), float scalars: add both over batches, then divide. A
    model that says 0.5 of every pair scores log 2.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ.
  """
  counted = _mask(gaps, where)
  (gaps,) = checks.floating(gaps=gaps)
  surprise = -jax.nn.log_sigmoid(jnp.where(counted, gaps, 0.0))
  total = jnp.sum(jnp.where(counted, surprise, 0.0))
  return total, jnp.sum(counted, dtype=total.dtype)


def worst_group(
  values: jax.Array, *, where: jax.Array | None = None
) -> WorstGroup:
  """The lowest of K values, where more is better, and whose it is.

  Args:
    values: one value per group, float [K].
    where: bool [K], True counts, all by default.

  Returns:
    `index` int32 and `value`, [...] = [] each, the first on ties. With no group
    counted the index is −1 and the value NaN: there is nothing to report. A
    counted NaN is reported as the worst.

  Raises:
    TypeError: values are not floating point or `where` is not bool.
    ValueError: `values` is not [K], or the shapes differ.
  """
  checks.rank(1, values=values)
  counted = _mask(values, where)
  (values,) = checks.floating(values=values)
  values = jnp.where(counted, values, jnp.inf)
  index = jnp.argmin(values).astype(jnp.int32)
  # An uncounted +inf ties with a counted one; the count settles it.
  index = jnp.where(
    values[index] == jnp.inf, jnp.argmax(counted).astype(jnp.int32), index
  )
  some = jnp.any(counted)
  return WorstGroup(
    jnp.where(some, index, -1), jnp.where(some, values[index], jnp.nan)
  )


def check_resampling(level: float, num_samples: int) -> None:
  """Raises ValueError unless an interval can be made of so many resamples."""
  if not 0.0 < level < 1.0:
    raise ValueError(f"level must be in (0, 1), got {level}")
  if num_samples < 2:
    raise ValueError(f"num_samples must be at least 2, got {num_samples}")


def bootstrap_interval(
  statistic: Callable[..., jax.Array],
  *arrays: jax.Array,
  key: jax.Array,
  level: float = 0.95,
  num_samples: int = 1000,
) -> Interval:
  """Percentile bootstrap interval of a statistic, in its own unit.

  Rows of all arrays are drawn together, with replacement. Rows must be
  independent: pass one row per annotator if their votes are not.

  Args:
    statistic: function of the resampled arrays, to a float array [...].
    *arrays: arrays with one leading axis [N, ...] of common length.
    key: typed PRNG key, consumed.
    level: share of bootstrap values inside the interval, in (0, 1).
    num_samples: number of resamples.

  Returns:
    `low` and `high`, [...] each.

  Raises:
    ValueError: no array, unequal lengths, or a level or number out of range.

  References:
    Efron & Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
  """
  if not arrays:
    raise ValueError("bootstrap_interval needs at least one array, got none")
  lengths = {jnp.shape(a)[0] if jnp.ndim(a) else 0 for a in arrays}
  if len(lengths) > 1 or 0 in lengths:
    shapes = ", ".join(str(jnp.shape(a)) for a in arrays)
    raise ValueError(f"arrays must share a leading axis of rows, got {shapes}")
  check_resampling(level, num_samples)
  n = lengths.pop()
  rows = [jnp.asarray(array) for array in arrays]

  def resampled(sample_key: jax.Array) -> jax.Array:
    index = jax.random.randint(sample_key, (n,), 0, n)
    return statistic(*(array[index] for array in rows))

  # In blocks: all resamples at once would hold num_samples copies of the data.
  values = jax.lax.map(
    resampled, jax.random.split(key, num_samples), batch_size=50
  )
  tail = (1 - level) / 2
  low, high = jnp.quantile(values, jnp.asarray([tail, 1 - tail]), axis=0)
  return Interval(low, high)
