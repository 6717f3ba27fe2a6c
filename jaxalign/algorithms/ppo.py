"""PPO, RLOO, GRPO and online DPO: one iteration of learning in one program.

An iteration is: sample (elsewhere), score (on the host), learn. `make_learn`
is the last of these: advantages of the whole batch, then epochs of minibatches
in one scan, each a two-phase update.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxalign import losses
from jaxalign.algorithms import (
  group_weights,
  kl_control,
  online_dpo,
  ppo_losses,
  ppo_texts,
  reward_shaping,
  shared_pass,
  train_state,
)
from jaxalign.algorithms import update as contract
from jaxalign.algorithms.policy_config import PAIRWISE, LearnerConfig
from jaxalign.algorithms.ppo_batch import (
  Frozen,
  Networks,
  PolicyOutputs,
  PolicyState,
  Scalars,
  prepare,
  spares_forward,
)
from jaxalign.algorithms.update import Batch, Params

TextLogProbs = Callable[[Params, Frozen, Batch], jax.Array]
Learn = Callable[
  [PolicyState, Frozen, Batch, jax.Array], tuple[PolicyState, Scalars]
]


class Optimizers(NamedTuple):
  """An optax chain per network.

  Attributes:
    actor: of the policy.
    critic: of a critic of its own, else None.
  """

  actor: optax.GradientTransformation
  critic: optax.GradientTransformation | None


def init_policy_state(
  actor: Params,
  critic: Params | None,
  optimizers: Optimizers,
  config: LearnerConfig,
) -> PolicyState:
  """The state before the first iteration.

  Args:
    actor: trainable parameters of the policy.
    critic: those of a critic of its own, None without one.
    optimizers: a chain for each.
    config: coefficient and weights to start from.

  Returns:
    The state; its arrays are its own.
  """
  second: train_state.TrainState | tuple[()] = ()
  if critic is not None and optimizers.critic is not None:
    second = train_state.init_state(critic, optimizers.critic)
  return PolicyState(
    iteration=jnp.zeros((), jnp.int32),
    actor=train_state.init_state(actor, optimizers.actor),
    critic=second,
    kl=losses.init_kl_controller(config.kl.coef),
    moments=reward_shaping.init_moments(),
    group_weights=group_weights.initial_weights(
      config.welfare, len(config.groups)
    ),
  )


def make_learn(
  networks: Networks,
  optimizers: Optimizers,
  config: LearnerConfig,
  *,
  accumulation: int = 1,
  axis_name: str | None = None,
  spread: Callable[[Any], Any] = lambda batch: batch,
  texts: TextLogProbs | None = None,
) -> Learn:
  """One iteration of learning from scored responses.

  Args:
    networks: the forward passes.
    optimizers: a chain for each trained network.
    config: the learner's.
    accumulation: micro-batches per optimiser step; changes memory alone.
    axis_name: the mapped axis inside `jax.pmap`; None under `jit`.
    spread: lays the rows of a minibatch out over devices.
    texts: `(params, frozen, batch) -> log-probabilities` of `ppo_texts.beside`,
      needed with `policy.text_coef`; the batch then has `ppo_texts.named`.

  Returns:
    `learn(state, frozen, batch, key) -> (state, metrics)`, pure; the batch is
    that of `ppo_batch.prepare`, and `key` orders its prompts into minibatches.
  """
  policy = config.policy
  if (texts is None) != (policy.text_coef is None):
    raise ValueError("texts and policy.text_coef are set together")

  def learn(
    state: PolicyState, frozen: Frozen, batch: Batch, key: jax.Array
  ) -> tuple[PolicyState, Scalars]:
    number = batch["row"].shape[0]
    if axis_name is not None:
      number *= jax.lax.axis_size(axis_name)
    if number % policy.minibatches:
      raise ValueError(
        f"minibatches must divide the prompts of an iteration, got "
        f"{policy.minibatches} and {number}"
      )
    shared = None
    if shared_pass.is_shared(networks, config, accumulation):
      shared = shared_pass.pass_forward(networks, state, frozen, batch)
    prepared = prepare(
      networks,
      state,
      frozen,
      batch,
      config,
      number=policy.minibatches * accumulation,
      axis_name=axis_name,
      passed=None if shared is None else shared.found(),
    )
    experience = prepared.experience
    if texts is not None:
      experience = experience | ppo_texts.weighted(
        batch, minibatches=policy.minibatches, axis_name=axis_name
      )
    experience = jax.lax.stop_gradient(experience)
    update = _make_update(
      networks,
      optimizers,
      config,
      frozen,
      state.kl.kl_coef,
      accumulation,
      axis_name,
      shared=shared,
      warming=state.iteration < config.critic.warmup_iterations,
      texts=texts,
    )
    minibatch_of = _minibatches(experience, axis_name, spread)
    keys = jax.random.split(key, policy.epochs)
    orders = jax.vmap(lambda key: jax.random.permutation(key, number))(keys)
    orders = orders.reshape(
      policy.epochs * policy.minibatches, number // policy.minibatches
    )
    step = lambda carry, order: update(carry, minibatch_of(order))
    carry = state.actor, state.critic, jnp.bool_(False)
    if shared is None:
      carry, (metrics, active) = jax.lax.scan(step, carry, orders)
    else:  # one step, and rows in the order in which they were passed
      carry, found = update(carry, experience)
      metrics, active = jax.tree.map(lambda x: x[None], found)
    actor, critic, stopped = carry
    steps = jnp.maximum(jnp.sum(active, dtype=jnp.int32), 1)
    scalars = {
      name: jnp.sum(jnp.where(active, x, 0.0)) / steps.astype(x.dtype)
      for name, x in metrics.items()
    }
    bad_steps = actor.bad_steps
    if isinstance(critic, train_state.TrainState):
      bad_steps = jnp.maximum(bad_steps, critic.bad_steps)
    scalars |= prepared.metrics
    scalars |= {
      "train/bad_steps": bad_steps,
      "train/stopped": stopped.astype(jnp.float32),
      "train/updates": jnp.sum(active, dtype=jnp.int32),
    }
    number_of_responses = number * batch["scores"].shape[1]
    controller = kl_control.next_coefficient(
      state.kl,
      prepared.observed_kl,
      config.kl,
      num_samples=number_of_responses,
    )
    weights = prepared.state.group_weights
    if config.critic.warmup_iterations:
      warming = state.iteration < config.critic.warmup_iterations
      controller, weights = jax.tree.map(
        lambda old, new: jnp.where(warming, old, new),
        (state.kl, state.group_weights),
        (controller, weights),
      )
      scalars["train/warming"] = warming.astype(jnp.float32)
    state = prepared.state._replace(
      iteration=state.iteration + 1,
      actor=actor,
      critic=critic,
      kl=controller,
      group_weights=weights,
    )
    return state, scalars

  return learn


def _minibatches(
  experience: Mapping[str, jax.Array],
  axis_name: str | None,
  spread: Callable[[Any], Any],
) -> Callable[[jax.Array], Batch]:
  """`order -> minibatch`, this device's share of it."""
  if axis_name is None:
    return lambda order: spread({k: x[order] for k, x in experience.items()})
  whole = {
    k: jax.lax.all_gather(x, axis_name, tiled=True)
    for k, x in experience.items()
  }
  devices = jax.lax.axis_size(axis_name)

  def minibatch(order: jax.Array) -> Batch:
    share = order.shape[0] // devices
    first = jax.lax.axis_index(axis_name) * share
    mine = jax.lax.dynamic_slice_in_dim(order, first, share)
    return {k: x[mine] for k, x in whole.items()}

  return minibatch


