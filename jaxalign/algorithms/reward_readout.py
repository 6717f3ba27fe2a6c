"""Reward readout: model outputs to rewards, with label utility or risk."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy import stats

from jaxalign import losses
from jaxalign.ops import checks

PERSONAL = ("low_rank", "ideal_points")
KINDS = ("rewards", "labels", "mean_variance", *PERSONAL)
RISKS = ("mean", "cvar", "mean_std")


@dataclasses.dataclass(frozen=True)
class Readout:
  """How outputs [..., H] become rewards [..., K].

  Attributes:
    kind: "rewards": each output is a reward, K = H; "labels": outputs are the
      logits of a distribution over labels; "mean_variance": outputs are the
      mean and the log standard deviation of a normal reward; "low_rank" and
      "ideal_points": outputs are a reward and R factors in which people differ,
      see `shared_reward`. All but the first give one reward, K = 1.
    utilities: worth of each label, for "labels" alone.
    risk: what stands for a distribution: its "mean", its "cvar" (the mean of
      its worst share `alpha`) or "mean_std" (mean − kappa · deviation).
    alpha: share in (0, 1], with "cvar" alone.
    kappa: >= 0, with "mean_std" alone.
  """

  kind: str = "rewards"
  utilities: tuple[float, ...] | None = None
  risk: str = "mean"
  alpha: float | None = None
  kappa: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(KINDS, kind=self.kind)
    checks.one_of(RISKS, risk=self.risk)
    if (self.utilities is not None) != (self.kind == "labels"):
      raise ValueError(
        f"utilities go with kind='labels' alone, got {self.utilities} with "
        f"{self.kind!r}"
      )
    if self.kind in ("rewards", *PERSONAL) and self.risk != "mean":
      raise ValueError(
        f"risk must be 'mean' with kind={self.kind!r}, got {self.risk!r}: a "
        "plain reward has no distribution"
      )
    for name, risk in (("alpha", "cvar"), ("kappa", "mean_std")):
      if (self.__dict__[name] is not None) != (self.risk == risk):
        raise ValueError(
          f"{name} goes with risk={risk!r} alone, got {self.__dict__[name]} "
          f"with {self.risk!r}"
        )
    if self.alpha is not None and not 0 < self.alpha <= 1:
      raise ValueError(f"alpha must be in (0, 1], got {self.alpha}")
    checks.at_least(0, kappa=self.kappa)

  def num_rewards(self, num_outputs: int) -> int:
    """K of a model with `num_outputs` outputs.

    Raises:
      ValueError: the kind wants another number of outputs.
    """
    wanted = {
      "rewards": num_outputs,
      **dict.fromkeys(PERSONAL, max(num_outputs, 2)),
      "labels": len(self.utilities or ()),
      "mean_variance": 2,
    }[self.kind]
    if num_outputs != wanted:
      raise ValueError(
        f"a model read as {self.kind!r} must have {wanted} outputs, got "
        f"{num_outputs}"
      )
    return num_outputs if self.kind == "rewards" else 1

  def num_factors(self, num_outputs: int) -> int:
    """R of a model with `num_outputs` outputs, 0 where people are alike."""
    return num_outputs - 1 if self.kind in PERSONAL else 0

  def __call__(self, outputs: jax.Array) -> jax.Array:
    """Rewards [..., K] of outputs [..., H]."""
    if self.kind == "rewards":
      return outputs
    if self.kind in PERSONAL:
      return shared_reward(outputs, self.kind)[..., None]
    if self.kind == "labels":
      return self._of_labels(outputs)[..., None]
    return self._of_normal(outputs[..., 0], outputs[..., 1])[..., None]

  def _of_labels(self, logits: jax.Array) -> jax.Array:
    probs = jax.nn.softmax(logits, axis=-1)
    utilities = jnp.asarray(self.utilities, probs.dtype)
    if self.risk == "cvar" and self.alpha is not None:
      return losses.cvar_utility(probs, utilities, alpha=self.alpha)
    mean = losses.expected_utility(probs, utilities)
    if self.risk == "mean" or self.kappa is None:
      return mean
    gaps = jnp.square(
      jnp.reshape(utilities, (1,) * mean.ndim + (-1,)) - mean[..., None]
    )
    return mean - self.kappa * jnp.sqrt(jnp.sum(probs * gaps, axis=-1))

  def _of_normal(self, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    if self.risk == "cvar" and self.alpha is not None:
      if self.alpha == 1:
        return mean
      # E[x | x below its alpha quantile] of a normal, in deviations.
      quantile = stats.norm.ppf(jnp.asarray(self.alpha, mean.dtype))
      return mean - jnp.exp(log_std) * stats.norm.pdf(quantile) / self.alpha
    if self.kappa is None:
      return mean
    return mean - self.kappa * jnp.exp(log_std)


PLAIN = Readout()


def shared_reward(outputs: jax.Array, kind: str) -> jax.Array:
  """The reward of a person of whom nothing is known.

    "low_rank"      r = s
    "ideal_points"  r = s − ½ |z|²

  Args:
    outputs: s and the factors z of each text, [..., 1 + R].
    kind: one of `PERSONAL`. Under either a person's reward is r + z·a with R
      numbers a of their own; of "ideal_points" that is s + ½ |a|² − ½ |z − a|².

  Returns:
    Rewards, [...].
  """
  shared, factors = outputs[..., 0], outputs[..., 1:]
  if kind == "low_rank":
    return shared
  return shared - jnp.sum(factors * factors, axis=-1) / 2


@dataclasses.dataclass(frozen=True)
class WithLabels:
  """Outputs [..., d] as a reward beside the shares of the labels, [..., 1 + d].

  Attributes:
    read: of kind "labels", which gives the reward.
  """

  read: Readout

  def __post_init__(self) -> None:
    """Raises ValueError for a readout that is not of labels."""
    if self.read.kind != "labels":
      raise ValueError(f"there are no labels in a {self.read.kind!r} readout")

  def num_rewards(self, num_outputs: int) -> int:
    """1 + d, see `Readout.num_rewards`."""
    return self.read.num_rewards(num_outputs) + num_outputs

  def __call__(self, outputs: jax.Array) -> jax.Array:
    """Reward and shares [..., 1 + d] of logits [..., d]."""
    rewards = self.read(outputs)
    shares = jax.nn.softmax(outputs, axis=-1)
    return jnp.concatenate([rewards, shares.astype(rewards.dtype)], axis=-1)


@dataclasses.dataclass(frozen=True)
class WithFactors:
  """Outputs [..., 1 + R] as the shared reward beside the factors.

  Attributes:
    read: of a kind of `PERSONAL`, which gives the reward.
  """

  read: Readout

  def __post_init__(self) -> None:
    """Raises ValueError for a readout without factors."""
    if self.read.kind not in PERSONAL:
      raise ValueError(f"there are no factors in a {self.read.kind!r} readout")

  def num_rewards(self, num_outputs: int) -> int:
    """1 + R, see `Readout.num_rewards`."""
    return self.read.num_rewards(num_outputs) + num_outputs - 1

  def __call__(self, outputs: jax.Array) -> jax.Array:
    """Reward and factors, [..., 1 + R]."""
    return jnp.concatenate([self.read(outputs), outputs[..., 1:]], axis=-1)


Wide = Readout | WithLabels | WithFactors


def with_parts(read: Readout) -> Wide:
  """A readout that gives label shares, or factors, where there are any."""
  if read.kind in PERSONAL:
    return WithFactors(read)
  return WithLabels(read) if read.kind == "labels" else read
