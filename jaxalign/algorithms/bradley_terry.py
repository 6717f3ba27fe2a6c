"""Bradley-Terry reward learning: one forward pass over chosen and rejected."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxalign import losses, metrics
from jaxalign.algorithms import row_loss
from jaxalign.algorithms.denoised import DenoiseConfig
from jaxalign.algorithms.update import Batch, Metrics, Objective, Params
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class PairLossConfig:
  """Loss of a pair: margin, smoothing, centring and the form of the label.

  Attributes:
    labels: "hard" takes every pair as decided; "votes" fits the share of votes
      for the chosen response, ties counted half.
    flip_rate: assumed share of mislabelled pairs, [0, 0.5); "hard" only.
    margin: None, or "column" for the record's margin in reward units.
    centering: weight of (r_chosen + r_rejected)², 0 for none.
    denoise: labels and margins by the pairs' strengths, which the denoise stage
      writes; None for labels and margins as they are recorded. `labels` says
      where the labels begin.
  """

  labels: str = "hard"
  flip_rate: float = 0.0
  margin: str | None = None
  centering: float = 0.0
  denoise: DenoiseConfig | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(("hard", "votes"), labels=self.labels)
    if self.margin is not None:
      checks.one_of(("column",), margin=self.margin)
    if not 0 <= self.flip_rate < 0.5:
      raise ValueError(f"flip_rate must be in [0, 0.5), got {self.flip_rate}")
    if self.labels == "votes" and self.flip_rate != 0:
      raise ValueError(
        f"flip_rate must be 0 with labels='votes', got {self.flip_rate}: votes "
        "already say how often the label is wrong"
      )
    checks.at_least(0, centering=self.centering)
    if self.denoise and (self.flip_rate != 0 or self.margin is not None):
      raise ValueError(
        "denoise sets labels and margins by its policy: flip_rate must be 0 "
        f"and margin None beside it, got {self.flip_rate} and {self.margin!r}"
      )

  @property
  def uses_margin(self) -> bool:
    """Whether a pair's margin is read."""
    return self.margin is not None or self.denoise is not None

  def label(self, chosen_prob: jax.Array) -> jax.Array | None:
    """What a pair is taught of recorded or denoised shares of votes.

    Args:
      chosen_prob: share of votes for the chosen response, any shape.

    Returns:
      p of −p log σ(d) − (1 − p) log σ(−d), the same shape; None for 1.
    """
    if self.labels == "votes" or self.denoise is not None:
      return chosen_prob
    if self.flip_rate:
      return jnp.full_like(chosen_prob, 1 - self.flip_rate)
    return None


PLAIN = PairLossConfig("hard", 0.0, None, 0.0)


class RewardApply(Protocol):
  """`apply` of a reward model: rewards [R, H] and features [R, D] of R rows."""

  def __call__(
    self,
    params: Params,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    dropout_keys: jax.Array | None = None,
    response: jax.Array | None = None,
  ) -> Any:
    """Rewards of tokens [R, T] under mask [R, T]; `response` [R, T] marks."""


class PairOutputs(NamedTuple):
  """What a reward model says of both responses of B pairs.

  Attributes:
    chosen: rewards, [B, H].
    rejected: rewards, [B, H].
    chosen_features: what the head read, [B, D].
    rejected_features: the same, [B, D].
  """

  chosen: jax.Array
  rejected: jax.Array
  chosen_features: jax.Array
  rejected_features: jax.Array


def marked(batch: Batch) -> dict[str, jax.Array]:
  """`response` of a reward model's `apply`, where a batch tells prompts apart.

  Args:
    batch: `tokens` [B, R, T], padded on the right, and `prompt_lengths` int
      [B, R] where it has them.

  Returns:
    True on every token of a response and after it, bool [B R, T], by name.
  """
  if "prompt_lengths" not in batch:
    return {}
  steps = jnp.arange(batch["tokens"].shape[-1], dtype=jnp.int32)
  begin = batch["prompt_lengths"].reshape(-1, 1)
  return {"response": steps[None] >= begin}