T = TypeVar("T")
Carry = tuple[
  train_state.TrainState, train_state.TrainState | tuple[()], jax.Array
]


def _make_update(
  networks: Networks,
  optimizers: Optimizers,
  config: LearnerConfig,
  frozen: Frozen,
  kl_coef: jax.Array,
  accumulation: int,
  axis_name: str | None,
  *,
  shared: shared_pass.SharedPass | None,
  warming: jax.Array,
  texts: TextLogProbs | None,
) -> Callable[[Carry, Batch], tuple[Carry, tuple[Scalars, jax.Array]]]:
  """One step of actor and critic, undone if it comes after the stop.

  The actor's is undone as well while the critic is `warming`, bool [].
  """

  def forward(params: Params, batch: Batch) -> PolicyOutputs:
    return networks.actor(params, frozen, batch)

  def update_of(
    objective: contract.Objective,
    optimizer: optax.GradientTransformation,
    passed: shared_pass.Passed | None,
  ) -> contract.Update:
    return contract.make_update(
      objective,
      optimizer,
      accumulation=accumulation,
      axis_name=axis_name,
      take=shared_pass.taking(passed, axis_name),
    )

  if config.policy.kind in PAIRWISE:
    objective = online_dpo.preference_objective(
      lambda params, batch: forward(params, batch).log_probs,
      beta=config.kl.coef,
    )
  else:
    objective = ppo_losses.policy_objective(
      forward, config, kl_coef, own_past=spares_forward(networks, config)
    )
  if texts is not None and config.policy.text_coef is not None:
    objective = ppo_texts.beside(
      objective,
      lambda params, batch: texts(params, frozen, batch),
      coef=config.policy.text_coef,
    )
  actor = None if shared is None else shared.actor
  of_actor = update_of(objective, optimizers.actor, actor)
  of_critic = None
  if networks.critic is not None and optimizers.critic is not None:
    of_critic = update_of(
      ppo_losses.value_objective(networks.critic, config),
      optimizers.critic,
      None if shared is None else shared.critic,
    )

  def update(
    carry: Carry, batch: Batch
  ) -> tuple[Carry, tuple[Scalars, jax.Array]]:
    actor, critic, stopped = carry
    # Nothing is drawn: a policy in training is the policy that sampled.
    key = jax.random.key(0)
    new_actor, metrics = of_actor(actor, batch, key)
    new_critic = critic
    if of_critic is not None and isinstance(critic, train_state.TrainState):
      new_critic, scalars = of_critic(critic, batch, jax.random.key(0))
      metrics |= {
        "train/value_loss": scalars["train/value_loss"],
        "train/value_gradient_norm": scalars["train/gradient_norm"],
      }
    if config.policy.stop_kl is not None:
      stopped = stopped | (metrics["train/approx_kl"] > config.policy.stop_kl)
    held = stopped
    if config.critic.warmup_iterations:
      held = stopped | warming
    carry = (
      _unless(held, new_actor, actor),
      _unless(stopped, new_critic, critic),
      stopped,
    )
    del metrics["train/bad_steps"]
    return carry, (metrics, ~stopped)

  return update


def _unless(flag: jax.Array, new: T, old: T) -> T:
  """A tree of new arrays, or the old one where the flag is set."""
  kept: T = jax.tree.map(lambda x, y: jnp.where(flag, y, x), new, old)
  return kept
