"""Forward pass shared by advantages and gradient, in iterations of one step.

Advantages need what actor and critic say of the responses before any step, and
the gradient of the first step needs it again. Where that is the only step, and
its batch one piece, both networks are passed forward once: the step goes back
through the pass that the advantages were estimated from.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxalign.algorithms import train_state
from jaxalign.algorithms import update as contract
from jaxalign.algorithms.policy_config import PAIRWISE, LearnerConfig
from jaxalign.algorithms.ppo_batch import (
  Networks,
  PolicyState,
  spares_forward,
)

Pullback = Callable[[Any], tuple[Any]]


class Passed(NamedTuple):
  """A network's outputs, and the way back from them.

  Attributes:
    outputs: as the network gives them.
    pullback: cotangents of outputs -> those of parameters.
  """

  outputs: Any
  pullback: Pullback


class SharedPass(NamedTuple):
  """Both networks, passed forward.

  Attributes:
    actor: the policy.
    critic: one of its own, or None.
  """

  actor: Passed
  critic: Passed | None

  def found(self) -> dict[str, jax.Array]:
    """What `ppo_batch.prepare` reads."""
    actor = self.actor.outputs
    values = actor.values if self.critic is None else self.critic.outputs
    found = {
      "log_probs": actor.log_probs,
      "model_log_probs": actor.model_log_probs,
    }
    return found if values is None else found | {"values": values}


def is_shared(
  networks: Networks, config: LearnerConfig, accumulation: int
) -> bool:
  """Whether an iteration's one step goes back through the first pass."""
  return (
    config.policy.kind not in PAIRWISE
    and config.policy.text_coef is None  # texts have a pass of their own
    and config.policy.epochs * config.policy.minibatches * accumulation == 1
    and not spares_forward(networks, config)
  )


def pass_forward(
  networks: Networks,
  state: PolicyState,
  frozen: Any,
  batch: Mapping[str, jax.Array],
) -> SharedPass:
  """Passes actor and critic forward over all responses of an iteration.

  Args:
    networks: the forward passes.
    state: of the learner.
    frozen: parameters that are never trained.
    batch: as of `ppo_batch.prepare`.

  Returns:
    Outputs, and what leads back from them.
  """
  critic = None
  if networks.critic is not None and isinstance(
    state.critic, train_state.TrainState
  ):
    values_of = networks.critic
    critic = Passed(
      *jax.vjp(lambda params: values_of(params, batch), state.critic.params)
    )
  actor = Passed(
    *jax.vjp(
      lambda params: networks.actor(params, frozen, batch), state.actor.params
    )
  )
  return SharedPass(actor, critic)


def taking(passed: Passed | None, axis_name: str | None) -> contract.Take:
  """How `update.make_update` takes the gradient of a pass that is there.

  Args:
    passed: the network's; None passes it forward in the step.
    axis_name: the mapped axis inside `jax.pmap`, None under `jit`.

  Returns:
    The function.
  """
  if passed is None:
    return contract.at_the_parameters
  outputs, pullback = passed

  def take(
    gradient_of: Callable[[contract.Objective], contract.Gradient],
    objective: contract.Objective,
    state: train_state.TrainState,
    batch: contract.Batch,
  ) -> contract.BatchGradient:
    del gradient_of
    (value, metrics), back = jax.value_and_grad(
      lambda outputs: objective.loss(outputs, batch, ()), has_aux=True
    )(outputs)
    (grads,) = pullback(back)
    found = grads, value, metrics
    if axis_name is not None:
      found = jax.lax.psum(found, axis_name)
    return contract.BatchGradient(*found, state.carry, {})

  return take
