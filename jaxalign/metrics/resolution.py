"""Detectable differences: the smallest that a number of pairs can show."""

import statistics

import jax
import jax.numpy as jnp

_NUM_GAPS = 4096  # points that stand for the distribution of reward gaps


def detectable_accuracy_over_chance(
  num_pairs: float, *, level: float = 0.05, power: float = 0.8
) -> float:
  """Smallest distance from 0.5 of an accuracy that a test will notice.

    δ √n = z_level / 2 + z_power √(¼ − δ²)

  A two-sided test of size `level` for an accuracy of one half rejects with
  probability `power` if the true accuracy is 0.5 + δ.

  Args:
    num_pairs: independent pairs, > 0.
    level: size of the test, in (0, 1).
    power: probability of noticing, in (0.5, 1).

  Returns:
    δ, a Python float, shape [...] = []; NaN where no accuracy would do.

  Raises:
    ValueError: a number is out of range.
  """
  return _detectable(num_pairs, 0.25, level, power, largest=0.5)


def detectable_accuracy_difference(
  num_pairs: float,
  *,
  disagreement: float,
  level: float = 0.05,
  power: float = 0.8,
) -> float:
  """Smallest difference in accuracy of two models on the same pairs.

    δ √n = z_level √d + z_power √(d − δ²)

  McNemar's test: only the share d of pairs on which exactly one of the models
  is right says anything about which one is better.

  Args:
    num_pairs: independent pairs, > 0.
    disagreement: d, in (0, 1].
    level: size of the two-sided test, in (0, 1).
    power: probability of noticing, in (0.5, 1).

  Returns:
    δ, a Python float, shape [...] = []; NaN where even δ = d would not do.

  Raises:
    ValueError: a number is out of range.

  References:
    Connor, "Sample size for testing differences in proportions for the
    paired-sample design", 1987.
  """
  if not 0.0 < disagreement <= 1.0:
    raise ValueError(f"disagreement must be in (0, 1], got {disagreement}")
  return _detectable(num_pairs, disagreement, level, power, disagreement)


def _detectable(
  num_pairs: float, spread: float, level: float, power: float, largest: float
) -> float:
  """The δ with δ √n = z_level √s + z_power √(s − δ²)."""
  _check(num_pairs, level, power)
  z_level, z_power = _quantiles(level, power)
  inside = num_pairs + z_power**2 - z_level**2
  if inside < 0:
    return float("nan")
  root = z_level * num_pairs**0.5 + z_power * inside**0.5
  found = spread**0.5 * root / (num_pairs + z_power**2)
  return found if found <= largest else float("nan")


def _quantiles(level: float, power: float) -> tuple[float, float]:
  normal = statistics.NormalDist()
  return normal.inv_cdf(1 - level / 2), normal.inv_cdf(power)


def _check(num_pairs: float, level: float, power: float) -> None:
  if num_pairs <= 0:
    raise ValueError(f"num_pairs must be > 0, got {num_pairs}")
  if not 0.0 < level < 1.0:
    raise ValueError(f"level must be in (0, 1), got {level}")
  if not 0.5 < power < 1.0:
    raise ValueError(f"power must be in (0.5, 1), got {power}")


