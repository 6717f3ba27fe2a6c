"""Mixture of K reward models for latent annotator groups, fitted by EM."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry
from jaxalign.algorithms.update import Batch, Metrics, Objective, Scalars
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
  """Number of latent groups, and how users are assigned to them.

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

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(("soft", "hard", "oracle"), assignment=self.assignment)
    checks.one_of(("learned", "uniform"), weights=self.weights)
    for name in (
      "num_components",
      "steps_per_round",
      "restarts",
      "restart_rounds",
      "min_pairs",
    ):
      if self.__dict__[name] < 1:
        raise ValueError(f"{name} must be >= 1, got {self.__dict__[name]}")
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
  def outputs(self) -> tuple[str, ...]:
    """Names of the heads."""
    return tuple(f"component_{k}" for k in range(self.num_components))


class Membership(NamedTuple):
  """Result of an E-step, fixed until the next; the objective's carry.

  Attributes:
    responsibilities: posterior of each latent group per user, [U, K].
    weights: share of each latent group among users, [K].
    log_likelihood: of all preferences under the rewards and weights that the
      last E-step was given, see `expectation.expectation`, [].
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


def mixture(
  apply: bradley_terry.RewardApply, config: MixtureConfig, *, dropout: bool
) -> Objective:
  """M-step: each head fits all pairs, weighted by its responsibility.

    L = mean over pairs n of Σ_k γ_u(n),k · −log σ(gap_nk)

  The responsibilities γ are frozen in the carry; `expectation` renews them
  between steps, from all pairs of a user and not from those of one batch.

  Args:
    apply: reward model with K outputs.
    config: K and the number of users.
    dropout: whether training drops out activations.

  Returns:
    The objective. Batches hold `annotator` int [B]; a pair without one
    counts for every head with the mixture weights. The pair metrics are means
    weighted by γ, so `train/nll` is the loss.
  """

  def context(
    num_pairs: jax.Array, carry: Membership
  ) -> tuple[Any, Membership, Scalars]:
    return (num_pairs, carry), carry, {}

  def loss(
    outputs: bradley_terry.PairOutputs, batch: Batch, context: Any
  ) -> tuple[jax.Array, Metrics]:
    num_pairs, membership = context
    user, where = batch["annotator"], batch["where"]
    share = jnp.where(
      (user >= 0)[:, None],
      membership.responsibilities[jnp.maximum(user, 0)],
      membership.weights[None],
    ).astype(outputs.chosen.dtype)
    share = jnp.where(where[:, None], share, 0.0)
    gaps = outputs.chosen - outputs.rejected
    per_head = losses.bradley_terry_loss(outputs.chosen, outputs.rejected)
    right = (jnp.sign(gaps) + 1) / 2
    level = (outputs.chosen + outputs.rejected) / 2
    count = jnp.sum(where, dtype=gaps.dtype)
    total = jnp.sum(share * per_head)
    metrics = {
      "train/nll": (total, count),
      "train/accuracy": (jnp.sum(share * right), count),
      "train/reward_gap": (jnp.sum(share * gaps), count),
      "train/reward_mean": (jnp.sum(share * level), count),
    }
    of_head = jnp.sum(share * per_head, axis=0), jnp.sum(share, axis=0)
    for k, name in enumerate(config.outputs):
      metrics[f"train/nll/{name}"] = of_head[0][k], of_head[1][k]
    return total / jnp.maximum(num_pairs.astype(gaps.dtype), 1), metrics

  users = checks.known(num_users=config.num_users)
  shape = users, config.num_components
  return Objective(
    bradley_terry.pair_forward(apply, dropout=dropout),
    bradley_terry.count_pairs,
    loss,
    context,
    start(jnp.full(shape, 1 / config.num_components)),
  )
