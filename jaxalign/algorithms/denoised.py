"""Denoised preference pairs: labels and margins from ensemble strengths."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.ops import checks

SELECTS = ("flip", "flip_margin", "drop")
SMOOTHS = ("smooth", "smooth_margin")
POLICIES = (*SELECTS, *SMOOTHS, "margin")
FRACTION, SMOOTHING = 0.1, 0.2


@dataclasses.dataclass(frozen=True)
class DenoiseConfig:
  """What is done to doubtful pairs, of any recipe that learns from pairs.

  Attributes:
    policy: "flip" swaps the weakest pairs, "drop" leaves them out, "smooth"
      softens labels that the ensemble contradicts, "margin" asks every pair for
      its own strength; "flip_margin" and "smooth_margin" do both.
    fraction: share of pairs that are the weakest, in [0, 1]; with "flip",
      "flip_margin" and "drop" alone.
    smoothing: a in [0, 0.5], probability that a softened label is wrong; with
      "smooth" and "smooth_margin" alone.
  """

  policy: str
  fraction: float = FRACTION
  smoothing: float = SMOOTHING

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(POLICIES, policy=self.policy)
    if not 0 <= self.fraction <= 1:
      raise ValueError(f"fraction must be in [0, 1], got {self.fraction}")
    if not 0 <= self.smoothing <= 0.5:
      raise ValueError(f"smoothing must be in [0, 0.5], got {self.smoothing}")
    if self.policy not in SELECTS and self.fraction != FRACTION:
      raise ValueError(
        f"fraction goes with {', '.join(SELECTS)}, got {self.fraction} with "
        f"policy={self.policy!r}"
      )
    if self.policy not in SMOOTHS and self.smoothing != SMOOTHING:
      raise ValueError(
        f"smoothing goes with {', '.join(SMOOTHS)}, got {self.smoothing} with "
        f"policy={self.policy!r}"
      )


@dataclasses.dataclass(frozen=True)
class DenoisedConfig:
  """Bradley-Terry with `loss.denoise`, under its first name.

  Attributes:
    name: of the recipe.
    policy: see `DenoiseConfig`, as the two below.
    fraction: share of pairs that are the weakest.
    smoothing: probability that a softened label is wrong.
  """

  name: Literal["denoised"]
  policy: str
  fraction: float = FRACTION
  smoothing: float = SMOOTHING

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    self.denoise()

  def denoise(self) -> DenoiseConfig:
    """The same policy as the `loss` section has it."""
    return DenoiseConfig(self.policy, self.fraction, self.smoothing)


def targets(
  config: DenoiseConfig, strength: jax.Array, *, chosen_prob: jax.Array
) -> losses.PreferenceTargets:
  """Label and margin of every pair of the training set.

  Args:
    config: the policy.
    strength: an ensemble's mean gap, float [N].
    chosen_prob: label before the policy, float [N].

  Returns:
    Targets in the original order of each pair, [N]; under "drop" those of the
    pairs as they are, see `kept`.

  References:
    Wang et al., "Secrets of RLHF in large language models part II", 2024,
    sections 2.3 to 2.5.
  """
  smoothing = config.smoothing
  match config.policy:
    case "margin":
      return losses.margin_targets(strength, chosen_prob=chosen_prob)
    case "smooth":
      return losses.smooth_targets(
        strength, smoothing=smoothing, chosen_prob=chosen_prob
      )
    case "smooth_margin":
      return losses.smooth_margin_targets(
        strength, smoothing=smoothing, chosen_prob=chosen_prob
      )
    case "drop":
      return losses.PreferenceTargets(chosen_prob, jnp.zeros_like(strength))
  flipped = losses.flip_mask(strength, fraction=config.fraction)
  swap = (
    losses.flip_targets
    if config.policy == "flip"
    else losses.flip_margin_targets
  )
  return swap(strength, flipped=flipped, chosen_prob=chosen_prob)


def kept(config: DenoiseConfig, strength: jax.Array) -> jax.Array:
  """Which pairs of the training set are learned from.

  Args:
    config: the policy.
    strength: an ensemble's mean gap, float [N].

  Returns:
    bool [N], all True unless the policy is "drop".
  """
  fraction = config.fraction if config.policy == "drop" else 0.0
  return ~losses.flip_mask(strength, fraction=fraction)
