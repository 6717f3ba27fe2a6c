"""Personal rewards of a network: a shared reward and factors people differ in.

The reward of person u for a text is r + z·a_u: the network puts out r and the R
factors z, and a_u ~ N(0, 1) are u's own R numbers. Steps of the optimizer learn
the network, with everybody's place held as a normal distribution; between them
`expectation` places everybody anew, by all of their pairs.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import (
  bradley_terry,
  personal_rewards,
  reward_readout,
  row_loss,
)
from jaxalign.algorithms.update import Batch, Metrics, Objective, Scalars
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class PersonalRecipeConfig:
  """In how many ways people differ, and how they are placed.

  Attributes:
    name: of the recipe.
    kind: "low_rank", where a person's reward is the shared one and a mixture of
      the factors; or "ideal_points", where it falls with the squared distance
      of the factors from a point of the person's own, as in PAL.
    rank: R, factors beside the shared reward.
    steps_per_round: optimiser steps after which everybody is placed anew, by
      all their pairs; so they are after the last step.
    num_users: U, the annotators of the training data; None counts them.
    pull: penalty of half the squared gaps of the factors, per pair, >= 0; what
      holds people together beside the prior of their places, whose variance is
      1, as factors have no scale of their own.
    save_people: write people.jsonl into the folder of the run, with the name
      and the place of each annotator, which nothing else holds but checkpoints.
  """

  name: Literal["personal"]
  kind: str = "low_rank"
  rank: int = 4
  steps_per_round: int = 30
  num_users: int | None = None
  pull: float = 0.0
  save_people: bool = False

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(reward_readout.PERSONAL, kind=self.kind)
    checks.at_least(1, rank=self.rank, steps_per_round=self.steps_per_round)
    checks.at_least(0, pull=self.pull)

  @property
  def outputs(self) -> tuple[str, ...]:
    """Names of what the network puts out."""
    return "shared", *(f"factor_{k}" for k in range(self.rank))

  def readout(self) -> reward_readout.Readout:
    """The shared reward, which is that of somebody unknown."""
    return reward_readout.Readout(self.kind)


class Places(NamedTuple):
  """Where everybody is, fixed until the next round; the objective's carry.

  Attributes:
    mean: [U, R].
    covariance: [U, R, R].
    log_evidence: of all preferences in nats, by Laplace's method, under the
      network that people were last placed by; [].
  """

  mean: jax.Array
  covariance: jax.Array
  log_evidence: jax.Array


def start(mean: jax.Array) -> Places:
  """Places before the first round: given, and sure.

  Random ones, as with none the factors would be of no use to anybody and so
  would not be learned.

  Args:
    mean: float [U, R].

  Returns:
    Them with a covariance of 0 and an evidence of −inf.
  """
  checks.rank(2, mean=mean)
  (mean,) = checks.floating(mean=mean)
  return Places(
    mean,
    jnp.zeros((*mean.shape, mean.shape[1]), mean.dtype),
    jnp.asarray(-jnp.inf, mean.dtype),
  )


def personal_rows(
  config: PersonalRecipeConfig,
  loss_config: bradley_terry.PairLossConfig = bradley_terry.PLAIN,
) -> row_loss.RowLoss:
  """Pairs under the rewards of those who stated them.

    l_n = E[loss of gap_n + d_n·a_u(n)] + ½ pull |d_n|²,   a_u ~ N(mean_u, Σ_u)

  with `losses.expected_preference_loss` for the expectation and d the gap of
  the factors. A pair by nobody is of a person without pairs, at the prior.

  Args:
    config: kind, factors and the number of users.
    loss_config: labels, smoothing, margin and centering of a pair.

  Returns:
    The rows, of models with 1 + R outputs. Batches hold `annotator` int [B].
    The pair metrics are those of everybody's own reward at the mean of their
    place; `train/nll/shared` and `train/accuracy/shared` are of the reward that
    they share.
  """

  def prepare(batch: Batch, places: Places) -> Batch:
    placed = personal_rewards.Placed(places.mean, places.covariance)
    user = jnp.where(batch["where"], batch["annotator"], -1)
    own = personal_rewards.of_pairs(placed, user)
    return {**batch, "place": own.mean, "place_covariance": own.covariance}

  def read(
    outputs: bradley_terry.PairOutputs, batch: Batch
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shared rewards of both, [B] each, and the gap of the factors, [B, R]."""
    shared = [
      reward_readout.shared_reward(side, config.kind)
      for side in (outputs.chosen, outputs.rejected)
    ]
    return shared[0], shared[1], outputs.chosen[:, 1:] - outputs.rejected[:, 1:]

  def of_pair(outputs: bradley_terry.PairOutputs, batch: Batch) -> jax.Array:
    chosen, rejected, apart = read(outputs, batch)
    dtype = chosen.dtype
    own = jnp.sum(apart * batch["place"].astype(dtype), axis=1)
    turned = jnp.sum(
      batch["place_covariance"].astype(dtype) * apart[:, None], axis=2
    )
    label = loss_config.label(batch["chosen_prob"].astype(dtype))
    per_pair = losses.expected_preference_loss(
      chosen + own,
      rejected,
      jnp.sum(apart * turned, axis=1),
      chosen_prob=1.0 if label is None else label,
      margin=batch["margin"].astype(dtype) if loss_config.uses_margin else 0.0,
    )
    if loss_config.centering:
      penalty = losses.reward_centering_penalty(chosen, rejected)
      per_pair = per_pair + loss_config.centering * penalty
    if config.pull:
      per_pair = per_pair + config.pull / 2 * jnp.sum(apart * apart, axis=1)
    return per_pair

  def measured(outputs: bradley_terry.PairOutputs, batch: Batch) -> Metrics:
    chosen, rejected, apart = read(outputs, batch)
    own = jnp.sum(apart * batch["place"].astype(chosen.dtype), axis=1)
    # Half to either side, so that the level is that of the shared reward.
    metrics = bradley_terry.pair_metrics(
      chosen + own / 2, rejected - own / 2, batch["where"]
    )
    shared = bradley_terry.pair_metrics(chosen, rejected, batch["where"])
    for name in ("train/nll", "train/accuracy"):
      metrics[f"{name}/shared"] = shared[name]
    return metrics

  users = checks.known(num_users=config.num_users)
  return row_loss.RowLoss(
    of_pair,
    bradley_terry.count_pairs,
    measured,
    1 + config.rank,
    prepare,
    start(jnp.zeros((users, config.rank))),
  )


