"""Direct preference optimisation of a policy: implicit rewards as row losses.

A policy is read as a reward model whose reward of a response is β times its
log-probability over that of a reference. Pair losses, labels, margins, mixtures
and couplings of reward models are then those of policies.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, mixture, row_loss
from jaxalign.algorithms.bradley_terry import PairLossConfig, PairOutputs
from jaxalign.algorithms.update import Batch, Metrics, Params


class Likelihood(NamedTuple):
  """What H policies make of the R responses of B rows.

  Attributes:
    log_probs: of whole responses, in nats, [B, R, H].
    features: gradient of a log-probability in a factor for each of the D
      numbers that the language head reads, taken at 1, [B, R, D]; D is 0 where
      no coupling reads them.
  """

  log_probs: jax.Array
  features: jax.Array


def answer_tokens(batch: Batch) -> jax.Array:
  """Which next tokens are of a response, bool [B, R, T - 1].

  Args:
    batch: `response` bool [B, R, T], True on the tokens of responses.
  """
  return batch["response"][..., 1:]


@dataclasses.dataclass(frozen=True)
class ImplicitReward:
  """How log-probabilities are read as rewards; see `losses.implicit_rewards`.

  Attributes:
    beta: reward units per nat, > 0.
    average: whether per token.
    reads_reference: whether relative to a reference.
  """

  beta: float
  average: bool = False
  reads_reference: bool = True

  def of(self, log_probs: jax.Array, batch: Batch) -> jax.Array:
    """Rewards [B, R, H] of log-probabilities [B, R, H].

    Args:
      log_probs: of H policies.
      batch: `response` and, where the reference is read, `ref_log_probs` [B, R]
        of the same responses.
    """
    shape, reference, lengths = log_probs.shape, None, None
    if self.reads_reference:
      reference = batch["ref_log_probs"].astype(log_probs.dtype)[..., None]
      reference = jnp.broadcast_to(reference, shape)
    if self.average:
      lengths = jnp.broadcast_to(self._lengths(batch)[..., None], shape)
    return losses.implicit_rewards(
      log_probs, beta=self.beta, ref_log_probs=reference, lengths=lengths
    )

  def slope(self, batch: Batch) -> jax.Array:
    """Derivative of each reward in its log-probability, [B, R]."""
    lengths = self._lengths(batch) if self.average else None
    ones = jnp.ones(batch["response"].shape[:2])
    return losses.implicit_rewards(ones, beta=self.beta, lengths=lengths)

  def _lengths(self, batch: Batch) -> jax.Array:
    return jnp.sum(answer_tokens(batch), axis=-1, dtype=jnp.int32)


Read = Callable[[Params, Batch], Likelihood]


def pair_forward(
  read: Read, reward: ImplicitReward
) -> Callable[[Params, Batch], PairOutputs]:
  """Implicit rewards of both responses of every pair.

  Args:
    read: both responses of all rows in one pass.
    reward: how likelihoods become rewards.

  Returns:
    `(params, batch) -> PairOutputs`; rows that do not count come out 0, with
    gradient 0.
  """

  def forward(params: Params, batch: Batch) -> PairOutputs:
    found, where = read(params, batch), batch["where"]

    # Before any loss, not after: a NaN there would survive in the gradient.
    def clean(x: jax.Array) -> jax.Array:
      return jnp.where(where[:, None, None], x, 0)

    rewards = reward.of(clean(found.log_probs), batch)
    slope = reward.slope(batch).astype(found.features.dtype)
    rewards, features = clean(rewards), clean(found.features * slope[..., None])
    return PairOutputs(
      rewards[:, 0], rewards[:, 1], features[:, 0], features[:, 1]
    )

  return forward


PairLoss = Callable[[jax.Array, jax.Array, Batch], jax.Array]


def direct_rows(loss: PairLoss) -> row_loss.RowLoss:
  """Pairs of one policy.

  Args:
    loss: `(chosen, rejected, batch) -> [B]`, of implicit rewards [B].

  Returns:
    The rows. Metrics are those of pairs of a reward model, and the mean
    implicit reward of either response: both may fall while their gap grows.
  """

  def of_pair(outputs: PairOutputs, batch: Batch) -> jax.Array:
    return loss(outputs.chosen[:, 0], outputs.rejected[:, 0], batch)

  def measured(outputs: PairOutputs, batch: Batch) -> Metrics:
    chosen, rejected = outputs.chosen[:, 0], outputs.rejected[:, 0]
    where = batch["where"]
    count = jnp.sum(where, dtype=chosen.dtype)
    return bradley_terry.pair_metrics(chosen, rejected, where) | {
      "train/chosen_reward": (jnp.sum(chosen, where=where), count),
      "train/rejected_reward": (jnp.sum(rejected, where=where), count),
    }

  return row_loss.RowLoss(of_pair, bradley_terry.count_pairs, measured)


def _check_beta(beta: float) -> None:
  if not beta > 0:
    raise ValueError(f"beta must be > 0, got {beta}")


@dataclasses.dataclass(frozen=True)
class LogRatioConfig:
  """A recipe whose rewards are log-ratios of a policy and its reference.

  Attributes:
    name: of the recipe.
    beta: reward units per nat of the log-ratio, > 0.
    average: log-ratios per token of a response.
  """

  name: str
  beta: float = 0.1
  average: bool = False

  def __post_init__(self) -> None:
    """Raises ValueError for a beta out of range."""
    _check_beta(self.beta)

  @property
  def reward(self) -> ImplicitReward:
    """How likelihoods are read."""
    return ImplicitReward(self.beta, self.average)


@dataclasses.dataclass(frozen=True)
class DpoConfig(LogRatioConfig):
  """DPO; with `loss.flip_rate` conservative DPO, with a margin that of ODPO."""

  name: Literal["dpo"]

  def rows(self, loss: PairLossConfig) -> row_loss.RowLoss:
    """The configured pair loss of implicit rewards."""
    return direct_rows(
      lambda chosen, rejected, batch: bradley_terry.pair_losses(
        chosen, rejected, batch, loss
      )
    )


@dataclasses.dataclass(frozen=True)
class RobustDpoConfig(LogRatioConfig):
  """Robust DPO: the unbiased estimate where labels flip at `loss.flip_rate`."""

  name: Literal["robust_dpo"]

  def rows(self, loss: PairLossConfig) -> row_loss.RowLoss:
    """The estimate, with the margin of `loss`.

    Raises:
      ValueError: labels are soft, denoised or centred.
    """
    if loss.labels != "hard" or loss.denoise is not None or loss.centering:
      raise ValueError(
        "recipe 'robust_dpo' corrects hard labels by loss.flip_rate alone: "
        "loss.labels must be 'hard', loss.denoise None and loss.centering 0, "
        f"got {loss.labels!r}, {loss.denoise} and {loss.centering}; recipe "
        "'dpo' takes them"
      )

    def of_pair(
      chosen: jax.Array, rejected: jax.Array, batch: Batch
    ) -> jax.Array:
      margin = _margin(chosen, batch, loss)
      return losses.robust_preference_loss(
        chosen, rejected, flip_rate=loss.flip_rate, margin=margin
      )

    return direct_rows(of_pair)


@dataclasses.dataclass(frozen=True)
class IpoConfig(LogRatioConfig):
  """IPO: a squared loss, whose gap stays finite where all agree.

  Attributes:
    name: of the recipe.
    beta: reward units per nat of the log-ratio, > 0; the paper's τ.
    average: log-ratios per token of a response, as TRL has them.
  """

  name: Literal["ipo"]

  def rows(self, loss: PairLossConfig) -> row_loss.RowLoss:
    """The squared loss, with labels and margins of `loss`.

    Raises:
      ValueError: rewards are to be centred.
    """
    if loss.centering:
      raise ValueError(
        f"recipe 'ipo' fixes the size of gaps: loss.centering must be 0, got "
        f"{loss.centering}"
      )

    def of_pair(
      chosen: jax.Array, rejected: jax.Array, batch: Batch
    ) -> jax.Array:
      label = loss.label(batch["chosen_prob"])
      prob = 1.0 if label is None else label.astype(chosen.dtype)
      margin = _margin(chosen, batch, loss)
      return losses.ipo_loss(
        chosen, rejected, beta=self.beta, chosen_prob=prob, margin=margin
      )

    return direct_rows(of_pair)


@dataclasses.dataclass(frozen=True)
class SimpoConfig:
  """SimPO: rewards per token, without a reference, beyond a margin.

  Attributes:
    name: of the recipe.
    beta: reward units per nat and token, > 0.
    gamma: gap that every pair must clear, in reward units, >= 0, beside the
      margins of `loss`.
  """

  name: Literal["simpo"]
  beta: float = 2.0
  gamma: float = 1.0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values out of range."""
    _check_beta(self.beta)
    if not self.gamma >= 0:
      raise ValueError(f"gamma must be >= 0, got {self.gamma}")

  @property
  def reward(self) -> ImplicitReward:
    """How likelihoods are read."""
    return ImplicitReward(self.beta, average=True, reads_reference=False)

  def rows(self, loss: PairLossConfig) -> row_loss.RowLoss:
    """The configured pair loss of implicit rewards that are gamma apart."""
    return direct_rows(
      lambda chosen, rejected, batch: bradley_terry.pair_losses(
        chosen - self.gamma, rejected, batch, loss
      )
    )


@dataclasses.dataclass(frozen=True)
class EmDpoConfig(LogRatioConfig, mixture.MixtureConfig):
  """EM-DPO: K policies for latent groups of annotators.

  Attributes:
    name: of the recipe.
    separate: always, as a policy has no heads.
  """

  name: Literal["em_dpo"]  # type: ignore[assignment]
  separate: bool = True

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    LogRatioConfig.__post_init__(self)
    mixture.MixtureConfig.__post_init__(self)
    if not self.separate:
      raise ValueError(
        "separate must be True in recipe 'em_dpo', whose policies have no heads"
      )

  def rows(self, loss: PairLossConfig) -> row_loss.RowLoss:
    """Pairs under K policies, each as far as their annotator belongs to it."""
    return mixture.mixture_rows(self, loss)


def _margin(
  chosen: jax.Array, batch: Batch, loss: PairLossConfig
) -> jax.Array | float:
  return batch["margin"].astype(chosen.dtype) if loss.uses_margin else 0.0
