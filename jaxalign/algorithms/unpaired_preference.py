"""KTO: a policy from single responses that were wanted or not.

A row has two responses to one prompt: the labelled one, and a response to
another prompt, whose log-ratio says how far the policy is from the reference on
text that it was not taught.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms import direct_preference as direct
from jaxalign.algorithms.update import (
  Batch,
  Metrics,
  Objective,
  Params,
  Scalars,
)
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class KtoConfig(direct.LogRatioConfig):
  """KTO: single responses against what the policy gives on average.

  Attributes:
    name: of the recipe.
    beta: reward units per nat of the log-ratio, > 0.
    average: log-ratios per token of a response.
    rating: attribute of `ratings` that says what a single response is worth;
      that of TRL's column `label` is "desirable". Of two responses or more the
      order says it.
    threshold: ratings from it on are wanted.
    desirable_weight: λ_D >= 0, of wanted responses.
    undesirable_weight: λ_U >= 0, of others. Where one kind is rarer its weight
      times its number should be 1 to 4/3 of the other's.
  """

  name: Literal["kto"]
  rating: str = "desirable"
  threshold: float = 0.5
  desirable_weight: float = 1.0
  undesirable_weight: float = 1.0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values out of range."""
    super().__post_init__()
    checks.at_least(
      0,
      desirable_weight=self.desirable_weight,
      undesirable_weight=self.undesirable_weight,
    )


def kto(
  forward: Callable[[Params, Batch], bradley_terry.PairOutputs],
  config: KtoConfig,
) -> Objective:
  """KTO over the whole batch.

    L = mean over rows of l(r_n, z),   z = max(0, mean over rows of r'_n)

  with `losses.kto_loss` and the implicit rewards r of labelled and r' of
  mismatched responses. z is constant in the parameters.

  Args:
    forward: of `direct_preference.pair_forward`; the labelled response is
      "chosen", the mismatched one "rejected".
    config: weights.

  Returns:
    The objective; batches hold `chosen_prob` [B], the share for which the
    labelled response is wanted. Reported: z / β as `train/kl`, the mean reward
    of wanted and unwanted responses, and `train/accuracy`, how often a response
    is on the side of z that its label says.

  References:
    Ethayarajh et al., "KTO: model alignment as prospect theoretic
    optimization", 2024, equations 7 and 8.
  """

  def statistics(
    outputs: bradley_terry.PairOutputs, batch: Batch
  ) -> tuple[jax.Array, jax.Array]:
    where = batch["where"]
    others = outputs.rejected[:, 0]
    return jnp.sum(others, where=where), jnp.sum(where, dtype=others.dtype)

  def context(
    sums: tuple[jax.Array, jax.Array], carry: Any
  ) -> tuple[tuple[jax.Array, jax.Array], Any, Scalars]:
    total, number = sums
    number = jnp.maximum(number, 1)
    point = jnp.maximum(total / number, 0)
    return (point, number), carry, {"train/kl": point / config.beta}

  def loss(
    outputs: bradley_terry.PairOutputs,
    batch: Batch,
    context: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, Metrics]:
    point, number = context
    rewards, where = outputs.chosen[:, 0], batch["where"]
    wanted = batch["chosen_prob"].astype(rewards.dtype)
    per_row = losses.kto_loss(
      rewards,
      reference_point=point.astype(rewards.dtype),
      desirable=wanted,
      desirable_weight=config.desirable_weight,
      undesirable_weight=config.undesirable_weight,
    )
    counted = where.astype(rewards.dtype)
    right = jnp.where(rewards > point, wanted, 1 - wanted)
    by_share = {
      "train/accuracy": (right, counted),
      "train/desirable_reward": (rewards, counted * wanted),
      "train/undesirable_reward": (rewards, counted * (1 - wanted)),
    }
    metrics: Metrics = {
      name: (jnp.sum(values * share), jnp.sum(share))
      for name, (values, share) in by_share.items()
    }
    return jnp.sum(per_row, where=where) / number.astype(rewards.dtype), metrics

  return Objective(forward, statistics, loss, context)
