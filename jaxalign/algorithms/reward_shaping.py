"""Reward shaping: scale, clip, missing end, length and repetition penalties."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.ops import checks, masked

_SCALES = ("none", "std", "standardise")


@dataclasses.dataclass(frozen=True)
class RewardConfig:
  """Scale and shaping, applied in this order; None means off.

  Attributes:
    scale: "none"; "std" divides by the running deviation of all scores so far,
      "standardise" takes off their running mean first.
    clip: largest magnitude of the scaled score, > 0.
    missing_eos: what a response loses that did not end by itself, in scaled
      score units, >= 0.
    overlong: what a response of full length loses, in scaled score units,
      rising linearly over the last `overlong_buffer` tokens.
    overlong_buffer: tokens, >= 1; None exactly where `overlong` is.
    repetition: what is lost per share of repeated n-grams, >= 0.
    repetition_ngram: n, >= 1; None exactly where `repetition` is.
  """

  scale: str = "none"
  clip: float | None = None
  missing_eos: float | None = 1.0
  overlong: float | None = None
  overlong_buffer: int | None = None
  repetition: float | None = None
  repetition_ngram: int | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(_SCALES, scale=self.scale)
    if self.clip is not None and not self.clip > 0:
      raise ValueError(f"clip must be > 0 or None, got {self.clip}")
    checks.at_least(
      0,
      missing_eos=self.missing_eos,
      overlong=self.overlong,
      repetition=self.repetition,
    )
    for name, knob in (
      ("overlong", "overlong_buffer"),
      ("repetition", "repetition_ngram"),
    ):
      value, number = self.__dict__[name], self.__dict__[knob]
      if (value is None) != (number is None):
        raise ValueError(
          f"{name} and {knob} are set together, got {value} and {number}"
        )
      if number is not None and number < 1:
        raise ValueError(f"{knob} must be >= 1, got {number}")


class Moments(NamedTuple):
  """Running mean and spread of all scores so far; all float32 scalars.

  Attributes:
    number: scores seen.
    mean: of them.
    squares: sum of squared deviations from that mean.
  """

  number: jax.Array
  mean: jax.Array
  squares: jax.Array


def init_moments() -> Moments:
  """Of no score, three scalars."""
  return Moments(*(jnp.zeros((), jnp.float32) for _ in range(3)))


def update_moments(
  moments: Moments,
  scores: jax.Array,
  *,
  where: jax.Array,
  axis_name: str | None = None,
) -> Moments:
  """The moments with a batch added, exact in any order.

  Args:
    moments: of the scores before.
    scores: float [S].
    where: scores that count, bool [S].
    axis_name: mapped axis the scores are spread over, None on one device.

  Returns:
    Three scalars.

  References:
    Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979.
  """
  (scores,) = checks.floating(scores=scores)
  number = jnp.sum(where, dtype=scores.dtype)
  if axis_name is not None:
    number = jax.lax.psum(number, axis_name)
  mean = masked.masked_mean(scores, where=where, axis_name=axis_name)
  variance = masked.masked_var(scores, where=where, axis_name=axis_name)
  total = moments.number + number
  share = number / jnp.maximum(total, 1)
  gap = mean - moments.mean
  added = Moments(
    total,
    moments.mean + gap * share,
    moments.squares + variance * number + gap**2 * moments.number * share,
  )
  return Moments(*(x.astype(jnp.float32) for x in added))


def score_unit(moments: Moments, config: RewardConfig) -> jax.Array:
  """What one scaled score stands for in raw ones, float32 scalar; 1 without."""
  if config.scale == "none":
    return jnp.ones((), jnp.float32)
  variance = moments.squares / jnp.maximum(moments.number, 1)
  return jnp.where(variance > 0, jnp.sqrt(variance), 1.0)


def scaled_scores(
  scores: jax.Array, moments: Moments, config: RewardConfig
) -> jax.Array:
  """Scores in units of their running deviation, then clipped.

  Args:
    scores: float [S].
    moments: of all scores so far, these included.
    config: scale and clip.

  Returns:
    float32 or wider, [S]; scores that never differed keep their unit.

  References:
    Zheng et al., "Secrets of RLHF in large language models part I: PPO", 2023,
    equation 18.
  """
  (scores,) = checks.floating(scores=scores)
  if config.scale != "none":
    deviation = score_unit(moments, config)
    if config.scale == "standardise":
      scores = scores - moments.mean.astype(scores.dtype)
    scores = scores / deviation.astype(scores.dtype)
  if config.clip is not None:
    scores = losses.clipped_scores(scores, limit=config.clip)
  return scores


def shaped_scores(
  scores: jax.Array,
  tokens: jax.Array,
  *,
  where: jax.Array,
  ended: jax.Array,
  config: RewardConfig,
) -> jax.Array:
  """Scores minus penalties for missing ends, length and repetition.

  Args:
    scores: scaled, float [S].
    tokens: of the responses, int [S, T].
    where: tokens that count, bool [S, T].
    ended: responses that ended by themselves, bool [S].
    config: the penalties.

  Returns:
    float32 or wider, [S].
  """
  (scores,) = checks.floating(scores=scores)
  if config.missing_eos is not None:
    scores = losses.missing_eos_penalty(
      scores, ended=ended, penalty=config.missing_eos
    )
  if config.overlong is not None and config.overlong_buffer is not None:
    penalty = losses.overlong_penalty(
      jnp.sum(where, axis=-1, dtype=jnp.int32),
      limit=tokens.shape[-1],
      buffer=config.overlong_buffer,
    )
    scores = scores + config.overlong * penalty.astype(scores.dtype)
  if config.repetition is not None and config.repetition_ngram is not None:
    repeated = losses.repeated_ngram_fraction(
      tokens, where=where, ngram=config.repetition_ngram
    )
    scores = scores - config.repetition * repeated.astype(scores.dtype)
  return scores
