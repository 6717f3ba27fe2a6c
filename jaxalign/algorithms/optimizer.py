"""Optimizer of every stage: one optax chain from one frozen config."""

import dataclasses
from typing import Any

import jax
import optax

from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW under a schedule; None means off.

  Attributes:
    learning_rate: peak learning rate, > 0.
    schedule: "constant", "linear" or "cosine" decay to 0 at the last step.
    warmup_steps: steps of linear rise from 0 to the peak.
    b1: decay of the first moment, in [0, 1).
    b2: decay of the second moment, in [0, 1).
    eps: added to the root of the second moment, > 0.
    weight_decay: decoupled decay of matrices; norms and biases are spared.
    clip_norm: largest global gradient norm, or None.
  """

  learning_rate: float
  schedule: str = "cosine"
  warmup_steps: int = 0
  b1: float = 0.9
  b2: float = 0.99
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip_norm: float | None = 1.0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(("constant", "linear", "cosine"), schedule=self.schedule)
    checks.above(0, learning_rate=self.learning_rate, eps=self.eps)
    for name in ("b1", "b2"):
      if not 0 <= self.__dict__[name] < 1:
        raise ValueError(f"{name} must be in [0, 1), got {self.__dict__[name]}")
    checks.at_least(
      0, warmup_steps=self.warmup_steps, weight_decay=self.weight_decay
    )
    if self.clip_norm is not None and not self.clip_norm > 0:
      raise ValueError(f"clip_norm must be > 0 or None, got {self.clip_norm}")


def learning_rate_schedule(
  config: OptimizerConfig, num_steps: int
) -> optax.Schedule:
  """Learning rate as a function of the step, 0 at step 0 if warming up.

  Args:
    config: peak, shape and warm-up.
    num_steps: steps of the run; decay ends there.

  Returns:
    `step -> learning rate`.

  Raises:
    ValueError: the warm-up does not end before the run.
  """
  if config.warmup_steps >= num_steps:
    raise ValueError(
      f"warmup_steps must be < num_steps, got {config.warmup_steps} and "
      f"{num_steps}"
    )
  peak, after = config.learning_rate, num_steps - config.warmup_steps
  decay = {
    "constant": optax.constant_schedule(peak),
    "linear": optax.linear_schedule(peak, 0.0, after),
    "cosine": optax.cosine_decay_schedule(peak, after),
  }[config.schedule]
  if config.warmup_steps == 0:
    return decay
  warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
  return optax.join_schedules([warmup, decay], [config.warmup_steps])


def decay_mask(axes: Any) -> Any:
  """True for matrices, False for norms and biases, from logical axes.

  The layer axis of stacked parameters does not make a vector a matrix.

  Args:
    axes: tree of tuples of logical axis names, one tuple per parameter.

  Returns:
    The same tree with a bool per parameter.
  """
  return jax.tree.map(
    lambda names: sum(name != "layers" for name in names) >= 2,
    axes,
    is_leaf=lambda node: isinstance(node, tuple),
  )


def make_optimizer(
  config: OptimizerConfig, *, num_steps: int, axes: Any
) -> optax.GradientTransformation:
  """Clipping, then AdamW under the schedule.

  Args:
    config: hyper-parameters.
    num_steps: steps of the run.
    axes: logical axes of the parameters, from which matrices are told.

  Returns:
    An optax transformation.
  """
  adamw = optax.adamw(
    learning_rate_schedule(config, num_steps),
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    weight_decay=config.weight_decay,
    mask=decay_mask(axes),
  )
  if config.clip_norm is None:
    return adamw
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
