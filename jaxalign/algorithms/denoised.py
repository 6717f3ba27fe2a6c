"""Denoised preference pairs: labels and margins from ensemble strengths."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.ops import checks

FLIPS = ("flip", "flip_margin")
SMOOTHS = ("smooth", "smooth_margin")
MARGINS = ("margin", "flip_margin", "smooth_margin")
POLICIES = ("keep", "drop", "margin", *FLIPS, *SMOOTHS)
RANKED = ("weakest", "strongest")
CHOICES = (*RANKED, "negative", "drawn", "all")


@dataclasses.dataclass(frozen=True)
class DenoiseConfig:
  """What is done to doubtful pairs, of any recipe that learns from pairs.

  Attributes:
    policy: "flip" swaps the chosen pairs, "drop" leaves them out, "smooth"
      softens their labels, "margin" asks every pair for its own strength;
      "flip_margin" and "smooth_margin" do both; "keep" changes nothing.
    fraction: share of pairs that are the weakest or the strongest, in [0, 1];
      with choose="weakest" and "strongest" alone.
    smoothing: a in [0, 0.5], probability that a softened label is wrong; with
      "smooth" and "smooth_margin" alone.
    choose: which pairs are flipped, dropped or softened: the "weakest" or
      "strongest" `fraction`, those of "negative" strength, each "drawn" with
      the probability that the ensemble gives to the other label, or "all".
      None for "weakest", and "negative" where labels are softened.
    seed: of the draw, with choose="drawn" alone.
    low: share of pairs, of the weakest, that are not learned from, [0, 1).
    high: share of pairs where those learned from end, (low, 1]; 0.1 after a
      `low` of 0 is the weakest tenth. Shares for `fraction` stay those of all.
    margin_shape: how a margin grows with strength: "linear", "asinh" (as a
      logarithm) or "tanh" (up to 1).
    margin_scale: what it is multiplied by, >= 0.
    margin_cap: its largest size, > 0; None for none.
  """

  policy: str
  fraction: float = 0.1
  smoothing: float = 0.2
  choose: str | None = None
  seed: int = 0
  low: float = 0.0
  high: float = 1.0
  margin_shape: str = "linear"
  margin_scale: float = 1.0
  margin_cap: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(POLICIES, policy=self.policy)
    checks.one_of(tuple(losses.MARGIN_SHAPES), margin_shape=self.margin_shape)
    checks.at_least(0, seed=self.seed, margin_scale=self.margin_scale)
    checks.above(0, margin_cap=self.margin_cap)
    if not 0 <= self.fraction <= 1:
      raise ValueError(f"fraction must be in [0, 1], got {self.fraction}")
    if not 0 <= self.smoothing <= 0.5:
      raise ValueError(f"smoothing must be in [0, 0.5], got {self.smoothing}")
    if not 0 <= self.low < self.high <= 1:
      raise ValueError(
        f"low and high must be 0 <= low < high <= 1, got {self.low} and "
        f"{self.high}"
      )
    choosing = self.policy not in ("keep", "margin")
    if self.choose is not None:
      checks.one_of(CHOICES, choose=self.choose)
      self._goes_with("choose", "flip, drop or smooth", choosing)
    ranked = choosing and self.chosen in RANKED
    self._goes_with("fraction", "choose='weakest' or 'strongest'", ranked)
    self._goes_with("smoothing", ", ".join(SMOOTHS), self.policy in SMOOTHS)
    self._goes_with("seed", "choose='drawn'", self.chosen == "drawn")
    for name in ("margin_shape", "margin_scale", "margin_cap"):
      self._goes_with(name, ", ".join(MARGINS), self.policy in MARGINS)

  @property
  def chosen(self) -> str:
    """`choose`, with the default of the policy for None."""
    if self.choose is not None:
      return self.choose
    return "negative" if self.policy in SMOOTHS else "weakest"

  def _goes_with(self, name: str, what: str, read: bool) -> None:
    """Raises ValueError where a value is set that nothing reads."""
    defaults = {one.name: one.default for one in dataclasses.fields(self)}
    value = dataclasses.asdict(self)[name]
    if not read and value != defaults[name]:
      raise ValueError(
        f"{name} goes with {what}, got {value!r} with policy={self.policy!r} "
        f"and choose={self.choose!r}"
      )


@dataclasses.dataclass(frozen=True)
class DenoisedConfig(DenoiseConfig):
  """Bradley-Terry with `loss.denoise`, under its first name.

  Attributes:
    name: of the recipe.
  """

  name: Literal["denoised"] = dataclasses.field(kw_only=True)

  def denoise(self) -> DenoiseConfig:
    """The same policy as the `loss` section has it."""
    values = dataclasses.asdict(self)
    return DenoiseConfig(**{k: v for k, v in values.items() if k != "name"})


def chosen_mask(config: DenoiseConfig, strength: jax.Array) -> jax.Array:
  """Which pairs the policy flips, drops or softens.

  Args:
    config: the policy.
    strength: an ensemble's mean gap, float [N].

  Returns:
    bool [N], all False under "keep" and "margin".
  """
  if config.policy in ("keep", "margin"):
    return jnp.zeros(strength.shape, jnp.bool_)
  match config.chosen:
    case "weakest":
      return losses.flip_mask(strength, fraction=config.fraction)
    case "strongest":
      return losses.flip_mask(-strength, fraction=config.fraction)
    case "negative":
      return strength < 0
    case "drawn":
      return losses.drawn_flip_mask(jax.random.key(config.seed), strength)
  return jnp.ones(strength.shape, jnp.bool_)


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
  picked = chosen_mask(config, strength)
  given = {"chosen_prob": chosen_prob}
  match config.policy:
    case "flip":
      return losses.flip_targets(strength, flipped=picked, **given)
    case "smooth":
      return losses.smooth_targets(
        strength, smoothing=config.smoothing, smoothed=picked, **given
      )
    case "keep" | "drop":
      return losses.PreferenceTargets(chosen_prob, jnp.zeros_like(strength))
  margin = losses.shaped_margin(
    strength,
    shape=config.margin_shape,
    scale=config.margin_scale,
    cap=config.margin_cap,
  )
  match config.policy:
    case "flip_margin":
      made = losses.flip_margin_targets(strength, flipped=picked, **given)
    case "smooth_margin":
      made = losses.smooth_margin_targets(
        strength, smoothing=config.smoothing, smoothed=picked, **given
      )
    case _:
      made = losses.margin_targets(strength, **given)
  return made._replace(margin=margin)


def kept(config: DenoiseConfig, strength: jax.Array) -> jax.Array:
  """Which pairs of the training set are learned from.

  Args:
    config: the policy.
    strength: an ensemble's mean gap, float [N].

  Returns:
    bool [N]: those between `low` and `high`, without those that are dropped.
  """
  inside = losses.strength_slice(strength, low=config.low, high=config.high)
  if config.policy != "drop":
    return inside
  return inside & ~chosen_mask(config, strength)
