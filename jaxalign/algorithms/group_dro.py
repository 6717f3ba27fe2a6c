"""Group DRO: one reward model, weighted towards the group it fits worst."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, row_loss
from jaxalign.algorithms.update import Batch, Objective, Outputs, Scalars
from jaxalign.ops import checks, segment_sum


@dataclasses.dataclass(frozen=True)
class GroupDroConfig:
  """How the groups of a batch are weighted.

  Attributes:
    name: of the recipe.
    num_groups: G, the groups of the training data; None counts them.
    step_size: η >= 0 of the weights per nat of a group's loss; 0 keeps all
      groups equal.
  """

  name: Literal["group_dro"]
  num_groups: int | None = None
  step_size: float = 0.01

  reads_features: ClassVar[bool] = False  # of what a head reads

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values out of range."""
    checks.at_least(1, num_groups=self.num_groups)
    checks.at_least(0, step_size=self.step_size)

  def couple(
    self, rows: row_loss.RowLoss, *, batch_size: int, num_features: int
  ) -> row_loss.Coupling:
    """Rows weighed by group; see `weighted_groups`."""
    del batch_size, num_features
    return weighted_groups(rows, self)


class GroupSums(NamedTuple):
  """The statistics: summed losses and numbers of terms, [G] each."""

  losses: jax.Array
  counts: jax.Array


def weighted_groups(
  rows: row_loss.RowLoss, config: GroupDroConfig
) -> row_loss.Coupling:
  """Losses by group, the worse a group fares the more it weighs.

    L = Σ_g w_g mean over terms of g of l;  w_g ← w_g exp(η mean_g l) / Z

  The weights are updated before they are used.

  Args:
    rows: what each row costs, in any unit.
    config: number of groups and step of the weights.

  Returns:
    The coupling. Batches hold `group` int [B]; a row of no group counts for
    nothing, and a group absent from a batch adds no loss and is not weighed up.
    The weights are in the carry and reported.

  References:
    Sagawa et al., "Distributionally robust neural networks for group shifts",
    2020, algorithm 1.
  """
  groups = checks.known(num_groups=config.num_groups)

  def statistics(outputs: Outputs, batch: Batch) -> GroupSums:
    per_row = rows.losses(outputs, batch)

    def total(x: jax.Array) -> jax.Array:
      return segment_sum(
        x, segment=batch["group"], num_segments=groups, where=batch["where"]
      )

    return GroupSums(
      total(per_row), total(rows.counts(batch).astype(per_row.dtype))
    )

  def context(
    sums: GroupSums, carry: jax.Array
  ) -> tuple[Any, jax.Array, Scalars]:
    counts = jnp.maximum(sums.counts, 1)
    weights = losses.exponentiated_weights(
      carry, -sums.losses / counts, step_size=config.step_size
    ).astype(carry.dtype)
    scalars = {f"train/group_weight/{g}": weights[g] for g in range(groups)}
    for g in range(groups):
      scalars[f"train/group_loss/{g}"] = sums.losses[g] / counts[g]
    return weights / counts, weights, scalars

  def shares(context: jax.Array, batch: Batch) -> jax.Array:
    group = batch["group"]
    return jnp.where(group >= 0, context[jnp.maximum(group, 0)], 0.0)

  return row_loss.Coupling(
    statistics, context, shares, jnp.full(groups, 1 / groups)
  )


def group_dro(
  apply: bradley_terry.RewardApply,
  config: GroupDroConfig,
  loss_config: bradley_terry.PairLossConfig,
  *,
  dropout: bool,
) -> Objective:
  """`weighted_groups` of pairs.

  Args:
    apply: reward model with one output.
    config: number of groups and step of the weights.
    loss_config: the loss of a pair.
    dropout: whether training drops out activations.

  Returns:
    The objective.
  """
  rows = bradley_terry.pair_rows(loss_config)
  return row_loss.couple(
    bradley_terry.pair_forward(apply, dropout=dropout),
    rows,
    weighted_groups(rows, config),
  )
