"""Preference strength from an ensemble, and what it implies for the labels.

A policy turns strengths into targets of the *original* order, which any pair
loss with soft labels and a margin can take:

    soft_preference_loss(chosen, rejected, chosen_prob=t.chosen_prob,
                         margin=t.margin)

Swapping a pair and giving it the margin −μ is, in the original order, the
label 0 with the margin μ; so one margin serves flipped and unflipped pairs.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.ops import checks

MARGIN_SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "linear": lambda strength: strength,
  "asinh": jnp.arcsinh,
  "tanh": jnp.tanh,
}


class PreferenceStrength(NamedTuple):
  """Mean and spread of an ensemble's margin per pair, in reward units."""

  mean: jax.Array  # μ, [N]
  std: jax.Array  # σ, population standard deviation over models, [N]


class PreferenceTargets(NamedTuple):
  """Label and margin of each pair in its original order."""

  chosen_prob: jax.Array  # probability that `chosen` is the better one, [N]
  margin: jax.Array  # gap chosen − rejected to clear, in reward units, [N]


def preference_strength(margins: jax.Array) -> PreferenceStrength:
  """How much an ensemble prefers `chosen`, in reward units.

    μ_i = (1/M) Σ_m d_im,   σ_i² = (1/M) Σ_m (d_im − μ_i)²

  Args:
    margins: d, reward of chosen minus reward of rejected under each model,
      float [M, N].

  Returns:
    `mean` and `std`, [N] each. Models that agree have std 0 with zero
    gradient.

  Raises:
    TypeError: margins are not floating point.
    ValueError: there is no model axis.

  References:
    Wang et al., "Secrets of RLHF in large language models part II", 2024,
    equation 4.
  """
  _ensemble(margins)
  (margins,) = checks.floating(margins=margins)
  mean = jnp.mean(margins, axis=0)
  variance = jnp.mean(jnp.square(margins - mean[None]), axis=0)
  spread = variance > 0  # the root's slope at 0 is infinite
  std = jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0)
  return PreferenceStrength(mean, std)


def ensemble_probability(margins: jax.Array) -> jax.Array:
  """Mean over models of the probability that `chosen` is better.

    p_i = (1/M) Σ_m σ(d_im)

  This, and not σ(μ), is the label an ensemble votes for: it stays away from
  0 and 1 where the models disagree.

  Args:
    margins: reward of chosen minus reward of rejected, float [M, N].

  Returns:
    Probabilities, [N].

  Raises:
    TypeError: margins are not floating point.
    ValueError: there is no model axis.
  """
  _ensemble(margins)
  (margins,) = checks.floating(margins=margins)
  return jnp.mean(jax.nn.sigmoid(margins), axis=0)


def flip_mask(strength: jax.Array, *, fraction: float) -> jax.Array:
  """Mask of the weakest pairs, whose labels are taken to be wrong.

  Args:
    strength: μ of each pair of the whole training set, float [N].
    fraction: share to flip, Python float in [0, 1].

  Returns:
    bool [N], True for exactly ⌊fraction·N + 1e-9⌋ pairs, the lowest first and
    ties by index. A selection, so without gradient.

  Raises:
    TypeError: strength is not floating point.
    ValueError: strength has not one axis, or fraction is out of range.
  """
  checks.rank(1, strength=strength)
  if not 0.0 <= fraction <= 1.0:
    raise ValueError(f"fraction must be in [0, 1], got {fraction}")
  (strength,) = checks.floating(strength=strength)
  size = strength.shape[0]
  count = math.floor(fraction * size + 1e-9)
  order = jnp.argsort(jax.lax.stop_gradient(strength), stable=True)
  return jnp.zeros(size, jnp.bool_).at[order[:count]].set(True)


def drawn_flip_mask(key: jax.Array, strength: jax.Array) -> jax.Array:
  """Mask of labels drawn to be wrong, each by the ensemble's own probability.

    P(flip i) = σ(−μ_i)

  In expectation a flipped label is the soft label σ(μ).

  Args:
    key: of jax.random.
    strength: μ of each pair, a difference of log-odds, float [N].

  Returns:
    bool [N]. A selection, so without gradient.

  Raises:
    TypeError: strength is not floating point.
    ValueError: strength has not one axis.
  """
  checks.rank(1, strength=strength)
  (strength,) = checks.floating(strength=strength)
  wrong = jax.nn.sigmoid(-jax.lax.stop_gradient(strength))
  return jax.random.bernoulli(key, wrong)