def gaps_of_accuracy(
  accuracy: float, *, num_gaps: int = _NUM_GAPS
) -> jax.Array:
  """Sizes of the reward gaps of a calibrated model that is right this often.

  Half-normal quantiles, scaled so that the mean of σ(gap) is the accuracy.

  Args:
    accuracy: mean win probability of the favoured response, in (0.5, 1).
    num_gaps: how many quantiles.

  Returns:
    Gaps in increasing order, float [num_gaps].

  Raises:
    ValueError: the accuracy is out of range.
  """
  if not 0.5 < accuracy < 1.0:
    raise ValueError(f"accuracy must be in (0.5, 1), got {accuracy}")
  at = (jnp.arange(num_gaps, dtype=jnp.result_type(float)) + 0.5) / num_gaps
  normal = jax.scipy.special.ndtri((1 + at) / 2)

  def bisect(
    _: int, ends: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    low, high = ends
    middle = jnp.sqrt(low * high)
    above = jnp.mean(jax.nn.sigmoid(middle * normal)) > accuracy
    return jnp.where(above, low, middle), jnp.where(above, middle, high)

  ends = jnp.asarray(1e-4, normal.dtype), jnp.asarray(1e4, normal.dtype)
  low, high = jax.lax.fori_loop(0, 60, bisect, ends)
  return jnp.sqrt(low * high) * normal


def detectable_calibration_difference(
  num_pairs: float,
  *,
  accuracy: float,
  key: jax.Array,
  num_bins: int = 10,
  level: float = 0.05,
  power: float = 0.8,
  num_samples: int = 2000,
) -> jax.Array:
  """Smallest difference in ECE of two models that a test will notice.

  One model is calibrated, the other makes the same claims σ(gap) where the
  truth is σ(τ gap), so it is overconfident. The two ECEs differ by chance even
  if both models are calibrated; the test rejects where they differ by more than
  1 − `level` of those differences. τ falls from 1 until it rejects with
  probability `power`, and the true ECE there is the answer. The sampling noise
  of the two counts as independent; on the same pairs it is partly common, so
  somewhat less may be noticed.

  Args:
    num_pairs: independent pairs, > 0.
    accuracy: mean claimed win probability of the favoured response, in
      (0.5, 1); the gaps are those of `gaps_of_accuracy`.
    key: typed PRNG key, consumed.
    num_bins: bins of `expected_calibration_error`.
    level: size of the test, in (0, 1).
    power: probability of noticing, in (0.5, 1).
    num_samples: simulated samples of pairs.

  Returns:
    Scalar in (0, 0.5), shape [...] = []; NaN where even a model that knows
    nothing (τ = 0) would pass unnoticed.

  Raises:
    ValueError: a number is out of range.
  """
  _check(num_pairs, level, power)
  if num_bins < 1 or num_samples < 2:
    raise ValueError(
      "num_bins must be >= 1 and num_samples >= 2, got "
      f"{num_bins} and {num_samples}"
    )
  gaps = gaps_of_accuracy(accuracy)
  claimed = jax.nn.sigmoid(gaps)
  index = jnp.clip(jnp.floor(claimed * num_bins), 0, num_bins - 1)
  bins = jnp.arange(num_bins, dtype=index.dtype)
  # Both orders of a pair fall into a bin about one half and cancel there.
  member = (
    index[None, :] == jnp.where(2 * bins + 1 == num_bins, -1, bins)[:, None]
  )

  def in_bins(x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.where(member, x[None, :], 0.0), axis=1)

  def error(slope: jax.Array, noise: jax.Array) -> jax.Array:
    """ECE in samples, [S], from standard normal noise [S, num_bins]."""
    truth = jax.nn.sigmoid(slope * gaps)
    offset = in_bins(truth - claimed)
    spread = jnp.sqrt(in_bins(truth * (1 - truth)) / num_pairs)
    return jnp.sum(jnp.abs(offset[None, :] + noise * spread[None, :]), axis=1)

  keys = jax.random.split(key)
  first, second = (jax.random.normal(k, (num_samples, num_bins)) for k in keys)
  one = jnp.ones((), gaps.dtype)
  calibrated = error(one, first)
  by_chance = jnp.abs(error(one, second) - calibrated)
  threshold = jnp.quantile(by_chance, jnp.asarray(1 - level, by_chance.dtype))

  def noticed(slope: jax.Array) -> jax.Array:
    return jnp.mean(error(slope, second) - calibrated > threshold)

  def bisect(
    _: int, ends: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    low, high = ends  # noticed at low, not at high
    middle = (low + high) / 2
    enough = noticed(middle) >= power
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  slope, _ = jax.lax.fori_loop(0, 25, bisect, (0 * one, one))
  truth = jax.nn.sigmoid(slope * gaps)
  found = jnp.sum(jnp.abs(in_bins(truth - claimed)))
  return jnp.where(noticed(0 * one) >= power, found, jnp.nan)