def response_forward(
  apply: RewardApply, *, dropout: bool
) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
  """All responses of every row in one forward pass.

  Args:
    apply: reward model with H outputs.
    dropout: whether rows are dropped out with keys from `batch["key"]`.

  Returns:
    `(params, batch) -> rewards [B, R, H], features [B, R, D]` for a batch with
    `tokens` int32 and `mask` bool [B, R, T], `where` bool [B], and `key` [B]
    when dropout is on. Rows that do not count come out 0, with gradient 0.
  """

  def forward(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    tokens, mask, where = batch["tokens"], batch["mask"], batch["where"]
    rows, responses, length = tokens.shape
    keys = None
    if dropout:
      keys = jax.vmap(jax.random.split, (0, None))(batch["key"], responses)
      keys = keys.reshape(-1)
    output = apply(
      params,
      tokens.reshape(-1, length),
      mask.reshape(-1, length),
      dropout_keys=keys,
      **marked(batch),
    )

    # Before any loss, not after: a NaN there would survive in the gradient.
    def clean(x: jax.Array) -> jax.Array:
      return jnp.where(where[:, None, None], x.reshape(rows, responses, -1), 0)

    return clean(output.rewards), clean(output.features)

  return forward


def pair_forward(
  apply: RewardApply, *, dropout: bool
) -> Callable[[Params, Batch], PairOutputs]:
  """Both responses of every pair in one forward pass of all rows.

  Args:
    apply: reward model with H outputs.
    dropout: whether rows are dropped out with keys from `batch["key"]`.

  Returns:
    `(params, batch) -> PairOutputs`, the batch as `response_forward` takes it,
    two responses each, chosen first.
  """
  both = response_forward(apply, dropout=dropout)

  def forward(params: Params, batch: Batch) -> PairOutputs:
    rewards, features = both(params, batch)
    return PairOutputs(
      rewards[:, 0], rewards[:, 1], features[:, 0], features[:, 1]
    )

  return forward


def count_pairs(batch: Batch) -> jax.Array:
  """One term per pair that counts, [B]."""
  return batch["where"]


def pair_losses(
  chosen: jax.Array, rejected: jax.Array, batch: Batch, config: PairLossConfig
) -> jax.Array:
  """The configured loss of each pair, in nats.

  Args:
    chosen: rewards, [B].
    rejected: rewards, [B].
    batch: `margin` and `chosen_prob`, [B], where the config reads them.
    config: labels, margin, smoothing and centering.

  Returns:
    Losses, [B].
  """
  dtype = chosen.dtype
  margin = batch["margin"].astype(dtype) if config.uses_margin else 0.0
  if config.labels == "votes" or config.denoise is not None:
    per_pair = losses.soft_preference_loss(
      chosen,
      rejected,
      chosen_prob=batch["chosen_prob"].astype(dtype),
      margin=margin,
    )
  else:
    per_pair = losses.bradley_terry_loss(
      chosen, rejected, margin=margin, flip_rate=config.flip_rate
    )
  if config.centering:
    penalty = losses.reward_centering_penalty(chosen, rejected)
    per_pair = per_pair + config.centering * penalty
  return per_pair


def pair_metrics(
  chosen: jax.Array, rejected: jax.Array, where: jax.Array
) -> Metrics:
  """What every recipe reports of its rewards, whatever it optimises.

  Args:
    chosen: rewards, [B].
    rejected: rewards, [B].
    where: pairs that count, bool [B].

  Returns:
    (total, count) of the plain `train/nll`, of accuracy, gap and mean reward.
  """
  count = jnp.sum(where, dtype=chosen.dtype)

  def mean_of(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(x, where=where), count

  return {
    "train/nll": mean_of(losses.bradley_terry_loss(chosen, rejected)),
    "train/accuracy": metrics.preference_accuracy(
      chosen, rejected, where=where
    ),
    "train/reward_gap": mean_of(chosen - rejected),
    "train/reward_mean": mean_of((chosen + rejected) / 2),
  }


def pair_rows(config: PairLossConfig) -> row_loss.RowLoss:
  """Pairs of one reward: each costs its configured loss.

  Args:
    config: labels, margin, smoothing, centering and denoising.

  Returns:
    The rows. Metrics are means over pairs, the plain (margin-free, unsmoothed)
    `train/nll` and `train/accuracy` among them.
  """

  def of_pair(outputs: PairOutputs, batch: Batch) -> jax.Array:
    return pair_losses(
      outputs.chosen[:, 0], outputs.rejected[:, 0], batch, config
    )

  def measured(outputs: PairOutputs, batch: Batch) -> Metrics:
    return pair_metrics(
      outputs.chosen[:, 0], outputs.rejected[:, 0], batch["where"]
    )

  return row_loss.RowLoss(of_pair, count_pairs, measured)


def bradley_terry(
  apply: RewardApply, config: PairLossConfig, *, dropout: bool
) -> Objective:
  """Bradley-Terry on pairs, averaged over the pairs of the whole batch.

  Args:
    apply: reward model with one output.
    config: labels, margin, smoothing, centering and denoising.
    dropout: whether training drops out activations.

  Returns:
    The objective, with the metrics of `pair_rows`.
  """
  rows = pair_rows(config)
  return row_loss.couple(
    pair_forward(apply, dropout=dropout), rows, row_loss.mean(rows)
  )


def make_score(
  apply: RewardApply,
) -> Callable[[Params, Batch], jax.Array]:
  """Rewards of every response of a batch, without dropout.

  Args:
    apply: reward model with H outputs.

  Returns:
    `(params, batch) -> rewards [B, N, H]` for `tokens` and `mask` [B, N, T].
  """

  def score(params: Params, batch: Batch) -> jax.Array:
    tokens, mask = batch["tokens"], batch["mask"]
    pairs, responses, length = tokens.shape
    output = apply(
      params,
      tokens.reshape(-1, length),
      mask.reshape(-1, length),
      **marked(batch),
    )
    rewards: jax.Array = output.rewards.reshape(pairs, responses, -1)
    return rewards

  return score
