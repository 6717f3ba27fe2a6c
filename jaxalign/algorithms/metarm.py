"""MetaRM: reward learning that keeps rewards of fresh responses apart."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxalign import losses
from jaxalign.algorithms.bradley_terry import RewardApply, response_forward
from jaxalign.algorithms.optimizer import OptimizerConfig
from jaxalign.algorithms.train_state import TrainState
from jaxalign.algorithms.update import (
  Batch,
  BatchGradient,
  Gradient,
  Metrics,
  Objective,
  Params,
  Take,
)
from jaxalign.ops import checks

INNER = ("adam", "unit", "sgd")
PREFIX = "meta_"  # of the keys of a batch that hold fresh responses


@dataclasses.dataclass(frozen=True)
class MetaRmConfig:
  """Fresh responses, and the ascent step that spreads their rewards.

  Attributes:
    name: of the recipe.
    files: sources of records of `num_responses` responses or more, of which the
      first are taken; their order is not used.
    num_prompts: m, records per step over all devices.
    num_responses: k, responses of each.
    step_size: η, >= 0; 0 is plain Bradley-Terry.
    inner: direction of the step: "adam" (the gradient over the root of the
      optimiser's second moment), "unit" (over its norm, so that η is the length
      of the step) or "sgd" (the gradient).
    second_order: differentiate through the step too, for about as much work
      again as the step takes.
    measure: report the plain metrics before the step and the spread after it,
      for one more forward pass of pairs and of responses.
  """

  name: Literal["metarm"]
  files: tuple[str, ...]
  num_prompts: int = 16
  num_responses: int = 5
  step_size: float = 5e-6
  inner: str = "adam"
  second_order: bool = False
  measure: bool = True

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(INNER, inner=self.inner)
    if not self.files:
      raise ValueError("files must name at least one source, got none")
    checks.at_least(1, num_prompts=self.num_prompts)
    checks.at_least(2, num_responses=self.num_responses)
    checks.at_least(0, step_size=self.step_size)


def spread(apply: RewardApply) -> Objective:
  """Minus the mean J of a batch's fresh responses, without dropout.

    loss = −(1/m) Σ_x J(x),   J = (2/k²) Σ_{i<j} σ(|r_i − r_j|)

  Args:
    apply: reward model with one output.

  Returns:
    The objective, of batches with `meta_tokens` int32 and `meta_mask` bool
    [m, k, T], `meta_where` bool [m]. `train/spread` is the mean J.
  """
  rewards_of = response_forward(apply, dropout=False)

  def forward(params: Params, batch: Batch) -> jax.Array:
    fresh = {
      name.removeprefix(PREFIX): array
      for name, array in batch.items()
      if name.startswith(PREFIX)
    }
    rewards, _ = rewards_of(params, fresh)
    return rewards[..., 0]

  def statistics(rewards: jax.Array, batch: Batch) -> jax.Array:
    return jnp.sum(batch[PREFIX + "where"], dtype=rewards.dtype)

  def loss(
    rewards: jax.Array, batch: Batch, num_prompts: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    where = batch[PREFIX + "where"]
    total = jnp.sum(losses.reward_spread(rewards), where=where)
    count = jnp.sum(where, dtype=total.dtype)
    mean = total / jnp.maximum(num_prompts, 1)
    return -mean, {"train/spread": (total, count)}

  return Objective(forward, statistics, loss)


def lookahead(
  apply: RewardApply, config: MetaRmConfig, optimizer: OptimizerConfig
) -> Take:
  """How a step of MetaRM takes its gradient.

    θ' = θ + η · P(∇J(θ));   first order: ∇L(θ')
    second order: ∇L(θ') + η · ∇²J(θ) · Pᵀ ∇L(θ'),   P at ∇J(θ)

  Both are sums over micro-batches and devices, so that any layout gives the
  same. θ' costs the memory of one more copy of the parameters.

  Args:
    apply: reward model with one output.
    config: the step.
    optimizer: b2 and eps of the optimiser whose second moment "adam" reads.

  Returns:
    What `update.make_update` takes as `take`. Reported: `train/spread`, J
    at θ; `train/step_ahead`, ‖θ' − θ‖; the objective's metrics at θ' under
    their names with `_ahead`; with `measure` also `train/spread_ahead` and
    those metrics at θ, under their own names.

  References:
    Wang et al., "Secrets of RLHF in large language models part II", 2024,
    section 3.2 and algorithm 1.
    Dou et al., "MetaRM: shifted distributions alignment via meta-learning",
    2024.
  """
  descent = spread(apply)
  direction_of = _directions(config, optimizer)

  def take(
    gradient_of: Callable[[Objective], Gradient],
    objective: Objective,
    state: TrainState,
    batch: Batch,
  ) -> BatchGradient:
    spreads, pairs = gradient_of(descent), gradient_of(objective)
    fresh = {k: v for k, v in batch.items() if k.startswith(PREFIX)}
    batch = {k: v for k, v in batch.items() if k not in fresh}
    # The same rows drop out the same activations at both points, on purpose.
    again = {**batch, "key": jax.random.clone(batch["key"])}
    first = spreads(state.params, fresh, ())
    direction = direction_of(state.opt_state)
    step = lambda slope: jax.tree.map(
      lambda d: config.step_size * d, direction(_negative(slope))
    )
    if config.step_size == 0:  # bit for bit: nothing is added, not even a zero
      ahead, length = state.params, jnp.zeros(())
    else:
      added, back = jax.vjp(step, first.gradient)
      ahead = optax.apply_updates(state.params, added)
      length = optax.tree.norm(added)
    result = pairs(ahead, batch, state.carry)
    gradient = result.gradient
    if config.second_order and config.step_size:
      (through,) = back(gradient)
      _, curved = jax.jvp(
        lambda params: spreads(params, fresh, ()).gradient,
        (state.params,),
        (through,),
      )
      gradient = jax.tree.map(jnp.add, gradient, curved)
    metrics = first.metrics | _renamed(result.metrics)
    if config.measure:
      metrics |= pairs(state.params, again, state.carry).metrics
      metrics |= _renamed(spreads(ahead, fresh, ()).metrics)
    scalars = result.scalars | {"train/step_ahead": length}
    return result._replace(gradient=gradient, metrics=metrics, scalars=scalars)

  return take


def passes(config: MetaRmConfig) -> dict[str, tuple[str, ...]]:
  """What a step does with pairs and responses, for counting FLOPs.

  The curvature at a point is the derivative of a gradient in one direction:
  each of its products becomes two more, twice a gradient's work. That a
  compiler may also compute the products once more is not counted.

  Args:
    config: the step.

  Returns:
    Name of an array of tokens -> "forward" and "forward_backward" passes.
  """
  measured = ("forward",) * config.measure
  curved = ("forward_backward",) * 2
  moves = config.step_size > 0
  return {
    "tokens": ("forward_backward", *measured),
    PREFIX + "tokens": (
      "forward_backward",
      *(curved if config.second_order and moves else ()),
      *measured,
    ),
  }


def _directions(
  config: MetaRmConfig, optimizer: OptimizerConfig
) -> Callable[[Any], Callable[[Any], Any]]:
  """`opt_state -> (gradient -> direction)` as the config names it."""

  def adam(opt_state: Any) -> Callable[[Any], Any]:
    moments = optax.tree.get(opt_state, "ScaleByAdamState")
    return lambda gradient: losses.adam_precondition(
      gradient,
      second_moment=moments.nu,
      count=moments.count,
      decay=optimizer.b2,
      epsilon=optimizer.eps,
    )

  return {
    "adam": adam,
    "unit": lambda _: losses.unit_precondition,
    "sgd": lambda _: lambda gradient: gradient,
  }[config.inner]


def _negative(tree: Any) -> Any:
  return jax.tree.map(jnp.negative, tree)


def _renamed(metrics: Metrics) -> Metrics:
  return {f"{name}_ahead": value for name, value in metrics.items()}
