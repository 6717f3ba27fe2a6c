"""Group DRO: one reward model, weighted towards the group it fits worst."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms.update import Batch, Metrics, Objective, Scalars
from jaxalign.ops import checks, segment_count, segment_sum


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

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values out of range."""
    if self.num_groups is not None and self.num_groups < 1:
      raise ValueError(f"num_groups must be >= 1, got {self.num_groups}")
    if not self.step_size >= 0:
      raise ValueError(f"step_size must be >= 0, got {self.step_size}")


class GroupSums(NamedTuple):
  """The statistics: summed losses in nats and numbers of pairs, [G] each."""

  losses: jax.Array
  counts: jax.Array


def group_dro(
  apply: bradley_terry.RewardApply,
  config: GroupDroConfig,
  loss_config: bradley_terry.PairLossConfig,
  *,
  dropout: bool,
) -> Objective:
  """Pair losses by group; a group with a higher loss gets more weight.

    L = Σ_g w_g mean over pairs of g of l;  w_g ← w_g exp(η mean_g l) / Z

  The weights are updated before they are used.

  Args:
    apply: reward model with one output.
    config: number of groups and step of the weights.
    loss_config: the loss of a pair.
    dropout: whether training drops out activations.

  Returns:
    The objective. Batches hold `group` int [B]; a pair of no group counts for
    nothing, and a group absent from a batch adds no loss and is not weighed up.
    The weights are in the carry and reported.

  References:
    Sagawa et al., "Distributionally robust neural networks for group shifts",
    2020, algorithm 1.
  """
  groups = checks.known(num_groups=config.num_groups)

  def statistics(outputs: bradley_terry.PairOutputs, batch: Batch) -> GroupSums:
    per_pair = bradley_terry.pair_losses(
      outputs.chosen[:, 0], outputs.rejected[:, 0], batch, loss_config
    )
    group, where = batch["group"], batch["where"]
    total = segment_sum(
      per_pair, segment=group, num_segments=groups, where=where
    )
    counts = segment_count(group, num_segments=groups, where=where)
    return GroupSums(total, counts.astype(per_pair.dtype))

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
    return (weights, counts), weights, scalars

  def loss(
    outputs: bradley_terry.PairOutputs, batch: Batch, context: Any
  ) -> tuple[jax.Array, Metrics]:
    weights, counts = context
    chosen, rejected = outputs.chosen[:, 0], outputs.rejected[:, 0]
    per_pair = bradley_terry.pair_losses(chosen, rejected, batch, loss_config)
    group = batch["group"]
    share = (weights / counts)[jnp.maximum(group, 0)].astype(per_pair.dtype)
    total = jnp.sum(share * per_pair, where=batch["where"] & (group >= 0))
    return total, bradley_terry.pair_metrics(chosen, rejected, batch["where"])

  return Objective(
    bradley_terry.pair_forward(apply, dropout=dropout),
    statistics,
    loss,
    context,
    jnp.full(groups, 1 / groups),
  )
