"""DPRM: a distributional reward model that predicts how a crowd would label."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, reward_readout, row_loss
from jaxalign.algorithms.update import Batch, Metrics, Objective
from jaxalign.ops import checks

SMOOTHINGS = ("targeted", "uniform")
LOSSES = ("transport", "debiased", "line", "cross_entropy")


@dataclasses.dataclass(frozen=True)
class LabelsConfig:
  """Labels a response can get, and their utilities.

  The defaults are the six labels of DPRM, helpful or not by harmless or not.

  Attributes:
    names: of the labels.
    utilities: worth of each label in reward units; None with `penalties`.
    cost: distance between labels, [d][d] in reward units, symmetric with zeros
      on the diagonal; None for |u_i − u_j|, or for what `penalties` imply.
    penalties: per attribute the penalty of each of its levels, the last one's
      changing fastest; utilities and cost follow, see
      `losses.additive_label_set`. None with `utilities`.
    best: utility of a label without penalties.
  """

  names: tuple[str, ...] = losses.HELPFUL_HARMLESS_LABELS
  utilities: tuple[float, ...] | None = None
  cost: tuple[tuple[float, ...], ...] | None = None
  penalties: tuple[tuple[float, ...], ...] | None = (
    (0.0, 2.0),
    (0.0, 0.5, 2.0),
  )
  best: float = 1.0

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for labels that are not described once."""
    size = len(self.names)
    if size < 2 or len({*self.names}) < size:
      raise ValueError(
        f"names must be two different labels or more, got {self.names}"
      )
    if (self.utilities is None) == (self.penalties is None):
      raise ValueError(
        "exactly one of utilities and penalties must be set, got "
        f"{self.utilities} and {self.penalties}"
      )
    if self.penalties is not None and self.cost is not None:
      raise ValueError("cost must be None with penalties, which imply one")
    if self.utilities is not None and len(self.utilities) != size:
      raise ValueError(
        f"utilities must be one per name, got {len(self.utilities)} for {size}"
      )
    for row in self.cost or ():
      if len(row) != size or len(self.cost or ()) != size or min(row) < 0:
        raise ValueError(
          f"cost must be {size} rows of {size} numbers >= 0, got {self.cost}"
        )
    if self.cost is not None and any(
      self.cost[i][j] != self.cost[j][i] or self.cost[i][i] != 0
      for i in range(size)
      for j in range(size)
    ):
      raise ValueError(
        f"cost must be symmetric with zeros on its diagonal, got {self.cost}"
      )
    # Counted, not made: a config must not wake the devices, which many
    # processes have yet to share.
    found = (
      size
      if self.penalties is None
      else math.prod(len(levels) for levels in self.penalties)
    )
    if found != size:
      raise ValueError(
        f"penalties must make one label per name, got {found} for {size}"
      )

  def label_set(self) -> losses.LabelSet:
    """Utilities [d] and cost [d, d]."""
    if self.penalties is not None:
      return losses.additive_label_set(*self.penalties, best=self.best)
    utilities = jnp.asarray(self.utilities, jnp.float32)
    if self.cost is not None:
      return losses.LabelSet(utilities, jnp.asarray(self.cost, jnp.float32))
    gaps = jnp.abs(
      jnp.expand_dims(utilities, 1) - jnp.expand_dims(utilities, 0)
    )
    return losses.LabelSet(utilities, gaps)


