"""Table of recipes: the name in a config, its dataclass and what it makes."""

import functools
import operator
from typing import Any

from jaxalign.algorithms import (
  denoised,
  dprm,
  group_dro,
  mean_variance,
  metarm,
  mixture,
  more,
  personal_recipe,
)
from jaxalign.algorithms.bradley_terry import PairLossConfig
from jaxalign.experiments.reward_model import (
  feature_plane,
  fresh_responses,
  label_targets,
  mixture_rounds,
  personal_rounds,
  translated_views,
)
from jaxalign.experiments.reward_model import pair_recipes as pairs
from jaxalign.experiments.reward_model.recipe import Coupling, Entry, Recipe

ITSELF = ((), "it is a coupling itself")
VIEWS = ((), "its contrastive loss already couples all rows")
LATENT = (("more",), "it looks for the groups that this one has to know")
TABLE = {
  "bradley_terry": Entry(pairs.BradleyTerryConfig, pairs.make),
  "contrastive": Entry(
    translated_views.ContrastiveRecipeConfig, feature_plane.make, *VIEWS
  ),
  "denoised": Entry(denoised.DenoisedConfig, pairs.make_denoised),
  "dprm": Entry(dprm.DprmConfig, label_targets.make),
  "group_dro": Entry(group_dro.GroupDroConfig, pairs.make_coupled, *ITSELF),
  "mean_variance": Entry(mean_variance.MeanVarianceConfig, pairs.make_normal),
  "metarm": Entry(metarm.MetaRmConfig, fresh_responses.make),
  "mixture": Entry(mixture.MixtureConfig, mixture_rounds.make, *LATENT),
  "more": Entry(more.MoreConfig, pairs.make_coupled, *ITSELF),
  "personal": Entry(personal_recipe.PersonalRecipeConfig, personal_rounds.make),
}
Config = functools.reduce(operator.or_, (one.config for one in TABLE.values()))


def make(
  config: Any, loss: PairLossConfig, coupling: Coupling | None = None
) -> Recipe:
  """The recipe of a config's `recipe`, `loss` and `coupling` sections."""
  entry = TABLE[config.name]
  if coupling is not None:
    entry.check(config.name, coupling.name)
  return entry.make(config, loss, coupling)
