"""Calibration of predicted win probabilities.

A reward gap g claims that the preferred response wins with probability σ(g).
Both orders of a pair are predictions, (σ(g), won) and (σ(−g), lost), so every
curve here is symmetric about one half.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


class ReliabilityCurve(NamedTuple):
  """Predicted against observed win rate per bin of predicted probability."""

  edges: jax.Array  # [num_bins + 1]
  confidence: jax.Array  # mean predicted win probability, [num_bins]
  accuracy: jax.Array  # observed win rate, [num_bins]; 0 in an empty bin
  counts: jax.Array  # predictions in the bin, two per pair, [num_bins]


class NoiseFloor(NamedTuple):
  """Calibration error that sampling alone produces."""

  mean: jax.Array  # float [...]
  low: jax.Array  # 5 % quantile, float [...]
  high: jax.Array  # 95 % quantile, float [...]


def _predictions(
  gaps: jax.Array, num_bins: int, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Confidence in the favoured response, its success and the mask, flat."""
  if num_bins < 1:
    raise ValueError(f"num_bins must be at least 1, got {num_bins}")
  checks.boolean(where=where)
  checks.same_shape(gaps=gaps, where=where)
  (gaps,) = checks.floating(gaps=gaps)
  gaps = jnp.ravel(gaps)
  counted = (
    jnp.ones(gaps.shape, jnp.bool_) if where is None else jnp.ravel(where)
  )
  gaps = jnp.where(counted, gaps, 0.0)
  # A zero gap favours neither, so half of it wins.
  return jax.nn.sigmoid(jnp.abs(gaps)), (jnp.sign(gaps) + 1) / 2, counted


