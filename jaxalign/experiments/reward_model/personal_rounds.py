"""Personal recipe: everybody is placed anew between optimiser steps."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxalign.algorithms import bradley_terry, personal_recipe, row_loss
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import loop
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import (
  mixture_rounds,
  pair_recipes,
  personal_scores,
  recipe,
  scoring,
)
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem

FOUND, PEOPLE = "personal.json", "people.jsonl"


def make(
  config: personal_recipe.PersonalRecipeConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """A shared reward, and factors in which people differ.

  Args:
    config: the `recipe` section.
    loss: the `loss` section, of a pair under its person's reward.
    coupling: how pairs are weighed, None for their mean.

  Returns:
    The recipe.
  """
  rows = lambda: personal_recipe.personal_rows(config, loss)
  return dataclasses.replace(
    pair_recipes.make(config, loss, coupling),
    objective=recipe.coupled(rows, coupling),
    outputs=config.outputs,
    readout=config.readout(),
    hooks=functools.partial(Rounds, config, loss),
  )


class Rounds(recipe.Hooks):
  """People placed between optimiser steps of one run."""

  def __init__(
    self,
    config: personal_recipe.PersonalRecipeConfig,
    loss: bradley_terry.PairLossConfig,
    run: recipe.Run,
  ) -> None:
    """Holds what places people.

    Args:
      config: the recipe.
      loss: of a pair; its labels and margins place people too.
      run: what is trained on what.
    """
    super().__init__(run)
    self._config, self._loss = config, loss
    self._read = config.readout()
    # The run's own rewards are of the reward that people share.
    self._outputs_of = scoring.outputs_by(
      run.scorer, run.data, run.tokenizer, run.held_out
    )
    self._expect = jax.jit(
      functools.partial(personal_recipe.expectation, num_users=config.num_users)
    )

  def first_places(self) -> np.ndarray:
    """Places before the first step, drawn from the prior, float32 [U, R]."""
    rng = np.random.default_rng(self.run.seed)
    shape = self._config.num_users, self._config.rank
    return rng.standard_normal(shape, np.float32)

  def first_stage(self) -> training.Stage:
    """The stage, whose first state has people at random places."""
    stage = self.run.stage

    def init(key: jax.Array) -> Any:
      state = stage.init(key)
      places = personal_recipe.start(jnp.asarray(self.first_places()))
      return state._replace(carry=self._placed(state.carry, places))

    return stage._replace(init=init)

  def measure(self) -> loop.Measure | None:
    """Held-out people, placed by their own pairs; `personal_scores.quick`."""
    held_out = self.run.held_out
    if held_out is None:
      return None
    return lambda params: personal_scores.quick(
      self._outputs_of(params, held_out), held_out.dataset, self._read
    )

  def revise(self, step: int, state: Any) -> tuple[Any, dict[str, float]]:
    """Places everybody where that is due; see `loop.Revise`.

    Args:
      step: number of the step just done.
      state: after it.

    Returns:
      The state with new places, and the scalars of `expectation`.
    """
    run = self.run
    last = step == run.train.num_steps
    if not last and not training.every(step, self._config.steps_per_round):
      return state, {}
    found = self._evidence(run.stage.whole(state), run.pairs)
    places, scalars = self._expect(**found)
    carry = self._placed(state.carry, multihost.fetch(places))
    state = state._replace(carry=carry)
    return state, {k: float(v) for k, v in scalars.items()}

  def finish(self, state: Any, workdir: epath.Path) -> None:
    """Writes personal.json, and people.jsonl where it is asked for.

    Args:
      state: after the last step, or that of the checkpoint to be exported.
      workdir: where to.
    """
    places = multihost.fetch(row_loss.rows_of(state.carry))
    if not multihost.is_main():
      return
    config = self._config
    configuration.write_json(
      workdir / FOUND,
      {
        "kind": config.kind,
        "rank": config.rank,
        "people": config.num_users,
        "log_evidence": float(places.log_evidence),
        "spread": np.std(places.mean, axis=0).astype(float).tolist(),
      },
    )
    if config.save_people:
      names = self.run.pairs.dataset.annotator_names
      deviations = np.sqrt(np.diagonal(places.covariance, axis1=1, axis2=2))
      lines = [
        json.dumps(
          {
            "annotator": name,
            "place": mean.astype(float).tolist(),
            "deviation": deviation.astype(float).tolist(),
          }
        )
        for name, mean, deviation in zip(
          names, places.mean, deviations, strict=True
        )
      ]
      text = "".join(f"{line}\n" for line in lines)
      filesystem.write_atomically(workdir / PEOPLE, text.encode())

  def _evidence(self, params: Any, pairs: preferences.Pairs) -> dict[str, Any]:
    """What `expectation` reads of training pairs, as a step is taught them."""
    outputs = self._outputs_of(params, pairs)
    found = mixture_rounds.evidence(
      np.asarray(self._read(jnp.asarray(outputs))),
      pairs.dataset,
      self.run.rows,
      self._loss,
    )
    gaps = np.asarray(found["gaps"])[:, 0]
    return {
      **found,
      "gaps": gaps,
      "apart": outputs[:, 0, 1:] - outputs[:, 1, 1:],
    }

  def _placed(self, carry: Any, places: personal_recipe.Places) -> Any:
    """The carry with people's places on its devices."""
    like = row_loss.rows_of(self.run.stage.state.carry)
    laid = jax.tree.map(
      lambda value, leaf: jax.device_put(value, leaf.sharding), places, like
    )
    return row_loss.with_rows(carry, laid)