def personal(
  apply: bradley_terry.RewardApply,
  config: PersonalRecipeConfig,
  loss_config: bradley_terry.PairLossConfig = bradley_terry.PLAIN,
  *,
  dropout: bool,
) -> Objective:
  """`personal_rows`, averaged over the pairs of the whole batch.

  Args:
    apply: reward model with 1 + R outputs.
    config: kind, factors and the number of users.
    loss_config: labels, smoothing, margin and centering of a pair.
    dropout: whether training drops out activations.

  Returns:
    The objective; its carry is `Places`.
  """
  rows = personal_rows(config, loss_config)
  return row_loss.couple(
    bradley_terry.pair_forward(apply, dropout=dropout),
    rows,
    row_loss.mean(rows),
  )


def expectation(
  gaps: jax.Array,
  apart: jax.Array,
  *,
  user: jax.Array,
  num_users: int,
  chosen_prob: jax.Array | None = None,
) -> tuple[Places, Scalars]:
  """Everybody's place by all that they have said, and what it explains.

    log p ≈ Σ_u [log-likelihood at the mean − ½ |mean_u|² + ½ log |Σ_u|]

  Args:
    gaps: shared reward of the chosen minus the rejected text for all training
      pairs, float [N].
    apart: the same of the factors, float [N, R].
    user: who stated each preference, int [N]; outside [0, num_users) nobody.
    num_users: U, a Python int.
    chosen_prob: soft label of each pair, float [N]; None for 1.

  Returns:
    The places for the next round, and scalars by name: the evidence per pair,
    the root mean square of a person's numbers, and the share of squared gaps
    that is personal.
  """
  placed = personal_rewards.place_people(
    gaps, apart, user=user, num_users=num_users, chosen_prob=chosen_prob
  )
  own = jnp.sum(apart * personal_rewards.of_pairs(placed, user).mean, axis=1)
  known = (user >= 0) & (user < num_users)
  prob = 1.0 if chosen_prob is None else chosen_prob.astype(gaps.dtype)
  said = losses.soft_preference_loss(
    gaps + own, jnp.zeros_like(gaps), chosen_prob=prob
  )
  evidence = (
    jnp.linalg.slogdet(placed.covariance)[1].sum() / 2
    - jnp.sum(said, where=known)
    - jnp.sum(placed.mean * placed.mean) / 2
  )
  number = jnp.maximum(jnp.sum(known, dtype=gaps.dtype), 1)
  personal_part = jnp.sum(own * own, where=known)
  whole = personal_part + jnp.sum(gaps * gaps, where=known)
  scalars = {
    "people/log_evidence_per_pair": evidence / number,
    "people/size": jnp.sqrt(jnp.mean(placed.mean * placed.mean)),
    "people/personal_share": personal_part / jnp.maximum(whole, 1e-12),
  }
  return Places(placed.mean, placed.covariance, evidence), scalars