def _binned(
  confidence: jax.Array,
  success: jax.Array,
  counted: jax.Array,
  index: jax.Array,
  num_bins: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean confidence, mean success and count of each bin, [num_bins]."""
  bins = jnp.arange(num_bins, dtype=jnp.int32)
  one_hot = (index[:, None] == bins[None, :]) & counted[:, None]
  count = jnp.sum(one_hot, axis=0, dtype=confidence.dtype)
  size = jnp.maximum(count, 1)
  # Sums, not a matmul: accelerators would round its inputs to bfloat16.
  mean_confidence = jnp.sum(jnp.where(one_hot, confidence[:, None], 0.0), 0)
  mean_success = jnp.sum(jnp.where(one_hot, success[:, None], 0.0), 0)
  return mean_confidence / size, mean_success / size, count


def reliability_curve(
  gaps: jax.Array, *, num_bins: int = 10, where: jax.Array | None = None
) -> ReliabilityCurve:
  """Observed win rate at each predicted win probability, over both orders.

  Args:
    gaps: reward of chosen minus rejected, float [...].
    num_bins: number of equal-width bins over [0, 1].
    where: bool [...], True counts, all by default.

  Returns:
    `edges` [num_bins + 1], `confidence`, `accuracy`, `counts` [num_bins]. An
    empty bin has 0 in all three.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ, or num_bins is below 1.
  """
  confidence, success, counted = _predictions(gaps, num_bins, where)
  upper = jnp.clip(jnp.floor(confidence * num_bins), 0, num_bins - 1)
  upper = jnp.where(jnp.isnan(confidence), 0, upper).astype(jnp.int32)
  # The other order falls into the mirrored bin by construction; binning it by
  # its own probability would break the symmetry at the edges.
  confidence, success, count = _binned(
    jnp.concatenate([confidence, 1 - confidence]),
    jnp.concatenate([success, 1 - success]),
    jnp.concatenate([counted, counted]),
    jnp.concatenate([upper, num_bins - 1 - upper]),
    num_bins,
  )
  edges = jnp.linspace(0.0, 1.0, num_bins + 1, dtype=confidence.dtype)
  return ReliabilityCurve(edges, confidence, success, count)


def expected_calibration_error(
  gaps: jax.Array, *, num_bins: int = 10, where: jax.Array | None = None
) -> jax.Array:
  """Mean distance of observed from predicted win rate, a probability.

    ECE = Σ_b (n_b / n) |accuracy_b − confidence_b|

  over equal-width bins of both orders of every pair. It is biased upwards by
  sampling: compare it with `calibration_noise_floor`.

  Args:
    gaps: reward of chosen minus rejected, float [...].
    num_bins: number of equal-width bins over [0, 1].
    where: bool [...], True counts, all by default.

  Returns:
    Scalar in [0, 1]; 0 if nothing is counted.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ, or num_bins is below 1.

  References:
    Guo et al., "On calibration of modern neural networks", 2017, eq. (5).
    Zeng et al., "On diversified preferences of large language model
    alignment", 2024, section 2.
  """
  curve = reliability_curve(gaps, num_bins=num_bins, where=where)
  distance = jnp.abs(curve.accuracy - curve.confidence)
  total = jnp.sum(curve.counts * distance)
  return total / jnp.maximum(jnp.sum(curve.counts), 1)


def calibration_terms(gaps: jax.Array, *, num_bins: int = 10) -> jax.Array:
  """What each pair adds to the calibration error of its bin.

    ECE = Σ_b |Σ_n t_nb| / N

  over N pairs, so that the error of any selection or repetition of pairs, such
  as a bootstrap's, follows from sums of these terms.

  Args:
    gaps: reward of chosen minus rejected, float [N].
    num_bins: number of equal-width bins over [0, 1].

  Returns:
    t, confidence in the favoured response minus its success at the pair's bin
    and 0 elsewhere, [N, num_bins]. In the middle one of an odd number of bins
    both orders of a pair cancel.

  Raises:
    TypeError: gaps are not floating point.
    ValueError: gaps are not [N], or num_bins is below 1.
  """
  checks.rank(1, gaps=gaps)
  confidence, success, _ = _predictions(gaps, num_bins, None)
  index = jnp.clip(jnp.floor(confidence * num_bins), 0, num_bins - 1)
  bins = jnp.arange(num_bins, dtype=index.dtype)
  member = (index[:, None] == bins[None]) & (2 * bins + 1 != num_bins)[None]
  return jnp.where(member, (confidence - success)[:, None], 0.0)


def maximum_calibration_error(
  gaps: jax.Array, *, num_bins: int = 10, where: jax.Array | None = None
) -> jax.Array:
  """Largest distance of observed from predicted win rate in any bin.

  Args:
    gaps: reward of chosen minus rejected, float [...].
    num_bins: number of equal-width bins over [0, 1].
    where: bool [...], True counts, all by default.

  Returns:
    Scalar in [0, 1]; 0 if nothing is counted. One pair alone in a bin can set
    it, so it needs many pairs.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ, or num_bins is below 1.

  References:
    Guo et al., "On calibration of modern neural networks", 2017, eq. (6).
  """
  curve = reliability_curve(gaps, num_bins=num_bins, where=where)
  return jnp.max(jnp.abs(curve.accuracy - curve.confidence))


def adaptive_calibration_error(
  gaps: jax.Array, *, num_bins: int = 10, where: jax.Array | None = None
) -> jax.Array:
  """Calibration error over bins that hold equally many predictions.

    ACE = (1 / num_bins) Σ_b |accuracy_b − confidence_b|

  over both orders of every pair, sorted by predicted probability. Rewards
  that hardly differ crowd two equal-width bins; equal mass resolves them.

  Args:
    gaps: reward of chosen minus rejected, float [...].
    num_bins: number of bins.
    where: bool [...], True counts, all by default.

  Returns:
    Scalar in [0, 1]; 0 if nothing is counted. With fewer predictions than
    bins the empty ones drop out of the mean.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ, or num_bins is below 1.

  References:
    Nixon et al., "Measuring calibration in deep learning", 2019, section 3.
  """
  confidence, success, counted = _predictions(gaps, num_bins, where)
  both = jnp.concatenate([1 - confidence[::-1], confidence])
  won = jnp.concatenate([1 - success[::-1], success])
  used = jnp.concatenate([counted[::-1], counted])
  # Sorting puts what is masked last, so ranks below the count are the data.
  order = jnp.argsort(jnp.where(used, both, jnp.inf))
  rank = jnp.arange(both.size, dtype=jnp.int32)
  size = jnp.maximum(jnp.sum(used, dtype=jnp.int32), 1)
  confidence, success, count = _binned(
    both[order],
    won[order],
    used[order],
    (rank * num_bins) // size,
    num_bins,
  )
  distance = jnp.sum(jnp.abs(success - confidence))
  return distance / jnp.maximum(jnp.sum(count > 0), 1).astype(distance.dtype)


def calibration_noise_floor(
  gaps: jax.Array,
  *,
  key: jax.Array,
  num_bins: int = 10,
  num_samples: int = 1000,
  where: jax.Array | None = None,
) -> NoiseFloor:
  """The ECE a perfectly calibrated model with these confidences would show.

  Winners are redrawn with exactly the predicted probabilities; what error is
  left then is sampling. An ECE below `high` is no evidence of miscalibration
  at this number of pairs.

  Args:
    gaps: reward of chosen minus rejected, float [...]; signs are not used.
    key: typed PRNG key, consumed.
    num_bins: number of equal-width bins over [0, 1].
    num_samples: number of redrawn data sets.
    where: bool [...], True counts, all by default.

  Returns:
    `mean`, `low` and `high` (5 % and 95 % quantile) of the ECE, scalars.

  Raises:
    TypeError: gaps are not floating point or `where` is not bool.
    ValueError: shapes differ, or a number is below 1.
  """
  if num_samples < 1:
    raise ValueError(f"num_samples must be at least 1, got {num_samples}")
  confidence, _, counted = _predictions(gaps, num_bins, where)
  (gaps,) = checks.floating(gaps=gaps)
  size = jnp.abs(jnp.where(counted, jnp.ravel(gaps), 0.0))

  def redrawn(sample_key: jax.Array) -> jax.Array:
    wins = jax.random.uniform(sample_key, size.shape, size.dtype) < confidence
    return expected_calibration_error(
      jnp.where(wins, size, -size), num_bins=num_bins, where=counted
    )

  values = jax.lax.map(redrawn, jax.random.split(key, num_samples))
  low, high = jnp.quantile(values, jnp.asarray([0.05, 0.95], values.dtype))
  return NoiseFloor(jnp.mean(values), low, high)
