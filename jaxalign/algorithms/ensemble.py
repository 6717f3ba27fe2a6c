"""Several models trained as one program, each by itself on batches of its own.

The members' states are stacked along a first axis and one update is mapped over
it, so that every matrix product of M small models is one product of M.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.algorithms import reward
from jaxalign.algorithms.contract import Batch, Params, Update
from jaxalign.algorithms.train_state import TrainState

# Of a tree of states; a frozen base is one for all members.
STATE_AXES: Any = TrainState(*(0,) * 5, None)  # type: ignore[arg-type]


def member_key(key: jax.Array, member: int | jax.Array) -> jax.Array:
  """The key of one member, from that of all."""
  return jax.random.fold_in(key, member)


def make_ensemble_update(update: Update, num_members: int) -> Update:
  """One optimiser step of every member.

  Args:
    update: of one member, not reducing over any mapped axis.
    num_members: M.

  Returns:
    `update(state, batch, key) -> (state, metrics)` for a state whose leaves,
    but for what is frozen, are [M, ...] and a batch of [M, B, ...]. Member m
    takes the step that `update` takes with `member_key(key, m)`. Metrics are
    means over members; `train/bad_steps` is that of the worst.
  """

  def update_all(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    keys = jax.vmap(member_key, (None, 0))(key, jnp.arange(num_members))
    state, metrics = jax.vmap(
      update, (STATE_AXES, 0, 0), (STATE_AXES, 0), axis_size=num_members
    )(state, batch, keys)
    means = {name: jnp.mean(value) for name, value in metrics.items()}
    means["train/bad_steps"] = jnp.max(metrics["train/bad_steps"])
    return state, means

  return update_all


def make_ensemble_score(
  apply: reward.RewardApply,
) -> Callable[[Params, Batch], jax.Array]:
  """Rewards of every response under every member, without dropout.

  Args:
    apply: reward model with one output.

  Returns:
    `(params, batch) -> rewards [B, N, M]` for stacked parameters [M, ...] and
    one batch with `tokens` and `mask` [B, N, T] that all members score.
  """
  score = jax.vmap(reward.make_score(apply), (0, None))

  def score_all(params: Any, batch: Batch) -> jax.Array:
    return jnp.moveaxis(score(params, batch)[..., 0], 0, -1)

  return score_all