def strength_slice(
  strength: jax.Array, *, low: float, high: float
) -> jax.Array:
  """Mask of the pairs between two quantiles of strength.

  Slices that share an end have no pair in common, and slices from 0 to 1 in
  steps have every pair once.

  Args:
    strength: μ of each pair of the whole training set, float [N].
    low: share of pairs that are weaker, Python float in [0, 1).
    high: share of pairs that are weaker than the slice's end, in (low, 1].

  Returns:
    bool [N], True from rank ⌊low·N + 1e-9⌋ up to and without rank
    ⌊high·N + 1e-9⌋, ties by index. A selection, so without gradient.

  Raises:
    TypeError: strength is not floating point.
    ValueError: strength has not one axis, or low and high are out of range.
  """
  if not 0.0 <= low < high <= 1.0:
    raise ValueError(
      f"low and high must be 0 <= low < high <= 1, got {low} and {high}"
    )
  above = ~flip_mask(strength, fraction=low)
  return above & flip_mask(strength, fraction=high)


def shaped_margin(
  strength: jax.Array,
  *,
  shape: str = "linear",
  scale: float = 1.0,
  cap: float | None = None,
) -> jax.Array:
  """Margin that a pair of some strength must clear, in reward units.

    m = clip(s·g(μ), −cap, cap),   g(μ) = μ, asinh(μ) or tanh(μ)

  All shapes have slope s at 0 and are odd, so that a pair swapped has minus its
  margin. asinh grows as a logarithm, tanh ends at 1.

  Args:
    strength: μ of each pair, float [N].
    shape: g, "linear", "asinh" or "tanh".
    scale: s, Python float >= 0.
    cap: largest size of a margin, Python float > 0; None for none.

  Returns:
    m, [N]. At a cap the derivative is half of either side's.

  Raises:
    TypeError: strength is not floating point.
    ValueError: shape is not a name above, or scale or cap is out of range.

  References:
    Wang et al., 2024, equation 6, is linear with scale 1 and no cap.
  """
  checks.one_of(tuple(MARGIN_SHAPES), shape=shape)
  checks.at_least(0, scale=scale)
  (strength,) = checks.floating(strength=strength)
  margin = scale * MARGIN_SHAPES[shape](strength)
  if cap is None:
    return margin
  checks.above(0, cap=cap)
  return jnp.clip(margin, -cap, cap)


def margin_targets(
  strength: jax.Array, *, chosen_prob: jax.Array | float = 1.0
) -> PreferenceTargets:
  """Adaptive margin: every pair must clear its own strength.

  Args:
    strength: μ of each pair, float [N].
    chosen_prob: label before the policy, scalar or float [N].

  Returns:
    Targets: the label as given, the margin μ, [N] each.

  Raises:
    TypeError: an array is not floating point.
    ValueError: the shapes differ, or a known chosen_prob is outside [0, 1].

  References:
    Wang et al., 2024, equation 6, with the margin inside the sigmoid.
  """
  prob, strength = _labels(strength, chosen_prob)
  return PreferenceTargets(prob, strength)


def flip_targets(
  strength: jax.Array,
  *,
  flipped: jax.Array,
  chosen_prob: jax.Array | float = 1.0,
) -> PreferenceTargets:
  """Swapped labels on the flipped pairs, no margin.

  Args:
    strength: μ of each pair, float [N].
    flipped: bool [N], from `flip_mask` over the whole training set.
    chosen_prob: label before the policy, scalar or float [N].

  Returns:
    Targets: the label p, or 1 − p where flipped, and the margin 0, [N] each.

  Raises:
    TypeError: `flipped` is not bool, or another array not floating point.
    ValueError: the shapes differ, or a known chosen_prob is outside [0, 1].
  """
  prob, strength = _labels(strength, chosen_prob)
  return PreferenceTargets(_swapped(prob, flipped), jnp.zeros_like(strength))


