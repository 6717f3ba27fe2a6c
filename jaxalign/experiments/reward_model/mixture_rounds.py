"""Rounds of the mixture recipe: E-steps between steps, starts, restarts."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import mixture, mixture_em
from jaxalign.data.batching import loader, pair_dataset
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import loop
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import mixture_scores, user_assignment
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


class Rounds:
  """What surrounds the steps of one run."""

  def __init__(
    self,
    config: mixture.MixtureConfig,
    pairs: preferences.Pairs,
    rewards_of: Callable[[Any, preferences.Pairs], np.ndarray],
    stage: training.Stage,
    *,
    num_steps: int,
    seed: int,
  ) -> None:
    """Checks the data against the config.

    Args:
      config: the recipe.
      pairs: training pairs.
      rewards_of: `(params, pairs) -> float32 [N, 2, K]`.
      stage: the built step.
      num_steps: of the whole run.
      seed: of the first assignments.

    Raises:
      ValueError: users, groups or rounds do not fit.
    """
    check_groups(config, pairs.dataset)
    self._restart_steps = config.restart_rounds * config.steps_per_round
    if config.restarts > 1 and self._restart_steps > num_steps:
      raise ValueError(
        "restart_rounds x steps_per_round must be <= train.num_steps, got "
        f"{config.restart_rounds} x {config.steps_per_round} and {num_steps}"
      )
    self._config = config
    self._pairs = pairs
    self._rewards_of = rewards_of
    self._stage = stage
    self._num_steps = num_steps
    self._seed = seed
    self._expect = jax.jit(
      functools.partial(mixture_em.expectation, config=config),
      static_argnames="reseed",
    )
    self._latest: Any = stage.state.carry

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
      home = user_assignment.user_groups(self._pairs.dataset)
    else:
      rng = np.random.default_rng([self._seed, start])
      home = rng.permutation(users) % components
    rows: np.ndarray = np.eye(components, dtype=np.float32)[home]
    return rows

  def stage(self, start: int) -> training.Stage:
    """The stage, whose first state has the assignment of a start."""

    def init(key: jax.Array) -> Any:
      rows = mixture.start(jax.numpy.asarray(self.first_assignment(start)))
      return self._stage.init(key)._replace(carry=self._placed(rows))

    return self._stage._replace(init=init)

  def revise(self, step: int, state: Any) -> tuple[Any, dict[str, Any]]:
    """An E-step where one is due; `fitting.Revise`.

    Args:
      step: number of the step just done.
      state: after it.

    Returns:
      The state with its new membership, and scalars: those of `expectation`,
      and the share of users with known groups that the best naming of
      components puts into theirs.
    """
    last = step == self._num_steps
    if not last and not training.every(step, self._config.steps_per_round):
      self._latest = state.carry  # fetched only where it is asked for
      return state, {}
    rewards = self._rewards_of(self._stage.whole(state), self._pairs)
    membership, scalars = self._expect(
      rewards[:, 0] - rewards[:, 1],
      user=self._pairs.dataset.annotator,
      membership=multihost.fetch(state.carry),
      reseed=not last,
    )
    scalars = {k: float(v) for k, v in scalars.items()}
    state = state._replace(carry=self._placed(membership))
    self._latest = state.carry
    found = user_assignment.recovery(
      multihost.fetch(membership.responsibilities),
      user_assignment.user_groups(self._pairs.dataset),
      len(self._pairs.dataset.group_names),
    )
    if found is not None:
      scalars["em/group_accuracy"] = found.accuracy
    return state, scalars

  def warm_up(
    self,
    source: loader.Batches,
    schedule: training.Schedule,
    saved: checkpoint.Checkpoints,
    workdir: epath.Path,
    *,
    prefetch: int,
  ) -> None:
    """Tries every start and leaves the most likely one as first checkpoint.

    Each start trains `restart_rounds` rounds on the same batches from the same
    parameters, in `workdir/restarts/NUMBER`, and can be killed and resumed like
    any run. Nothing is done where there is one start, or a checkpoint already.

    Args:
      source: batches as a function of the step.
      schedule: of the whole run.
      saved: checkpoints of the whole run.
      workdir: of the whole run; gets restarts.json.
      prefetch: batches made ahead of the step.
    """
    if self._config.restarts == 1 or saved.latest() is not None:
      return
    schedule = dataclasses.replace(
      schedule, num_steps=self._restart_steps, eval_every=None, keep_last=1
    )
    folders = [
      workdir / "restarts" / str(start)
      for start in range(self._config.restarts)
    ]
    found = []
    for start, folder in enumerate(folders):
      with self._checkpoints(folder, schedule) as own:
        state, _ = loop.fit(
          self.stage(start),
          source,
          schedule,
          own,
          folder,
          seed=self._seed,
          prefetch=prefetch,
          revise=self.revise,
        )
        found.append(float(multihost.fetch(state.carry.log_likelihood)))
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
        self._restart_steps, self._stage.state._replace(frozen=())
      )
      saved.save(self._restart_steps, state, None)
      saved.wait()
    if multihost.is_main():
      for folder in folders:
        (folder / "checkpoints").rmtree()
    multihost.barrier("restarts")

  def measure_of(
    self, held_out: preferences.Pairs | None
  ) -> loop.Measure | None:
    """Scores of people nobody knows, for the training curve.

    Args:
      held_out: their pairs, or None.

    Returns:
      `params -> scores`, those of `mixture_scores.quick`, or None.
    """
    if held_out is None:
      return None
    return lambda params: mixture_scores.quick(
      self._rewards_of(params, held_out), held_out.dataset, self.weights
    )

  def finish(self, state: Any, workdir: epath.Path) -> tuple[float, ...]:
    """Writes mixture.json: who was found to belong where.

    Args:
      state: after the last step, or that of the checkpoint to be exported.
      workdir: where to.

    Returns:
      The mixture weights, [K].
    """
    self._latest = state.carry
    membership = multihost.fetch(state.carry)
    if multihost.is_main():
      configuration.write_json(
        workdir / user_assignment.FOUND,
        user_assignment.found(
          membership.responsibilities,
          membership.weights,
          int(membership.reseeded),
          self._pairs.dataset,
        ),
      )
    return self.weights

  def _placed(self, membership: Any) -> Any:
    """The carry on its devices."""
    return jax.tree.map(
      lambda value, like: jax.device_put(value, like.sharding),
      membership,
      self._stage.state.carry,
    )

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
