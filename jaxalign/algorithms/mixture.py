"""Mixture of K rewards for latent annotator groups: the M-step of EM."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, row_loss
from jaxalign.algorithms.update import Batch, Metrics, Objective
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
  """How many latent groups there are and how users are assigned to them.

  Attributes:
    name: of the recipe.
    num_components: K, the heads on the shared backbone.
    steps_per_round: optimiser steps of an M-step; an E-step follows each, and
      the last step.
    num_users: U, the annotators of the training data; None counts them.
    assignment: "soft" responsibilities, "hard" ones as in the paper, or
      "oracle": each user's known group for good, a bound on what can be found.
    weights: "learned", the mean responsibility, or "uniform".
    restarts: random first assignments to try, 1 for one.
    restart_rounds: rounds after which the most likely one goes on.
    min_pairs: users with fewer pairs than this share the mixture weights.
    separate: one reward model per latent group, as in the paper, and not K
      heads on one backbone; K times the memory and time.
    fresh_schedule: each round begins with the first step of the learning rate's
      schedule and without moments of the optimizer, as training anew would;
      the parameters go on. `steps_per_round` is then the schedule's length.
  """

  name: Literal["mixture"]
  num_components: int
  steps_per_round: int
  num_users: int | None = None
  assignment: str = "soft"
  weights: str = "learned"
  restarts: int = 1
  restart_rounds: int = 1
  min_pairs: int = 1
  separate: bool = False
  fresh_schedule: bool = False

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(("soft", "hard", "oracle"), assignment=self.assignment)
    checks.one_of(("learned", "uniform"), weights=self.weights)
    checks.at_least(
      1,
      num_components=self.num_components,
      steps_per_round=self.steps_per_round,
      restarts=self.restarts,
      restart_rounds=self.restart_rounds,
      min_pairs=self.min_pairs,
    )
    if self.num_users is not None and self.num_users < self.num_components:
      raise ValueError(
        f"num_users must be >= num_components, got {self.num_users} and "
        f"{self.num_components}"
      )
    if self.assignment == "oracle" and self.restarts > 1:
      raise ValueError(
        "restarts must be 1 with assignment='oracle', which has one start, got "
        f"{self.restarts}"
      )

  @property
  def schedule_steps(self) -> int | None:
    """Steps of one schedule of the learning rate, None for the whole run."""
    return self.steps_per_round if self.fresh_schedule else None

  def check_rounds(self, num_steps: int) -> None:
    """Raises ValueError where a fresh schedule would not come to its end."""
    if self.fresh_schedule and num_steps % self.steps_per_round:
      raise ValueError(
        "train.num_steps must be a multiple of steps_per_round with "
        f"fresh_schedule, got {num_steps} and {self.steps_per_round}"
      )

  @property
  def outputs(self) -> tuple[str, ...]:
    """Names of the heads."""
    return tuple(f"component_{k}" for k in range(self.num_components))


class Membership(NamedTuple):
  """Result of an E-step, fixed until the next; the objective's carry.

  Attributes:
    responsibilities: posterior of each latent group per user, [U, K].
    weights: share of each latent group among users, [K].
    log_likelihood: of all preferences under the rewards and weights that the
      last E-step was given, see `mixture_em.expectation`, [].
    reseeded: empty components that were given users so far, int32 [].
  """

  responsibilities: jax.Array
  weights: jax.Array
  log_likelihood: jax.Array
  reseeded: jax.Array


def start(responsibilities: jax.Array) -> Membership:
  """The membership before the first E-step.

  Args:
    responsibilities: rows on the simplex, float [U, K].

  Returns:
    It, with its mean as weights and a likelihood of −inf.
  """
  checks.rank(2, responsibilities=responsibilities)
  (given,) = checks.floating(responsibilities=responsibilities)
  return Membership(
    given,
    jnp.mean(given, axis=0),
    jnp.asarray(-jnp.inf, given.dtype),
    jnp.zeros((), jnp.int32),
  )


def mixture_rows(
  config: MixtureConfig,
  loss_config: bradley_terry.PairLossConfig = bradley_terry.PLAIN,
) -> row_loss.RowLoss:
  """Pairs under K heads, each as far as the pair's annotator belongs to it.

    l_n = Σ_k γ_u(n),k l_nk,   l_nk the configured pair loss under head k

  The responsibilities γ are frozen in the carry; `mixture_em.expectation`
  renews them between steps, from all pairs of a user and not from those of one
  batch. exp(−l_nk) is the likelihood of the pair that the E-step multiplies up,
  without centering, which is a penalty and no likelihood.

  Args:
    config: K and the number of users.
    loss_config: the loss of a pair under one head.

  Returns:
    The rows, of models with K outputs. Batches hold `annotator` int [B]; a pair
    by nobody counts for every head with the mixture weights. The pair metrics
    are means weighted by γ and those of plain pairs: `train/nll` is the loss
    where labels are hard and nothing is smoothed.
  """

  def prepare(batch: Batch, membership: Membership) -> Batch:
    user = batch["annotator"]
    share = jnp.where(
      (user >= 0)[:, None],
      membership.responsibilities[jnp.maximum(user, 0)],
      membership.weights[None],
    )
    share = jnp.where(batch["where"][:, None], share, 0.0)
    return {**batch, "responsibilities": share}

  def share_of(outputs: bradley_terry.PairOutputs, batch: Batch) -> jax.Array:
    return batch["responsibilities"].astype(outputs.chosen.dtype)

  def of_pair(outputs: bradley_terry.PairOutputs, batch: Batch) -> jax.Array:
    def of_head(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
      return bradley_terry.pair_losses(chosen, rejected, batch, loss_config)

    per_head = jax.vmap(of_head, in_axes=1, out_axes=1)(
      outputs.chosen, outputs.rejected
    )
    return jnp.sum(share_of(outputs, batch) * per_head, axis=1)

  def measured(outputs: bradley_terry.PairOutputs, batch: Batch) -> Metrics:
    share = share_of(outputs, batch)
    gaps = outputs.chosen - outputs.rejected
    plain = losses.bradley_terry_loss(outputs.chosen, outputs.rejected)
    right = (jnp.sign(gaps) + 1) / 2
    level = (outputs.chosen + outputs.rejected) / 2
    count = jnp.sum(batch["where"], dtype=gaps.dtype)
    metrics = {
      "train/nll": (jnp.sum(share * plain), count),
      "train/accuracy": (jnp.sum(share * right), count),
      "train/reward_gap": (jnp.sum(share * gaps), count),
      "train/reward_mean": (jnp.sum(share * level), count),
    }
    of_head = jnp.sum(share * plain, axis=0), jnp.sum(share, axis=0)
    for k, name in enumerate(config.outputs):
      metrics[f"train/nll/{name}"] = of_head[0][k], of_head[1][k]
    return metrics

  users = checks.known(num_users=config.num_users)
  shape = users, config.num_components
  return row_loss.RowLoss(
    of_pair,
    bradley_terry.count_pairs,
    measured,
    config.num_components,
    prepare,
    start(jnp.full(shape, 1 / config.num_components)),
  )


def mixture(
  apply: bradley_terry.RewardApply,
  config: MixtureConfig,
  loss_config: bradley_terry.PairLossConfig = bradley_terry.PLAIN,
  *,
  dropout: bool,
) -> Objective:
  """`mixture_rows`, averaged over the pairs of the whole batch.

    L = mean over pairs n of Σ_k γ_u(n),k l_nk

  Args:
    apply: reward model with K outputs.
    config: K and the number of users.
    loss_config: the loss of a pair under one head.
    dropout: whether training drops out activations.

  Returns:
    The objective; its carry is the membership.
  """
  rows = mixture_rows(config, loss_config)
  return row_loss.couple(
    bradley_terry.pair_forward(apply, dropout=dropout),
    rows,
    row_loss.mean(rows),
  )
