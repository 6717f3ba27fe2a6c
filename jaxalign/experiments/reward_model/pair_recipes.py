"""Recipes that learn from pairs: Bradley-Terry, its couplings, normal rewards.

What a pair is taught is the `loss` section's, with labels and margins made of
the pairs' strengths where it denoises.
"""

import dataclasses
import functools
import itertools
import logging
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxalign.algorithms import (
  bradley_terry,
  denoised,
  mean_variance,
  reward_readout,
)
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import recipe

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True)
class BradleyTerryConfig:
  """One reward, one mean over all pairs.

  Attributes:
    name: of the recipe.
  """

  name: Literal["bradley_terry"]


def make(
  config: Any,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """Bradley-Terry, by whose defaults other recipes are described.

  Args:
    config: the `recipe` section, which says no more than its name.
    loss: the `loss` section.
    coupling: how pairs are weighed, None for their mean.

  Returns:
    The recipe.
  """
  del config
  return recipe.Recipe(
    recipe.coupled(lambda: bradley_terry.pair_rows(loss), coupling),
    prepare_pairs=functools.partial(with_targets, loss),
  )


def make_denoised(
  config: denoised.DenoisedConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """Bradley-Terry with `loss.denoise`, under its first name."""
  if loss.denoise is not None:
    raise ValueError(
      "recipe 'denoised' sets loss.denoise itself: loss.denoise must be None, "
      f"got {loss.denoise}; take recipe 'bradley_terry' with it"
    )
  loss = dataclasses.replace(loss, denoise=config.denoise())
  return make(config, loss, coupling)


def make_coupled(
  config: recipe.Coupling,
  loss: bradley_terry.PairLossConfig,
  coupling: None,
) -> recipe.Recipe:
  """Bradley-Terry under the coupling that the `recipe` section describes."""
  del coupling  # refused by the table
  return make(config, loss, config)


def make_normal(
  config: mean_variance.MeanVarianceConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """A mean and a deviation per response, with a loss of their own."""
  recipe.refuse_other_losses(config.name, loss)
  return recipe.Recipe(
    recipe.coupled(lambda: mean_variance.normal_rows(config), coupling),
    outputs=mean_variance.OUTPUTS,
    readout=reward_readout.Readout("mean_variance"),
  )


def with_targets(
  loss: bradley_terry.PairLossConfig,
  data: preferences.DataConfig,
  pairs: preferences.Pairs,
) -> tuple[preferences.Pairs, np.ndarray | None]:
  """Labels and margins that the policy makes of the pairs' strengths.

  Args:
    loss: the `loss` section; with labels="hard" every pair begins as decided.
    data: the `data` section, which is not read.
    pairs: all training pairs.

  Returns:
    Without `loss.denoise` the pairs as they are; else with other `chosen_prob`
    and `margin`, and which of them are learned from, int [M], None for all.

  Raises:
    ValueError: a pair has no strength.
  """
  del data
  config = loss.denoise
  if config is None:
    return pairs, None
  dataset = pairs.dataset
  missing = np.flatnonzero(np.isnan(dataset.strength))
  if missing.size:
    at = int(missing[0])
    record = next(itertools.islice(pairs.records, at, None))
    raise ValueError(
      f"loss.denoise needs a strength for every training pair; "
      f"{missing.size} of {len(dataset)} have none, the first is pair {at}, id "
      f"{record.id!r}, of source {record.source!r}: the denoise stage writes "
      "the same records with `strength`"
    )
  if not (dataset.strength < 0).any():
    log.warning(
      "no training pair has a strength below 0: is it an ensemble's mean gap?"
    )
  strength = jnp.asarray(dataset.strength)
  labels = dataset.chosen_prob
  if loss.labels == "hard":
    labels = np.ones_like(labels)
  made = denoised.targets(config, strength, chosen_prob=jnp.asarray(labels))
  new = np.array(made.chosen_prob)
  pairs = pairs._replace(
    dataset=dataclasses.replace(
      dataset,
      chosen_prob=new,
      margin=np.array(made.margin),
      has_margin=np.ones_like(dataset.has_margin),
    )
  )
  keep = np.asarray(denoised.kept(config, strength))
  log.info(
    "policy %s: %d of %d labels changed, %d pairs left out",
    config.policy,
    int((new != labels).sum()),
    len(keep),
    int((~keep).sum()),
  )
  return pairs, None if keep.all() else np.flatnonzero(keep)
