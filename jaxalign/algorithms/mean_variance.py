"""Mean-variance reward model: a Gaussian reward, spread learnt from votes."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms.update import Batch, Metrics, Objective

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
    if not self.anchor > 0:
      raise ValueError(f"anchor must be > 0, got {self.anchor}")


def mean_variance(
  apply: bradley_terry.RewardApply, config: MeanVarianceConfig, *, dropout: bool
) -> Objective:
  """The likelihood of pairs under independent normal rewards.

    l = −log Φ((μ_c − μ_r) / sqrt(σ_c² + σ_r²)) + anchor · Σ (log σ)²

  Args:
    apply: reward model with the two outputs of `OUTPUTS`.
    config: the anchor.
    dropout: whether training drops out activations.

  Returns:
    The objective, a mean over the pairs of the whole batch. `train/nll` and
    `train/accuracy` are those of the means as plain rewards; `train/log_std` is
    the mean over both responses.

  References:
    Siththaranjan et al., "Distributional preference learning: understanding
    and accounting for hidden context in RLHF", 2023, section 4.
  """

  def loss(
    outputs: bradley_terry.PairOutputs, batch: Batch, num_pairs: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    where = batch["where"]
    log_std = outputs.chosen[:, 1], outputs.rejected[:, 1]
    means = outputs.chosen[:, 0], outputs.rejected[:, 0]
    per_pair = losses.mean_variance_loss(*means, *log_std)
    per_pair += config.anchor * (
      jnp.square(log_std[0]) + jnp.square(log_std[1])
    )
    total = jnp.sum(per_pair, where=where)
    count = jnp.sum(where, dtype=total.dtype)
    metrics = bradley_terry.pair_metrics(*means, where)
    metrics["train/log_std"] = (
      jnp.sum((log_std[0] + log_std[1]) / 2, where=where),
      count,
    )
    return total / jnp.maximum(num_pairs.astype(total.dtype), 1), metrics

  return Objective(
    bradley_terry.pair_forward(apply, dropout=dropout),
    bradley_terry.count_pairs,
    loss,
  )
