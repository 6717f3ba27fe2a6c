"""Ensemble training: several models in one program, each on its own batches.

The members' states are stacked along a first axis and one update is mapped over
it, so that every matrix product of M small models is one product of M. Large
ones take turns: side by side they would hold M times the activations.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms.train_state import TrainState
from jaxalign.algorithms.update import Batch, Params, Update

# Of a tree of states; a frozen base is one for all members.
STATE_AXES: Any = TrainState(*(0,) * 5, None)  # type: ignore[arg-type]


def member_key(key: jax.Array, member: int | jax.Array) -> jax.Array:
  """The key of one member, from that of all."""
  return jax.random.fold_in(key, member)


def make_ensemble_update(
  update: Update, num_members: int, at_once: int
) -> Update:
  """One optimiser step of every member.

  Args:
    update: of one member, not reducing over any mapped axis.
    num_members: M.
    at_once: members side by side, a divisor of M; changes memory and time,
      not results.

  Returns:
    `update(state, batch, key) -> (state, metrics)` for a state whose leaves,
    but for what is frozen, are [M, ...] and a batch of [M, B, ...]. Member m
    takes the step that `update` takes with `member_key(key, m)`. Metrics are
    means over members; `train/bad_steps` is that of the worst.
  """
  several = jax.vmap(
    update, (STATE_AXES, 0, 0), (STATE_AXES, 0), axis_size=at_once
  )

  def update_all(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    keys = jax.vmap(member_key, (None, 0))(key, jnp.arange(num_members))
    if at_once == num_members:
      state, metrics = several(state, batch, keys)
    else:
      state, metrics = in_turns(state, batch, keys)
    means = {name: jnp.mean(value) for name, value in metrics.items()}
    means["train/bad_steps"] = jnp.max(metrics["train/bad_steps"])
    return state, means

  def in_turns(
    state: TrainState, batch: Batch, keys: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    frozen = state.frozen

    def turn(state: Any, first: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
      part = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, at_once)
      own, batch_of, keys_of = jax.tree.map(part, (state, batch, keys))
      own, metrics = several(own._replace(frozen=frozen), batch_of, keys_of)
      # In place: a second copy of all members would be as large as the first.
      put = lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(
        leaf, new, first, axis=0
      )
      return jax.tree.map(put, state, own._replace(frozen=())), metrics

    bare, metrics = jax.lax.scan(
      turn, state._replace(frozen=()), jnp.arange(0, num_members, at_once)
    )
    return bare._replace(frozen=frozen), metrics

  return update_all


def make_ensemble_score(
  apply: bradley_terry.RewardApply,
  at_once: int,
  shared: Collection[str] = (),
) -> Callable[[Params, Batch], jax.Array]:
  """Rewards of every response under every member, without dropout.

  Args:
    apply: reward model with one output.
    at_once: members trained side by side.
    shared: names of parameters of which all members have the same one.

  Returns:
    `(params, batch) -> rewards [B, N, M]` for stacked parameters [M, ...], but
    for those that are shared, and
    one batch with `tokens` and `mask` [B, N, T] that all members score.
  """
  score = bradley_terry.make_score(apply)

  def score_all(params: Any, batch: Batch) -> jax.Array:
    common = {name: params[name] for name in shared}
    if shared:
      params = {k: leaf for k, leaf in params.items() if k not in common}

    def own(params: Params) -> jax.Array:
      whole = {**common, **params} if shared else params
      return score(whole, batch)[..., 0]

    if at_once == jax.tree.leaves(params)[0].shape[0]:
      return jax.vmap(own, out_axes=-1)(params)
    found = jax.lax.map(own, params, batch_size=at_once)
    return jnp.moveaxis(found, 0, -1)

  return score_all