@dataclasses.dataclass(frozen=True)
class DprmConfig:
  """A reward model that predicts a distribution over labels per response.

  Attributes:
    name: of the recipe.
    labels: what a response can be called.
    loss: distance of the prediction from the crowd's shares: "transport"
      (optimal transport at `epsilon`), "debiased" (without its bias), "line"
      (exact transport along the utilities) or "cross_entropy".
    epsilon: of the transport, > 0, in units of the cost.
    num_iters: most iterations of its solver.
    cross_entropy_weight: of the cross-entropy added to a transport, >= 0, in
      units of the cost per nat: transport alone cannot revive a label that is
      predicted at 0.
    prior: shares expected before any vote, where a record has no `label_prior`;
      None for equal ones.
    prior_strength: >= 0, votes that the prior is worth. At 0 votes speak for
      themselves: a default prior would keep any crowd of the usual
      size from being certain.
    new_votes: sources of later `label_votes` on the same responses, the oldest
      first; see `experiments.reward_model.label_targets`.
    decay: what older votes keep of their weight per source of new ones, [0, 1].
    smoothing: certainty above 1 − `smoothing` goes to the runner-up, [0, 0.5].
    smoothing_kind: "targeted", that, or "uniform": all shares are mixed with
      equal ones, of weight `smoothing`; the control.
    risk: what of the prediction is the reward: its "mean" utility, "cvar" (that
      of its worst share `alpha`) or "mean_std" (mean − kappa · deviation).
    alpha: share in (0, 1], with "cvar" alone.
    kappa: >= 0, with "mean_std" alone.
  """

  name: Literal["dprm"]
  labels: LabelsConfig = LabelsConfig()
  loss: str = "transport"
  epsilon: float = 0.2
  num_iters: int = 100
  cross_entropy_weight: float = 0.1
  prior: tuple[float, ...] | None = None
  prior_strength: float = 0.0
  new_votes: tuple[str, ...] = ()
  decay: float = 1.0
  smoothing: float = 0.1
  smoothing_kind: str = "targeted"
  risk: str = "mean"
  alpha: float | None = None
  kappa: float | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(LOSSES, loss=self.loss)
    checks.one_of(SMOOTHINGS, smoothing_kind=self.smoothing_kind)
    if not self.epsilon > 0 or self.num_iters < 1:
      raise ValueError(
        "epsilon must be > 0 and num_iters >= 1, got "
        f"{self.epsilon} and {self.num_iters}"
      )
    checks.at_least(
      0,
      cross_entropy_weight=self.cross_entropy_weight,
      prior_strength=self.prior_strength,
    )
    checks.within(0, 1, decay=self.decay)
    checks.within(0, 0.5, smoothing=self.smoothing)
    if self.prior is not None and (
      len(self.prior) != len(self.labels.names)
      or min(self.prior) < 0
      or abs(sum(self.prior) - 1) > 1e-3
    ):
      raise ValueError(
        f"prior must be {len(self.labels.names)} shares that sum to 1, got "
        f"{self.prior}"
      )
    self.readout()

  def readout(self) -> reward_readout.Readout:
    """How logits are read as rewards."""
    utilities = tuple(float(u) for u in self.labels.label_set().utilities)
    return reward_readout.Readout(
      "labels", utilities, self.risk, self.alpha, self.kappa
    )


def label_losses(
  logits: jax.Array, target: jax.Array, config: DprmConfig
) -> jax.Array:
  """The configured loss of each response.

  Args:
    logits: of the labels, [..., d].
    target: shares of the labels, [..., d].
    config: the loss and the label set.

  Returns:
    Losses, [...], in units of the cost; in nats for "cross_entropy".
  """
  if config.loss == "cross_entropy":
    return losses.label_cross_entropy(logits, target)
  utilities, cost = (
    part.astype(logits.dtype) for part in config.labels.label_set()
  )
  if config.loss == "line":
    distance = losses.wasserstein_1d_loss(logits, target, utilities)
  else:
    transport = {
      "transport": losses.optimal_transport_loss,
      "debiased": losses.debiased_transport_loss,
    }[config.loss]
    distance = transport(
      logits,
      target,
      cost,
      epsilon=config.epsilon,
      num_iters=config.num_iters,
    )
  if not config.cross_entropy_weight:
    return distance
  extra = losses.label_cross_entropy(logits, target)
  return distance + config.cross_entropy_weight * extra


