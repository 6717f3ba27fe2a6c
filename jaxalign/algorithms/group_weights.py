"""Group weights of a policy: from utilities to one reward per response."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.ops import checks, masked

# Which knobs a kind reads beside `shares`; the others must be None.
_KNOBS: dict[str, tuple[str, ...]] = {
  "maxmin": (),
  "sample_min": (),
  "mean": (),
  "single": ("group",),
  "soft_min": ("temperature",),
  "exponentiated": ("step_size",),
  "nash": ("floor",),
  "alpha_fair": ("floor", "order"),
  "cvar": ("alpha",),
}
# Which it may read besides.
_OPTIONAL: dict[str, tuple[str, ...]] = {"exponentiated": ("temperature",)}
_WITHOUT_SHARES = ("maxmin", "sample_min", "single")


@dataclasses.dataclass(frozen=True)
class WelfareConfig:
  """Welfare function: how group utilities become group weights.

  Each iteration takes the mean reward of every group over the batch, u, and
  moves the policy towards the reward Σ_k λ_k r_k with

    maxmin         λ one-hot at the least u: algorithm 1 of MaxMin-RLHF
    soft_min       λ ∝ w exp(−u / τ)
    exponentiated  λ' ∝ λ exp(−η u), carried from iteration to iteration; with
                   a temperature rewards are weighted by λ' exp(−u / τ), and λ'
                   alone is carried
    nash           λ ∝ w / (u − floor)
    alpha_fair     λ ∝ w (u − floor)^(−a)
    cvar           λ of the worst α of the mass w
    mean           λ = w
    single         λ one-hot at `group`
    sample_min     reward min_k r_k of each sample, as the authors' code has it

  Every λ but the last is the gradient of `losses.welfare` at u, brought to sum
  1 so that the KL coefficient means the same for all of them.

  Attributes:
    kind: "maxmin", "soft_min", "exponentiated", "nash", "alpha_fair", "cvar",
      "mean", "single" or "sample_min", as above.
    shares: w, of each group, sum 1; None for equal ones.
    temperature: τ > 0 in reward units, of soft_min; of exponentiated, where it
      damps the swings of weights that the policy follows too late, or None.
    step_size: η >= 0 per reward unit, of exponentiated.
    order: a >= 0, of alpha_fair.
    alpha: α in (0, 1], of cvar.
    floor: utility that nash and alpha_fair count from; while a group is at or
      below it, all weight is on the worst-off group.
    group: number of the group, of single.
  """

  kind: str = "maxmin"
  shares: tuple[float, ...] | None = None
  temperature: float | None = None
  step_size: float | None = None
  order: float | None = None
  alpha: float | None = None
  floor: float | None = None
  group: int | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a knob missing, spare or out of range."""
    checks.one_of(_KNOBS, kind=self.kind)
    used = _KNOBS[self.kind]
    for name in sorted({knob for knobs in _KNOBS.values() for knob in knobs}):
      value = self.__dict__[name]
      if value is None and name in used:
        raise ValueError(f"kind {self.kind!r} needs {name}")
      if value is not None and name not in (
        *used,
        *_OPTIONAL.get(self.kind, ()),
      ):
        raise ValueError(
          f"{name} must be None with kind {self.kind!r}, got {value}"
        )
    if self.shares is not None:
      if self.kind in _WITHOUT_SHARES:
        raise ValueError(
          f"shares must be None with kind {self.kind!r}, got {self.shares}"
        )
      if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
        raise ValueError(
          f"shares must be positive and sum to 1, got {self.shares}"
        )
    checks.above(0, temperature=self.temperature)
    checks.at_least(0, step_size=self.step_size, order=self.order)
    if self.alpha is not None and not 0 < self.alpha <= 1:
      raise ValueError(f"alpha must be in (0, 1], got {self.alpha}")

  def check_groups(self, number: int) -> None:
    """Raises ValueError unless the knobs fit `number` groups."""
    if self.shares is not None and len(self.shares) != number:
      raise ValueError(
        f"welfare.shares must have one entry per group, got "
        f"{len(self.shares)} for {number}"
      )
    if self.group is not None and not 0 <= self.group < number:
      raise ValueError(
        f"welfare.group must be in [0, {number}), got {self.group}"
      )


