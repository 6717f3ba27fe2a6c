"""KL control: where the penalty enters, and how its coefficient adapts."""

import dataclasses

import jax

from jaxalign import losses
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class KLConfig:
  """KL penalty: where it enters, its estimator and its coefficient.

  Attributes:
    place: "reward" takes the penalty of each token off its reward, "loss" adds
      it to the loss with its own gradient.
    estimator: "k1", "k2" or "k3" of `losses.kl_estimate`. In the reward it is
      "k1": a policy that is rewarded less by k2 or k3 does not settle where the
      KL says. In the loss it is "k2", whose gradient is that of KL(π ‖ π_ref),
      or "k3", which pulls by the forward KL(π_ref ‖ π) and so holds on to all
      that the reference does; k1 has a gradient of mean 0 there.
    coef: coefficient at the start, reward units per nat, >= 0; 0.05 is TRL's.
    controller: "fixed" or "adaptive".
    target: KL per response that "adaptive" aims at, in nats; else None.
    horizon: responses over which "adaptive" moves the coefficient by at most a
      fifth; else None.
  """

  place: str = "reward"
  estimator: str = "k1"
  coef: float = 0.05
  controller: str = "fixed"
  target: float | None = None
  horizon: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(("reward", "loss"), place=self.place)
    checks.one_of(("k1", "k2", "k3"), estimator=self.estimator)
    checks.one_of(("fixed", "adaptive"), controller=self.controller)
    if self.place == "loss" and self.estimator == "k1":
      raise ValueError(
        "estimator must be 'k2' or 'k3' with place='loss', got 'k1', whose "
        "gradient has mean 0"
      )
    if self.place == "reward" and self.estimator != "k1":
      raise ValueError(
        f"estimator must be 'k1' with place='reward', got {self.estimator!r}: "
        "as a reward its gradient is not that of the KL, and the policy "
        "settles elsewhere; k2 with place='loss' has the gradient of the KL"
      )
    checks.at_least(0, coef=self.coef)
    for name, value in (("target", self.target), ("horizon", self.horizon)):
      if (value is None) == (self.controller == "adaptive"):
        raise ValueError(
          f"{name} is set with controller='adaptive' alone, got "
          f"{self.controller!r} and {value}"
        )
    checks.above(0, target=self.target, horizon=self.horizon)


def next_coefficient(
  state: losses.KLController,
  observed: jax.Array,
  config: KLConfig,
  *,
  num_samples: int,
) -> losses.KLController:
  """The coefficient of the next iteration.

  Args:
    state: the coefficient of this one, a scalar inside.
    observed: mean KL per response, in nats, scalar.
    config: which controller.
    num_samples: responses of an iteration.

  Returns:
    The new state, a scalar inside.
  """
  if (
    config.controller == "fixed"
    or config.target is None
    or config.horizon is None
  ):
    return losses.fixed_kl_update(state)
  return losses.adaptive_kl_update(
    state,
    observed,
    target=config.target,
    horizon=config.horizon,
    num_samples=num_samples,
  )