def label_rows(config: DprmConfig) -> row_loss.RowLoss:
  """Labelled responses: the distance of predicted labels from the crowd's.

  A row has a term for each of its labelled responses, none, one or two, and
  costs their sum. Under a plain mean that is the mean over all labelled
  responses of a batch; under a coupling the loss of a source, or of a group, is
  the mean over its labelled responses.

  Args:
    config: loss, label set and readout.

  Returns:
    The rows, of models with one output per label. Batches hold `labels` float
    [B, 2, d] and `labelled` bool [B, 2] beside the pairs. What `labels` holds
    for other responses does not matter. Metrics: `train/nll` and
    `train/accuracy` take the reward of the readout as a plain one on pairs,
    of which a response beside itself is none;
    `train/label_nll` is the cross-entropy in nats, `train/top1` the share of
    responses whose likeliest label is the crowd's, `train/utility_error` the
    mean distance from the crowd's expected utility, `train/labelled` the share
    of responses that have labels.

  References:
    Li et al., "Aligning crowd feedback via distributional preference reward
    modeling", 2024.
  """
  read = config.readout()

  def counted(batch: Batch) -> jax.Array:
    return batch["labelled"] & jnp.expand_dims(batch["where"], 1)

  def seen(
    outputs: bradley_terry.PairOutputs, batch: Batch
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits and shares [B, 2, d], harmless where unlabelled, and where."""
    logits = jnp.stack([outputs.chosen, outputs.rejected], axis=1)
    where = counted(batch)
    given = jnp.expand_dims(where, 2)
    # Before any loss: what stands for a missing label may be NaN.
    even = 1 / logits.shape[-1]
    target = jnp.where(given, batch["labels"].astype(logits.dtype), even)
    return jnp.where(given, logits, 0.0), target, where

  def of_row(outputs: bradley_terry.PairOutputs, batch: Batch) -> jax.Array:
    logits, target, where = seen(outputs, batch)
    each = label_losses(logits, target, config)
    return jnp.sum(each, axis=1, where=where)

  def counts(batch: Batch) -> jax.Array:
    return jnp.sum(counted(batch), axis=1, dtype=jnp.float32)

  def measured(outputs: bradley_terry.PairOutputs, batch: Batch) -> Metrics:
    logits, target, where = seen(outputs, batch)
    count = jnp.sum(where, dtype=logits.dtype)

    def mean_of(x: jax.Array) -> tuple[jax.Array, jax.Array]:
      return jnp.sum(x, where=where), count

    rewards = read(jnp.stack([outputs.chosen, outputs.rejected], axis=1))
    apart = _sides_differ(batch["tokens"]) | _sides_differ(batch["mask"])
    metrics = bradley_terry.pair_metrics(
      rewards[:, 0, 0], rewards[:, 1, 0], batch["where"] & apart
    )
    utilities = config.labels.label_set().utilities.astype(logits.dtype)
    expected = [
      losses.expected_utility(shares, utilities)
      for shares in (jax.nn.softmax(logits), target)
    ]
    agree = jnp.argmax(logits, axis=-1) == jnp.argmax(target, axis=-1)
    return metrics | {
      "train/label_nll": mean_of(losses.label_cross_entropy(logits, target)),
      "train/top1": mean_of(agree.astype(logits.dtype)),
      "train/utility_error": mean_of(jnp.abs(expected[0] - expected[1])),
      "train/labelled": (
        count,
        where.shape[1] * jnp.sum(batch["where"], dtype=count.dtype),
      ),
    }

  return row_loss.RowLoss(of_row, counts, measured, len(config.labels.names))


def _sides_differ(x: jax.Array) -> jax.Array:
  """Where the two sides of a row [B, 2, T] are not the same, bool [B]."""
  return jnp.any(x[:, 0] != x[:, 1], axis=-1)


def dprm(
  apply: bradley_terry.RewardApply, config: DprmConfig, *, dropout: bool
) -> Objective:
  """`label_rows`, averaged over the labelled responses of the whole batch.

  Args:
    apply: reward model with one output per label.
    config: loss, label set and readout.
    dropout: whether training drops out activations.

  Returns:
    The objective.
  """
  rows = label_rows(config)
  return row_loss.couple(
    bradley_terry.pair_forward(apply, dropout=dropout),
    rows,
    row_loss.mean(rows),
  )
