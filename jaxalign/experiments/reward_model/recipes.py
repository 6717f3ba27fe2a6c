"""The `recipe` section: which algorithm makes a reward model of preferences.

Each recipe is a dataclass whose `name` tells it from the others. Another
combination of the same terms is a few lines of Python, not another switch:
docs/recipes.md composes one.
"""

import dataclasses
from typing import Literal

import numpy as np

from jaxalign.algorithms import (
  bradley_terry,
  contrastive,
  denoised,
  dprm,
  group_dro,
  mean_variance,
  metarm,
  mixture,
  more,
  reward_readout,
  update,
)
from jaxalign.algorithms import optimizer as optimizers
from jaxalign.data.batching import loader
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import (
  fresh_responses,
  label_targets,
  strengths,
)
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.runtime.profiling import memory


@dataclasses.dataclass(frozen=True)
class BradleyTerryConfig:
  """One reward, one mean over all pairs.

  Attributes:
    name: of the recipe.
  """

  name: Literal["bradley_terry"]


Recipe = (
  BradleyTerryConfig
  | contrastive.ContrastiveConfig
  | denoised.DenoisedConfig
  | dprm.DprmConfig
  | group_dro.GroupDroConfig
  | mean_variance.MeanVarianceConfig
  | metarm.MetaRmConfig
  | more.MoreConfig
  | mixture.MixtureConfig
)


def outputs_of(recipe: Recipe) -> tuple[str, ...]:
  """Names of the outputs that the model needs."""
  match recipe:
    case dprm.DprmConfig():
      return recipe.labels.names
    case mean_variance.MeanVarianceConfig():
      return mean_variance.OUTPUTS
    case mixture.MixtureConfig():
      return recipe.outputs
    case _:
      return ("reward",)


def readout_of(recipe: Recipe) -> reward_readout.Readout:
  """How the model's outputs are read as rewards."""
  match recipe:
    case dprm.DprmConfig():
      return recipe.readout()
    case mean_variance.MeanVarianceConfig():
      return reward_readout.Readout("mean_variance")
    case _:
      return reward_readout.PLAIN


def label_cost_of(recipe: Recipe) -> tuple[tuple[float, ...], ...] | None:
  """Distance between the labels of a label model, None of any other."""
  match recipe:
    case dprm.DprmConfig():
      cost = np.asarray(recipe.labels.label_set().cost, np.float64)
      return tuple(tuple(row.tolist()) for row in cost)
    case _:
      return None


def batch_shapes(
  recipe: Recipe, batch_size: int, length: int
) -> dict[str, loader.ArraySpec]:
  """Shapes of a batch of `batch_size` pairs of `length` tokens."""
  shapes = loader.pair_shapes(batch_size, length)
  match recipe:
    case dprm.DprmConfig():
      num_labels = len(recipe.labels.names)
      return shapes | loader.label_shapes(batch_size, num_labels)
    case metarm.MetaRmConfig():
      return shapes | fresh_responses.shapes(recipe, length)
    case _:
      return shapes


def training_pairs(
  recipe: Recipe,
  loss: bradley_terry.PairLossConfig,
  data: preferences.DataConfig,
  pairs: preferences.Pairs,
) -> tuple[preferences.Pairs, np.ndarray | None]:
  """The training pairs as the recipe sees them.

  Args:
    recipe: the `recipe` section.
    loss: the `loss` section.
    data: the `data` section.
    pairs: all training pairs.

  Returns:
    The pairs and which of them are learned from, int [M], None for all.

  Raises:
    ValueError: the pairs lack what the recipe reads.
  """
  match recipe:
    case denoised.DenoisedConfig():
      return strengths.with_targets(recipe, loss, pairs)
    case dprm.DprmConfig():
      return label_targets.with_targets(recipe, data, pairs), None
    case _:
      return pairs, None


def objective_of(
  recipe: Recipe,
  loss: bradley_terry.PairLossConfig,
  model: heads.Model,
  network: DecoderConfig,
  *,
  batch_size: int,
) -> update.Objective:
  """What training optimises.

  Args:
    recipe: the `recipe` section.
    loss: the `loss` section: how a pair becomes a loss.
    model: reward model with the outputs of `outputs_of`.
    network: its description.
    batch_size: pairs per step over all devices.

  Returns:
    The objective.

  Raises:
    ValueError: the recipe does not go with what `loss` asks for.
  """
  dropout = network.dropout > 0
  match recipe:
    case BradleyTerryConfig() | metarm.MetaRmConfig():
      return bradley_terry.bradley_terry(model.apply, loss, dropout=dropout)
    case denoised.DenoisedConfig():
      return bradley_terry.bradley_terry(
        model.apply, denoised.pair_loss(loss), dropout=dropout
      )
    case dprm.DprmConfig():
      _own_loss(recipe.name, loss)
      return dprm.dprm(model.apply, recipe, dropout=dropout)
    case contrastive.ContrastiveConfig():
      return contrastive.contrastive(
        model.apply,
        recipe,
        loss,
        batch_size=batch_size,
        num_features=network.embed_dim,
        dropout=dropout,
      )
    case more.MoreConfig():
      return more.more(
        model.apply,
        recipe,
        loss,
        batch_size=batch_size,
        num_features=network.embed_dim,
        dropout=dropout,
      )
    case mean_variance.MeanVarianceConfig():
      _own_loss(recipe.name, loss)
      return mean_variance.mean_variance(model.apply, recipe, dropout=dropout)
    case group_dro.GroupDroConfig():
      return group_dro.group_dro(model.apply, recipe, loss, dropout=dropout)
    case mixture.MixtureConfig():
      _own_loss(recipe.name, loss)
      return mixture.mixture(model.apply, recipe, dropout=dropout)


def take_of(
  recipe: Recipe, model: heads.Model, optimizer: optimizers.OptimizerConfig
) -> update.Take:
  """Where and how a step takes its gradient."""
  match recipe:
    case metarm.MetaRmConfig():
      return metarm.lookahead(model.apply, recipe, optimizer)
    case _:
      return update.at_the_parameters


def passes_of(recipe: Recipe) -> memory.Passes:
  """What a step does with each array of tokens, for counting FLOPs."""
  match recipe:
    case contrastive.ContrastiveConfig():
      return {"tokens": ("forward_backward",) * contrastive.VIEWS}
    case metarm.MetaRmConfig():
      return metarm.passes(recipe)
    case _:
      return memory.TRAINING


def with_responses(
  pairs: loader.Batches,
  recipe: Recipe,
  data: preferences.DataConfig,
  tokenizer: Tokenizer,
  seed: int,
) -> loader.Batches | fresh_responses.Joined:
  """The pairs' batches, with what else the recipe learns from."""
  match recipe:
    case metarm.MetaRmConfig():
      return fresh_responses.join(pairs, recipe, data, tokenizer, seed)
    case _:
      return pairs


def pictures_features(recipe: Recipe) -> bool:
  """Whether the report shows features before and after training."""
  return isinstance(recipe, contrastive.ContrastiveConfig)


def _own_loss(name: str, loss: bradley_terry.PairLossConfig) -> None:
  """Refuses changes of the pair loss where the recipe does not read it."""
  plain = bradley_terry.PairLossConfig("hard", 0.0, None, 0.0)
  if loss != plain:
    raise ValueError(
      f"recipe {name!r} has a loss of its own: loss must be {plain}, got {loss}"
    )
