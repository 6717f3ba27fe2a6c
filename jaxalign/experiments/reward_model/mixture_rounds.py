"""Mixture recipe: E-steps between optimiser steps, starts and restarts.

Latent groups have heads on one backbone, or reward models of their own.
"""

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxalign.algorithms import (
  bradley_terry,
  mixture,
  mixture_em,
  row_loss,
  update,
)
from jaxalign.data.batching import loader, pair_dataset
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import loop
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.reward_model import (
  mixture_scores,
  pair_recipes,
  recipe,
  user_assignment,
)
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import checkpoint, filesystem

log = logging.getLogger("jaxalign")


def check_groups(
  config: mixture.MixtureConfig, dataset: pair_dataset.PairDataset
) -> None:
  """Raises ValueError unless the groups of an oracle are those of the heads.

  Args:
    config: the recipe.
    dataset: training pairs.
  """
  if config.assignment != "oracle":
    return
  groups = len(dataset.group_names)
  lost = int(np.sum(user_assignment.user_groups(dataset) < 0))
  if groups != config.num_components or lost:
    raise ValueError(
      "assignment='oracle' needs num_components groups, each user in one of "
      f"them, got {config.num_components} and {groups}, {lost} users in none "
      "or several"
    )


def evidence(
  rewards: np.ndarray,
  dataset: pair_dataset.PairDataset,
  rows: np.ndarray | None,
  loss: bradley_terry.PairLossConfig,
) -> dict[str, np.ndarray | None]:
  """What an E-step reads of the training pairs: the M-step's loss of each.

  Args:
    rewards: float32 [N, 2, K].
    dataset: the pairs.
    rows: those learned from, int [M], None for all.
    loss: of a pair under one head.

  Returns:
    `gaps` [N, K] beyond the margin, `user` [N] with −1 where a pair is nobody's
    or not learned from, `chosen_prob` [N] or None; see `expectation`.
  """
  gaps, user = rewards[:, 0] - rewards[:, 1], dataset.annotator
  if loss.uses_margin:
    gaps = gaps - dataset.margin[:, None]
  if rows is not None:
    user = np.full_like(user, -1)
    user[rows] = dataset.annotator[rows]
  return {
    "gaps": gaps,
    "user": user,
    "chosen_prob": loss.label(dataset.chosen_prob),
  }


