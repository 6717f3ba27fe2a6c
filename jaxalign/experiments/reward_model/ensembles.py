"""A built stage, taken M times: one program that trains or scores them all."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign.algorithms import ensemble, train_state
from jaxalign.data.batching import loader
from jaxalign.experiments.common import stage
from jaxalign.experiments.reward_model import scoring
from jaxalign.models import activations, heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import step_guard


def replicate(
  one: stage.Stage,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
  num_members: int,
  at_once: int,
) -> stage.Stage:
  """The stage of M members out of the stage of one.

  Args:
    one: built under "jit".
    mesh: its devices, real or abstract.
    rules: overrides of the logical table.
    num_members: M.
    at_once: members that a step computes side by side.

  Returns:
    A stage whose state and batches are [M, ...], each device holding its part
    of every member. A frozen base is there once. Member m begins with what
    `one.init` makes of its own key: another head, and other weights where none
    are read from a folder.
  """
  stack = lambda tree: stacked(tree, mesh, num_members)
  shapes = stack(one.state)._replace(frozen=one.state.frozen)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
  batch = stack(one.batch)
  everywhere = meshes.replicated(mesh)
  update = step_guard.TraceCounter(
    ensemble.make_ensemble_update(one.traces, num_members, at_once)
  )
  step = jax.jit(
    activations.laid_out(update, mesh, meshes.logical_table(rules)),
    in_shardings=(
      shardings,
      jax.tree.map(lambda leaf: leaf.sharding, batch),
      everywhere,
    ),
    out_shardings=(shardings, everywhere),
    donate_argnums=0,
  )

  def init(key: jax.Array) -> train_state.TrainState:
    # One after the other into place: all side by side would be twice M.
    made: Any = None
    bare = shapes._replace(frozen=())
    place = jax.jit(
      lambda all, own, at: jax.tree.map(
        lambda rows, row: rows.at[at].set(row), all, own
      ),
      out_shardings=jax.tree.map(lambda leaf: leaf.sharding, bare),
      donate_argnums=0,
    )
    for member in range(num_members):
      # Clones: a key is used once for each member, and once for the base.
      own = one.init(ensemble.member_key(jax.random.clone(key), member))
      if made is None:
        zeros = lambda: jax.tree.map(
          lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), bare
        )
        made = jax.jit(
          zeros,
          out_shardings=jax.tree.map(lambda leaf: leaf.sharding, bare),
        )()
      made = place(made, own._replace(frozen=()), member)
    return made._replace(frozen=frozen(key))

  def frozen(key: jax.Array) -> Any:
    return one.frozen(ensemble.member_key(jax.random.clone(key), 0))

  params = stack(one.params)
  merged = jax.jit(
    jax.vmap(one.whole, (ensemble.STATE_AXES,), axis_size=num_members),
    out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params),
  )
  if heads.FEATURES in one.params:  # there once, as in the state
    params = {**params, heads.FEATURES: one.params[heads.FEATURES]}
    merged = one.whole
  adapts = bool(jax.tree.leaves(one.state.frozen))
  return one._replace(
    step=step,
    state=shapes,
    batch=batch,
    params=params,
    init=init,
    frozen=frozen,
    whole=lambda state: merged(state) if adapts else state.params,
    traces=update,
  )


def stacked(tree: Any, mesh: jax.sharding.Mesh, num_members: int) -> Any:
  """Abstract arrays [M, ...], every member laid out as the one given.

  Args:
    tree: of ShapeDtypeStruct with shardings.
    mesh: of these.
    num_members: M.

  Returns:
    The same tree.
  """
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      (num_members, *leaf.shape),
      leaf.dtype,
      sharding=NamedSharding(mesh, PartitionSpec(None, *leaf.sharding.spec)),
    ),
    tree,
  )


def score_stage(
  trained: stage.Stage,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
  batch_size: int,
  length: int,
  at_once: int,
) -> scoring.Stage:
  """Rewards of one batch under all members, as M rewards of one model.

  Args:
    trained: of `replicate`.
    mesh: devices, real or abstract.
    rules: overrides of the logical table.
    batch_size: pairs per forward over all devices.
    length: tokens of the largest bucket.
    at_once: members that score side by side.

  Returns:
    A stage for `scoring.rewards_of`, with `num_rewards` M.

  Raises:
    ValueError: the batch does not fit the mesh.
  """
  meshes.check_batch(batch_size, 1, mesh)
  shared = {heads.FEATURES} & set(trained.params)
  own = {k: leaf for k, leaf in trained.params.items() if k not in shared}
  num_members = jax.tree.leaves(own)[0].shape[0]
  score = ensemble.make_ensemble_score(
    heads.reward_model(trained.network).apply, at_once, sorted(shared)
  )
  step = jax.jit(
    activations.laid_out(
      lambda params, batch: (
        score(params, batch),
        batch["index"],
        batch["where"],
      ),
      mesh,
      meshes.logical_table(rules),
    ),
    in_shardings=(
      jax.tree.map(lambda leaf: leaf.sharding, trained.params),
      meshes.batch_sharding(mesh),
    ),
    out_shardings=meshes.replicated(mesh),
  )
  return scoring.Stage(
    step,
    trained.params,
    meshes.batch_shapes(loader.pair_shapes(batch_size, length), mesh),
    trained.network,
    num_members,
    passes={"tokens": ("forward",) * num_members},
  )
