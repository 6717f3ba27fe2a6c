"""Mean-variance reward model: a Gaussian reward, spread learnt from votes."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, row_loss
from jaxalign.algorithms.update import Batch, Metrics, Objective
from jaxalign.ops import checks

OUTPUTS = ("mean", "log_std")


@dataclasses.dataclass(frozen=True)
class MeanVarianceConfig:
  """A normal reward per response.

  Attributes:
    name: of the recipe.
    anchor: weight of log_std² of both responses, > 0: the likelihood alone does
      not know the scale of rewards, and this keeps deviations near 1.
  """

  name: Literal["mean_variance"]
  anchor: float = 0.01

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.above(0, anchor=self.anchor)


def normal_rows(config: MeanVarianceConfig) -> row_loss.RowLoss:
  """Pairs of independent normal rewards.

    l = −log Φ((μ_c − μ_r) / sqrt(σ_c² + σ_r²)) + anchor · Σ (log σ)²

  Args:
    config: the anchor.

  Returns:
    The rows, of models with the two outputs of `OUTPUTS`. `train/nll` and
    `train/accuracy` are those of the means as plain rewards; `train/log_std` is
    the mean over both responses.

  References:
    Siththaranjan et al., "Distributional preference learning: understanding
    and accounting for hidden context in RLHF", 2023, section 4.
  """

  def of_pair(outputs: bradley_terry.PairOutputs, batch: Batch) -> jax.Array:
    del batch
    log_std = outputs.chosen[:, 1], outputs.rejected[:, 1]
    per_pair = losses.mean_variance_loss(
      outputs.chosen[:, 0], outputs.rejected[:, 0], *log_std
    )
    return per_pair + config.anchor * (
      jnp.square(log_std[0]) + jnp.square(log_std[1])
    )

  def measured(outputs: bradley_terry.PairOutputs, batch: Batch) -> Metrics:
    where = batch["where"]
    metrics = bradley_terry.pair_metrics(
      outputs.chosen[:, 0], outputs.rejected[:, 0], where
    )
    level = (outputs.chosen[:, 1] + outputs.rejected[:, 1]) / 2
    metrics["train/log_std"] = (
      jnp.sum(level, where=where),
      jnp.sum(where, dtype=level.dtype),
    )
    return metrics

  return row_loss.RowLoss(
    of_pair, bradley_terry.count_pairs, measured, len(OUTPUTS)
  )


def mean_variance(
  apply: bradley_terry.RewardApply, config: MeanVarianceConfig, *, dropout: bool
) -> Objective:
  """`normal_rows`, averaged over the pairs of the whole batch.

  Args:
    apply: reward model with the two outputs of `OUTPUTS`.
    config: the anchor.
    dropout: whether training drops out activations.

  Returns:
    The objective.
  """
  rows = normal_rows(config)
  return row_loss.couple(
    bradley_terry.pair_forward(apply, dropout=dropout),
    rows,
    row_loss.mean(rows),
  )