class Combined(NamedTuple):
  """One reward per sample, combined from the groups' rewards.

  Attributes:
    rewards: of each sample, float [S].
    utilities: u, mean reward of each group, float [K].
    weights: λ, float [K]; for sample_min the share of samples at which a group
      is the worst off.
  """

  rewards: jax.Array
  utilities: jax.Array
  weights: jax.Array


def initial_weights(config: WelfareConfig, number: int) -> jax.Array:
  """The weights before the first iteration, float32 [number]."""
  if config.shares is not None:
    return jnp.asarray(config.shares, jnp.float32)
  return jnp.full(number, 1 / number, jnp.float32)


def group_weights(
  utilities: jax.Array, carried: jax.Array, config: WelfareConfig
) -> jax.Array:
  """λ at these utilities, for every kind but sample_min.

  Args:
    utilities: u, float [K].
    carried: λ of the iteration before, [K]; read by exponentiated alone.
    config: the kind and its knobs.

  Returns:
    Weights on the simplex, [K], without gradient.
  """
  (u,) = checks.floating(utilities=jax.lax.stop_gradient(utilities))
  if config.kind == "maxmin":
    return losses.maxmin_weights(u)
  if config.kind == "single":
    return jax.nn.one_hot(config.group, u.shape[0], dtype=u.dtype)
  if config.kind == "exponentiated":
    moved = _moved(u, carried, config)
    if config.temperature is None:
      return moved
    return losses.exponentiated_weights(
      moved, u, step_size=1 / config.temperature
    )
  shares = initial_weights(config, u.shape[0]).astype(u.dtype)
  if config.kind == "mean":
    return shares
  if config.floor is None:
    slopes: jax.Array = jax.grad(
      lambda u: losses.welfare(
        u,
        kind=config.kind,
        weights=shares,
        temperature=config.temperature,
        alpha=config.alpha,
      )
    )(u)
    return slopes
  above = u - config.floor
  served = jnp.all(above > 0)
  slopes = jax.grad(
    lambda u: losses.welfare(
      u, kind=config.kind, weights=shares, order=config.order
    )
  )(jnp.where(served, above, 1.0))
  # The limit as the worst-off group comes down to the floor.
  return jnp.where(served, slopes / jnp.sum(slopes), losses.maxmin_weights(u))


def _moved(
  u: jax.Array, carried: jax.Array, config: WelfareConfig
) -> jax.Array:
  """Carried weights after the step of exponentiated."""
  step_size = 0.0 if config.step_size is None else config.step_size
  return losses.exponentiated_weights(
    carried.astype(u.dtype), u, step_size=step_size
  )


def kept_weights(
  weights: jax.Array,
  utilities: jax.Array,
  carried: jax.Array,
  config: WelfareConfig,
) -> jax.Array:
  """What the next iteration is given as `carried`.

  Args:
    weights: λ of this iteration, float [K].
    utilities: u that it was found at, float [K].
    carried: what this iteration was given, float [K].
    config: the kind and its knobs.

  Returns:
    λ itself, or λ before the damping, [K].
  """
  if config.kind != "exponentiated" or config.temperature is None:
    return weights
  (u,) = checks.floating(utilities=jax.lax.stop_gradient(utilities))
  return _moved(u, carried, config)


def combine(
  scores: jax.Array,
  carried: jax.Array,
  config: WelfareConfig,
  *,
  where: jax.Array,
  axis_name: str | None = None,
) -> Combined:
  """One reward per sample from the rewards of all groups.

  Args:
    scores: calibrated reward of each sample to each group, float [S, K].
    carried: weights of the iteration before, float [K].
    config: the kind and its knobs.
    where: samples that count, bool [S].
    axis_name: mapped axis the samples are spread over, None on one device.

  Returns:
    Rewards, utilities and weights, float32 or wider, without gradient.
  """
  (scores,) = checks.floating(scores=scores)
  scores = jnp.where(where[:, None], scores, 0.0)
  utilities = losses.group_utilities(scores, where=where, axis_name=axis_name)
  if config.kind == "sample_min":
    worst = jax.nn.one_hot(
      jnp.argmin(scores, axis=-1), scores.shape[-1], dtype=scores.dtype
    )
    weights = masked.masked_mean(
      worst, where=where, axis=0, axis_name=axis_name
    )
    return Combined(losses.sample_min_rewards(scores), utilities, weights)
  weights = group_weights(utilities, carried, config)
  return Combined(jnp.sum(scores * weights[None], axis=-1), utilities, weights)
