"""MORE: one reward model from K sources, weighted by their head gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms.bradley_terry import (
  PairLossConfig,
  PairOutputs,
  RewardApply,
  pair_forward,
  pair_losses,
  pair_metrics,
)
from jaxalign.algorithms.update import Batch, Metrics, Objective, Scalars
from jaxalign.ops import checks, segment_count, segment_sum


@dataclasses.dataclass(frozen=True)
class MoreConfig:
  """Settings of MORE: how the sources of a batch are weighted.

  Attributes:
    name: of the recipe.
    num_sources: K, the sources of the training data; None counts them.
    weights: "min_norm" for the shortest combination of the head gradients,
      "uniform" for 1/K of each source present, "fixed" for `fixed`.
    fixed: K weights that add up to 1, with weights="fixed" alone.
    normalise: "l2", "loss" or "none", with "min_norm" alone; None otherwise.
      Two sources weigh one half each under "l2", whatever their gradients.
    decay: share of the past in the moving average of the head gradients,
      [0, 1); None for no average. The authors' momentum 0.99 is decay 0.01.
    parts: contiguous parts of the batch that find weights of their own: 1 is
      the paper's batch-wide λ; the authors' program has one part per device
      and micro-batch.
  """

  name: Literal["more"]
  num_sources: int | None = None
  weights: str = "min_norm"
  fixed: tuple[float, ...] | None = None
  normalise: str | None = "l2"
  decay: float | None = 0.01
  parts: int = 1

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(("min_norm", "uniform", "fixed"), weights=self.weights)
    for name in ("num_sources", "parts"):
      if self.__dict__[name] is not None and self.__dict__[name] < 1:
        raise ValueError(f"{name} must be >= 1, got {self.__dict__[name]}")
    learned = self.weights == "min_norm"
    if (self.normalise is not None) != learned:
      raise ValueError(
        f"normalise goes with weights='min_norm' alone, got {self.normalise!r} "
        f"with {self.weights!r}"
      )
    if self.decay is not None and not (learned and 0 <= self.decay < 1):
      raise ValueError(
        "decay must be in [0, 1) and goes with weights='min_norm' alone, got "
        f"{self.decay} with {self.weights!r}"
      )
    if (self.fixed is not None) != (self.weights == "fixed"):
      raise ValueError(
        f"fixed goes with weights='fixed' alone, got {self.fixed} with "
        f"{self.weights!r}"
      )
    if self.fixed is not None and (
      self.num_sources not in (None, len(self.fixed))
      or min(self.fixed, default=0) < 0
      or abs(sum(self.fixed) - 1) > 1e-6
    ):
      raise ValueError(
        f"fixed must be one weight >= 0 for each of {self.num_sources} "
        f"sources that add up to 1, got {self.fixed}"
      )


class SourceSums(NamedTuple):
  """The statistics: sums over the pairs of every part P and source K.

  Attributes:
    gradients: of the pair losses in the head's weights, [P, K, D].
    losses: [P, K], in nats.
    counts: [P, K].
  """

  gradients: jax.Array
  losses: jax.Array
  counts: jax.Array


class SourceWeights(NamedTuple):
  """What the loss reads: λ and the number of pairs it divides by, [P, K]."""

  weights: jax.Array
  counts: jax.Array


class Average(NamedTuple):
  """Moving average of the head gradients, and which rows have begun.

  Attributes:
    gradients: [P, K, D].
    begun: bool [P, K].
  """

  gradients: jax.Array
  begun: jax.Array


def more(
  apply: RewardApply,
  config: MoreConfig,
  loss_config: PairLossConfig,
  *,
  batch_size: int,
  num_features: int,
  dropout: bool,
) -> Objective:
  """Pair losses of K sources, weighted so that no source is overruled.

    L = mean over parts of Σ_k λ_k mean over the pairs of source k of l

  λ of the step's own batch, from closed-form head gradients: the network runs
  once, as in plain training.

  Args:
    apply: reward model with one output, a linear head without bias.
    config: how λ is found.
    loss_config: the loss of a pair.
    batch_size: pairs per step over all devices.
    num_features: D, the width of what the head reads.
    dropout: whether training drops out activations.

  Returns:
    The objective. Batches hold `source` int [B] and `row` int [B]. A source
    absent from a part gets λ = 0 there. Reported besides the pair metrics: per
    source λ and the norm of its gradient; per two sources the cosine of their
    gradients, 1 where one is absent; entropy of λ and the norm of what is left.
    Each is the mean over parts.

  Raises:
    ValueError: the batch does not fall into equal parts.

  References:
    Zeng et al., "On diversified preferences of large language model
    alignment", 2024, equations (7) and (8), appendix B.
  """
  parts, sources = config.parts, checks.known(num_sources=config.num_sources)
  if batch_size % parts:
    raise ValueError(
      f"parts must divide batch_size, got {parts} and {batch_size}"
    )
  layout = parts, sources

  def segments(batch: Batch) -> jax.Array:
    part = batch["row"] // (batch_size // parts)
    return part * sources + batch["source"]

  def statistics(outputs: PairOutputs, batch: Batch) -> SourceSums:
    rewards = outputs.chosen[:, 0], outputs.rejected[:, 0]
    per_pair, pull = jax.vjp(
      lambda chosen, rejected: pair_losses(
        chosen, rejected, batch, loss_config
      ),
      *rewards,
    )
    up, down = pull(jnp.ones_like(per_pair))
    gradients = (
      up[:, None] * outputs.chosen_features
      + down[:, None] * outputs.rejected_features
    )
    where, segment = batch["where"], segments(batch)

    def total(x: jax.Array) -> jax.Array:
      sums = segment_sum(
        x, segment=segment, num_segments=parts * sources, where=where
      )
      return sums.reshape(*layout, *x.shape[1:])

    counts = segment_count(
      segment, num_segments=parts * sources, where=where
    ).reshape(layout)
    return SourceSums(
      total(gradients), total(per_pair), counts.astype(per_pair.dtype)
    )

  def context(
    sums: SourceSums, carry: Any
  ) -> tuple[SourceWeights, Any, Scalars]:
    present = sums.counts > 0
    counts = jnp.maximum(sums.counts, 1)
    gradients = sums.gradients / counts[..., None]
    measured = gradients
    if config.decay is not None:
      carry = _averaged(carry, gradients, present, config.decay)
      gradients = carry.gradients
    weights = _weights(config, gradients, sums.losses / counts, present)
    diagnostics = jax.vmap(
      lambda g, w, p: losses.more_diagnostics(g, w, where=p)
    )(measured, weights, present)

    def mean(x: jax.Array) -> jax.Array:
      return jnp.mean(x, axis=0)

    both = present[:, :, None] & present[:, None, :]
    cosines = jnp.where(both, diagnostics.cosines, 1.0)
    scalars = {
      "train/source_weight_entropy": mean(diagnostics.entropy),
      "train/source_combined_norm": mean(diagnostics.combined_norm),
    }
    for k in range(sources):
      scalars[f"train/source_weight/{k}"] = mean(weights[:, k])
      scalars[f"train/source_gradient_norm/{k}"] = mean(diagnostics.norms[:, k])
      for other in range(k + 1, sources):
        scalars[f"train/source_cosine/{k}-{other}"] = mean(cosines[:, k, other])
    return SourceWeights(weights, counts), carry, scalars

  def loss(
    outputs: PairOutputs, batch: Batch, context: SourceWeights
  ) -> tuple[jax.Array, Metrics]:
    chosen, rejected = outputs.chosen[:, 0], outputs.rejected[:, 0]
    per_pair = pair_losses(chosen, rejected, batch, loss_config)
    share = (context.weights / context.counts).reshape(-1)[segments(batch)]
    total = jnp.sum(
      share.astype(per_pair.dtype) * per_pair, where=batch["where"]
    )
    return total / parts, pair_metrics(chosen, rejected, batch["where"])

  carry: Any = ()
  if config.decay is not None:
    carry = Average(
      jnp.zeros((*layout, num_features)), jnp.zeros(layout, jnp.bool_)
    )
  return Objective(
    pair_forward(apply, dropout=dropout), statistics, loss, context, carry
  )


def _averaged(
  average: Average, gradients: jax.Array, present: jax.Array, decay: float
) -> Average:
  """The average with this step's gradients in; an absent source keeps its."""
  update: Callable[[jax.Array, jax.Array], jax.Array] = jax.vmap(
    lambda m, g: losses.gradient_ema(m, g, decay=decay)
  )
  moved = update(average.gradients, gradients)
  new = jnp.where(average.begun[..., None], moved, gradients)
  kept = jnp.where(present[..., None], new, average.gradients)
  return Average(kept.astype(average.gradients.dtype), average.begun | present)


def _weights(
  config: MoreConfig,
  gradients: jax.Array,
  means: jax.Array,
  present: jax.Array,
) -> jax.Array:
  """λ [P, K] of every part."""
  if config.weights == "fixed":
    return jnp.broadcast_to(
      jnp.asarray(config.fixed, means.dtype), means.shape
    ) * present.astype(means.dtype)
  if config.weights == "uniform":
    some = present.astype(means.dtype)
    return some / jnp.maximum(jnp.sum(some, axis=1, keepdims=True), 1)
  normalise = config.normalise or "none"

  def part_weights(g: jax.Array, l: jax.Array, p: jax.Array) -> jax.Array:
    return losses.more_weights(
      g, normalise=normalise, losses=l if normalise == "loss" else None, where=p
    )

  weights: jax.Array = jax.vmap(part_weights)(gradients, means, present)
  return weights