def make(
  config: mixture.MixtureConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """K heads for latent groups of annotators, by expectation maximisation.

  Args:
    config: the `recipe` section.
    loss: the `loss` section, of a pair under one head.
    coupling: how pairs are weighed, None for their mean.

  Returns:
    The recipe.

  Raises:
    ValueError: a coupling that reads what a head read, of models without a head
      in common.
  """
  if config.separate and coupling is not None:
    raise ValueError(
      f"recipe.separate does not go with coupling {coupling.name!r}, as models "
      "of their own have no head in common: coupling must be None; change it, "
      "or leave out recipe.separate"
    )
  pairs = pair_recipes.make(config, loss, coupling)
  rows = lambda: mixture.mixture_rows(config, loss)
  made = dataclasses.replace(
    pairs,
    objective=recipe.coupled(rows, coupling),
    outputs=config.outputs,
    schedule_steps=config.schedule_steps,
    hooks=functools.partial(Rounds, config, loss),
  )
  if not config.separate:
    return made
  return dataclasses.replace(
    made,
    objective=recipe.coupled(rows, None, separate_forward),
    copies=config.num_components,
    passes={"tokens": ("forward_backward",) * config.num_components},
  )


def separate_forward(
  model: heads.Model, network: DecoderConfig
) -> recipe.Forward:
  """Rewards of K models side by side, as those of K heads.

  Args:
    model: of one of them, with one output.
    network: its description.

  Returns:
    `(parameters [K, ...], batch) -> PairOutputs` with K rewards; the features
    are those of the first model.
  """
  one = bradley_terry.pair_forward(model.apply, dropout=network.dropout > 0)

  def forward(
    params: update.Params, batch: update.Batch
  ) -> bradley_terry.PairOutputs:
    found = jax.vmap(one, (0, None))(params, batch)
    beside = lambda rewards: jnp.moveaxis(rewards[..., 0], 0, -1)
    return bradley_terry.PairOutputs(
      beside(found.chosen),
      beside(found.rejected),
      found.chosen_features[0],
      found.rejected_features[0],
    )

  return forward


class Rounds(recipe.Hooks):
  """E-steps between optimiser steps, and starts, of one run."""

  def __init__(
    self,
    config: mixture.MixtureConfig,
    loss: bradley_terry.PairLossConfig,
    run: recipe.Run,
  ) -> None:
    """Checks the data against the config.

    Args:
      config: the recipe.
      loss: of a pair under one head; its labels and margins are the E-step's.
      run: what is trained on what.

    Raises:
      ValueError: users, groups or rounds do not fit.
    """
    super().__init__(run)
    check_groups(config, run.pairs.dataset)
    num_steps = run.train.num_steps
    config.check_rounds(num_steps)
    self._restart_steps = config.restart_rounds * config.steps_per_round
    if config.restarts > 1 and self._restart_steps > num_steps:
      raise ValueError(
        "restart_rounds x steps_per_round must be <= train.num_steps, got "
        f"{config.restart_rounds} x {config.steps_per_round} and {num_steps}"
      )
    self._config = config
    self._loss = loss
    self._seed = run.seed
    self._expect = jax.jit(
      functools.partial(mixture_em.expectation, config=config),
      static_argnames="reseed",
    )
    self._latest: Any = row_loss.rows_of(run.stage.state.carry)
    optimizer = run.stage.state.opt_state
    self._begun_anew = jax.jit(
      # Counts and moments all begin at 0.
      lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), optimizer),
      out_shardings=jax.tree.map(lambda x: x.sharding, optimizer),
    )

  @property
  def weights(self) -> tuple[float, ...]:
    """Mixture weights of the state that `revise` or `finish` saw last, [K]."""
    return tuple(float(w) for w in multihost.fetch(self._latest.weights))

  def first_assignment(self, start: int) -> np.ndarray:
    """Responsibilities before the first step, float32 [U, K].

    Args:
      start: number of the restart; each is another random split of the users
        into equal parts. Known groups with assignment="oracle".

    Returns:
      One-hot rows.
    """
    users, components = self._config.num_users, self._config.num_components
    if self._config.assignment == "oracle":
      home = user_assignment.user_groups(self.run.pairs.dataset)
    else:
      rng = np.random.default_rng([self._seed, start])
      home = rng.permutation(users) % components
    rows: np.ndarray = np.eye(components, dtype=np.float32)[home]
    return rows

  def first_stage(self) -> training.Stage:
    """The stage of the first start."""
    return self.stage_of(0)

  def stage_of(self, start: int) -> training.Stage:
    """The stage, whose first state has the assignment of a start."""
    stage = self.run.stage

    def init(key: jax.Array) -> Any:
      rows = mixture.start(jnp.asarray(self.first_assignment(start)))
      state = stage.init(key)
      return state._replace(carry=self._placed(state.carry, rows))

    return stage._replace(init=init)

  def revise(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
    """An E-step where one is due; see `loop.Revise`.

    Args:
      step: number of the step just done.
      state: after it.

    Returns:
      The state with its new membership, and with `fresh_schedule` an optimizer
      that has not stepped yet; and scalars: those of `expectation`,
      and the share of users with known groups that the best naming of
      components puts into theirs.
    """
    run = self.run
    last = step == run.train.num_steps
    self._latest = row_loss.rows_of(
      state.carry
    )  # fetched where it is asked for
    if not last and not training.every(step, self._config.steps_per_round):
      return state, {}
    rewards = run.rewards_of(run.stage.whole(state), run.pairs)
    membership, scalars = self._expect(
      membership=multihost.fetch(self._latest),
      reseed=not last,
      **evidence(rewards, run.pairs.dataset, run.rows, self._loss),
    )
    scalars = {k: float(v) for k, v in scalars.items()}
    state = state._replace(carry=self._placed(state.carry, membership))
    if self._config.fresh_schedule and not last:
      state = state._replace(opt_state=self._begun_anew())
    self._latest = row_loss.rows_of(state.carry)
    found = user_assignment.recovery(
      multihost.fetch(membership.responsibilities),
      user_assignment.user_groups(self.run.pairs.dataset),
      len(self.run.pairs.dataset.group_names),
    )
    if found is not None:
      scalars["em/group_accuracy"] = found.accuracy
    return state, scalars

  def before(
    self,
    source: loader.Batches,
    saved: checkpoint.Checkpoints,
    workdir: epath.Path,
  ) -> None:
    """Tries every start and leaves the most likely one as first checkpoint.

    Each start trains `restart_rounds` rounds on the same batches from the same
    parameters, in `workdir/restarts/NUMBER`, and can be killed and resumed like
    any run. Nothing is done where there is one start, or a checkpoint already.

    Args:
      source: batches as a function of the step.
      saved: checkpoints of the whole run.
      workdir: of the whole run; gets restarts.json.
    """
    if self._config.restarts == 1 or saved.latest() is not None:
      return
    schedule = dataclasses.replace(
      self.run.train,
      num_steps=self._restart_steps,
      eval_every=None,
      keep_last=1,
    )
    folders = [
      workdir / "restarts" / str(start)
      for start in range(self._config.restarts)
    ]
    found = []
    for start, folder in enumerate(folders):
      with self._checkpoints(folder, schedule) as own:
        state, _ = loop.fit(
          self.stage_of(start),
          source,
          schedule,
          own,
          folder,
          seed=self._seed,
          prefetch=self.run.data.prefetch,
          revise=self.revise,
        )
        membership = row_loss.rows_of(state.carry)
        found.append(float(multihost.fetch(membership.log_likelihood)))
        del state
    best = int(np.argmax(found))
    log.info(
      "log-likelihood of the starts: %s; start %d goes on",
      ", ".join(f"{value:.1f}" for value in found),
      best,
    )
    if multihost.is_main():
      configuration.write_json(
        workdir / "restarts.json", {"log_likelihood": found, "chosen": best}
      )
      filesystem.write_atomically(
        workdir / "metrics.jsonl",
        (folders[best] / "metrics.jsonl").read_bytes(),
      )
    with self._checkpoints(folders[best], schedule) as own:
      state = own.restore(
        self._restart_steps, self.run.stage.state._replace(frozen=())
      )
      saved.save(self._restart_steps, state, None)
      saved.wait()
    if multihost.is_main():
      for folder in folders:
        (folder / "checkpoints").rmtree()
    multihost.barrier("restarts")

  def measure(self) -> loop.Measure | None:
    """Held-out people as one mixture, for the curve; `mixture_scores.quick`."""
    held_out = self.run.held_out
    if held_out is None:
      return None
    return lambda params: mixture_scores.quick(
      self.run.rewards_of(params, held_out), held_out.dataset, self.weights
    )

  def finish(self, state: Any, workdir: epath.Path) -> tuple[float, ...]:
    """Writes mixture.json: who was found to belong where.

    Args:
      state: after the last step, or that of the checkpoint to be exported.
      workdir: where to.

    Returns:
      The mixture weights, [K].
    """
    self._latest = row_loss.rows_of(state.carry)
    membership = multihost.fetch(self._latest)
    if multihost.is_main():
      configuration.write_json(
        workdir / user_assignment.FOUND,
        user_assignment.found(
          membership.responsibilities,
          membership.weights,
          int(membership.reseeded),
          self.run.pairs.dataset,
        ),
      )
    return self.weights

  def _placed(self, carry: Any, membership: Any) -> Any:
    """The carry with a membership on its devices."""
    like = row_loss.rows_of(self.run.stage.state.carry)
    placed = jax.tree.map(
      lambda value, leaf: jax.device_put(value, leaf.sharding), membership, like
    )
    return row_loss.with_rows(carry, placed)

  def _checkpoints(
    self, folder: epath.Path, schedule: training.Schedule
  ) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(
      folder / "checkpoints",
      keep_last=1,
      keep_best=0,
      best_metric="eval/nll",
      digests=schedule.digests,
    )
