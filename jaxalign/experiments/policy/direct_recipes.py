"""Table of direct recipes: how a policy is trained on preferences themselves.

Losses, labels, couplings and E-steps are those of reward models; what is other
is where the reward of a response comes from.
"""

import functools
import operator
from typing import Any

from jaxalign.algorithms import direct_preference as direct
from jaxalign.algorithms import unpaired_preference, update
from jaxalign.algorithms.bradley_terry import PairLossConfig
from jaxalign.data.batching import loader
from jaxalign.data.records import unpaired
from jaxalign.experiments.policy import pair_likelihood
from jaxalign.experiments.reward_model import (
  mixture_rounds,
  pair_recipes,
  recipe,
)
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig


def make_pairs(
  config: Any, loss: PairLossConfig, coupling: recipe.Coupling | None
) -> recipe.Recipe:
  """One policy.

  Args:
    config: the `recipe` section.
    loss: the `loss` section, of implicit rewards.
    coupling: how pairs are weighed, None for their mean.

  Returns:
    The recipe.

  Raises:
    ValueError: recipe and loss do not go together.
  """
  config.rows(loss)  # what does not go together ends the run here
  features = coupling is not None and coupling.reads_features

  def forward(model: heads.Model, network: DecoderConfig) -> recipe.Forward:
    read = pair_likelihood.reader(
      network, model, dropout=network.dropout > 0, features=features
    )
    return direct.pair_forward(read, config.reward)

  return recipe.Recipe(
    recipe.coupled(lambda: config.rows(loss), coupling, forward),
    outputs=("policy",),
    batch_shapes=loader.policy_shapes,
    prepare_pairs=functools.partial(pair_recipes.with_targets, loss),
  )


def make_mixture(
  config: direct.EmDpoConfig,
  loss: PairLossConfig,
  coupling: recipe.Coupling | None,
) -> recipe.Recipe:
  """K policies for latent groups, by expectation maximisation.

  Args:
    config: the `recipe` section.
    loss: the `loss` section, of a pair under one policy.
    coupling: how pairs are weighed, None for their mean.

  Returns:
    The recipe.
  """
  copies = config.num_components

  def forward(model: heads.Model, network: DecoderConfig) -> recipe.Forward:
    read = pair_likelihood.reader(
      network, model, dropout=network.dropout > 0, copies=copies
    )
    return direct.pair_forward(read, config.reward)

  return recipe.Recipe(
    recipe.coupled(lambda: config.rows(loss), coupling, forward),
    outputs=config.outputs,
    copies=copies,
    schedule_steps=config.schedule_steps,
    passes={"tokens": ("forward_backward",) * copies},
    batch_shapes=loader.policy_shapes,
    prepare_pairs=functools.partial(pair_recipes.with_targets, loss),
    hooks=functools.partial(mixture_rounds.Rounds, config, loss),
  )


def make_unpaired(
  config: unpaired_preference.KtoConfig, loss: PairLossConfig, coupling: None
) -> recipe.Recipe:
  """One policy of single responses.

  Args:
    config: the `recipe` section.
    loss: the `loss` section, which must be left as it is.
    coupling: None; the table refuses others.

  Returns:
    The recipe.
  """
  del coupling
  recipe.refuse_other_losses(config.name, loss)

  def objective(
    model: heads.Model, network: DecoderConfig, batch_size: int
  ) -> update.Objective:
    del batch_size
    read = pair_likelihood.reader(network, model, dropout=network.dropout > 0)
    return unpaired_preference.kto(
      direct.pair_forward(read, config.reward), config
    )

  return recipe.Recipe(
    objective,
    outputs=("policy",),
    batch_shapes=loader.policy_shapes,
    change=functools.partial(
      unpaired.UnpairedStream, rating=config.rating, threshold=config.threshold
    ),
  )


Entry = functools.partial(recipe.Entry, plain="dpo")
ALONE = ((), "its policies share no parameters and it looks for groups itself")
POINT = ((), "its reference point couples all responses of a batch")
TABLE = {
  "dpo": Entry(direct.DpoConfig, make_pairs),
  "em_dpo": Entry(direct.EmDpoConfig, make_mixture, *ALONE),
  "ipo": Entry(direct.IpoConfig, make_pairs),
  "kto": Entry(unpaired_preference.KtoConfig, make_unpaired, *POINT),
  "robust_dpo": Entry(direct.RobustDpoConfig, make_pairs),
  "simpo": Entry(direct.SimpoConfig, make_pairs),
}
Config = functools.reduce(operator.or_, (one.config for one in TABLE.values()))


def make(
  config: Any, loss: PairLossConfig, coupling: recipe.Coupling | None = None
) -> recipe.Recipe:
  """The recipe of a config's `recipe`, `loss` and `coupling` sections."""
  entry = TABLE[config.name]
  if coupling is not None:
    entry.check(config.name, coupling.name)
  return entry.make(config, loss, coupling)