def flip_margin_targets(
  strength: jax.Array,
  *,
  flipped: jax.Array,
  chosen_prob: jax.Array | float = 1.0,
) -> PreferenceTargets:
  """Swapped labels on the flipped pairs and an adaptive margin on all.

  Seen in the order after the swap, a flipped pair has the margin −μ, which is
  |μ| where the ensemble disagrees with the label.

  Args:
    strength: μ of each pair, float [N].
    flipped: bool [N], from `flip_mask` over the whole training set.
    chosen_prob: label before the policy, scalar or float [N].

  Returns:
    Targets: the label p, or 1 − p where flipped, and the margin μ, [N] each.

  Raises:
    TypeError: `flipped` is not bool, or another array not floating point.
    ValueError: the shapes differ, or a known chosen_prob is outside [0, 1].
  """
  prob, strength = _labels(strength, chosen_prob)
  return PreferenceTargets(_swapped(prob, flipped), strength)


def smooth_targets(
  strength: jax.Array,
  *,
  smoothing: float = 0.2,
  smoothed: jax.Array | None = None,
  chosen_prob: jax.Array | float = 1.0,
) -> PreferenceTargets:
  """Smoothed labels where the ensemble disagrees with them, no margin.

    p' = (1 − a) p + a (1 − p) where μ < 0, else p

  Args:
    strength: μ of each pair, float [N].
    smoothing: a, Python float in [0, 0.5].
    smoothed: pairs whose labels are softened, bool [N]; None for μ < 0.
    chosen_prob: p, label before the policy, scalar or float [N].

  Returns:
    Targets: the label p' and the margin 0, [N] each.

  Raises:
    TypeError: `smoothed` is not bool, or another array not floating point.
    ValueError: the shapes differ, or smoothing or a known chosen_prob is out
      of range.

  References:
    Wang et al., 2024, equation 5.
  """
  prob, strength = _labels(strength, chosen_prob)
  return PreferenceTargets(
    _smoothed(prob, strength, smoothing, smoothed), jnp.zeros_like(strength)
  )


def smooth_margin_targets(
  strength: jax.Array,
  *,
  smoothing: float = 0.2,
  smoothed: jax.Array | None = None,
  chosen_prob: jax.Array | float = 1.0,
) -> PreferenceTargets:
  """Smoothed labels where μ < 0 and an adaptive margin on all pairs.

  The margin stands inside the sigmoid of both terms of the soft label.

  Args:
    strength: μ of each pair, float [N].
    smoothing: a, Python float in [0, 0.5].
    smoothed: pairs whose labels are softened, bool [N]; None for μ < 0.
    chosen_prob: p, label before the policy, scalar or float [N].

  Returns:
    Targets: the label of `smooth_targets` and the margin μ, [N] each.

  Raises:
    TypeError: `smoothed` is not bool, or another array not floating point.
    ValueError: the shapes differ, or smoothing or a known chosen_prob is out
      of range.
  """
  prob, strength = _labels(strength, chosen_prob)
  return PreferenceTargets(
    _smoothed(prob, strength, smoothing, smoothed), strength
  )


def _ensemble(margins: jax.Array) -> None:
  if jnp.ndim(margins) < 1 or jnp.shape(margins)[0] < 1:
    raise ValueError(
      f"margins must be [M, N] with a model, got shape {jnp.shape(margins)}"
    )


def _labels(
  strength: jax.Array, chosen_prob: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """The labels spread over the pairs, and the strengths, in one dtype."""
  (strength,) = checks.floating(strength=strength)
  checks.fraction(chosen_prob=chosen_prob)
  if isinstance(chosen_prob, (int, float)):
    return jnp.full_like(strength, chosen_prob), strength
  checks.same_shape(strength=strength, chosen_prob=chosen_prob)
  prob, strength = checks.floating(chosen_prob=chosen_prob, strength=strength)
  return prob, strength


def _swapped(prob: jax.Array, flipped: jax.Array) -> jax.Array:
  checks.boolean(flipped=flipped)
  checks.same_shape(strength=prob, flipped=flipped)
  return jnp.where(flipped, 1 - prob, prob)


def _smoothed(
  prob: jax.Array,
  strength: jax.Array,
  smoothing: float,
  smoothed: jax.Array | None,
) -> jax.Array:
  if not 0.0 <= smoothing <= 0.5:
    raise ValueError(f"smoothing must be in [0, 0.5], got {smoothing}")
  if smoothed is None:
    smoothed = strength < 0
  checks.boolean(smoothed=smoothed)
  checks.same_shape(strength=strength, smoothed=smoothed)
  return jnp.where(
    smoothed, (1 - smoothing) * prob + smoothing * (1 - prob), prob
  )
