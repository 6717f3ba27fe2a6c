"""MORE: one reward model from K sources, weighted by their head gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import row_loss
from jaxalign.algorithms.bradley_terry import (
  PairLossConfig,
  PairOutputs,
  RewardApply,
  pair_forward,
  pair_rows,
)
from jaxalign.algorithms.update import Batch, Objective, Scalars
from jaxalign.ops import checks, segment_sum


@dataclasses.dataclass(frozen=True)
class MoreConfig:
  """Settings of MORE: how the sources of a batch are weighted.

  Attributes:
    name: of the recipe.
    num_sources: K, the sources of the training data; None counts them.
    weights: "min_norm" for the shortest combination of the head gradients,
      "pcgrad" to project conflicts away, "cagrad" for the best of the worst
      source near the average, "gradnorm" for gradients as long as the source is
      behind, "uniform" for 1/K of each source present, "fixed" for `fixed`.
    fixed: K weights that add up to 1, with weights="fixed" alone.
    normalise: "l2", "loss", "loss+" or "none", with "min_norm" alone; None
      otherwise. Two sources weigh one half each under "l2", whatever their
      gradients.
    radius: how far "cagrad" goes from the average, in its length, [0, 1); None
      with all others.
    decay: share of the past in the moving average of the head gradients,
      [0, 1); None for no average, with "gradnorm" and where they are not read.
      The authors' momentum 0.99 is decay 0.01.
    parts: contiguous parts of the batch that find weights of their own: 1 is
      the paper's batch-wide λ; the authors' program has one part per device
      and micro-batch.
    asymmetry: exponent of how far a source is behind, >= 0, with "gradnorm"
      alone; None otherwise.
    step_size: of the weights of "gradnorm", > 0; None otherwise.
  """

  name: Literal["more"]
  num_sources: int | None = None
  weights: str = "min_norm"
  fixed: tuple[float, ...] | None = None
  normalise: str | None = "l2"
  radius: float | None = None
  decay: float | None = 0.01
  parts: int = 1
  asymmetry: float | None = None
  step_size: float | None = None

  reads_features: ClassVar[bool] = True  # of what a head reads

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(
      ("min_norm", "pcgrad", "cagrad", "gradnorm", "uniform", "fixed"),
      weights=self.weights,
    )
    checks.at_least(1, num_sources=self.num_sources, parts=self.parts)
    if (self.normalise is not None) != (self.weights == "min_norm"):
      raise ValueError(
        f"normalise goes with weights='min_norm' alone, got {self.normalise!r} "
        f"with {self.weights!r}"
      )
    if (self.radius is not None) != (self.weights == "cagrad"):
      raise ValueError(
        f"radius goes with weights='cagrad' alone, got {self.radius} with "
        f"{self.weights!r}"
      )
    for name in ("asymmetry", "step_size"):
      given = getattr(self, name)
      if (given is not None) != (self.weights == "gradnorm"):
        raise ValueError(
          f"{name} goes with weights='gradnorm' alone, got {given} with "
          f"{self.weights!r}"
        )
    checks.at_least(0, asymmetry=self.asymmetry)
    checks.above(0, step_size=self.step_size)
    learned = self.weights not in ("gradnorm", "uniform", "fixed")
    if self.decay is not None and not (learned and 0 <= self.decay < 1):
      raise ValueError(
        "decay must be in [0, 1) and goes with weights made of gradients, "
        f"got {self.decay} with {self.weights!r}"
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

  def couple(
    self, rows: row_loss.RowLoss, *, batch_size: int, num_features: int
  ) -> row_loss.Coupling:
    """Rows weighed by source; see `weighted_sources`."""
    return weighted_sources(
      rows, self, batch_size=batch_size, num_features=num_features
    )


class SourceSums(NamedTuple):
  """The statistics: sums over the rows of every part P and source K.

  Attributes:
    gradients: of the row losses in the head's weights, [P, K, D·H].
    losses: [P, K], in the unit of the row losses.
    counts: [P, K], terms.
  """

  gradients: jax.Array
  losses: jax.Array
  counts: jax.Array


class SourceWeights(NamedTuple):
  """What rows read: λ and the number of terms it is divided by, [P, K]."""

  weights: jax.Array
  counts: jax.Array


class Average(NamedTuple):
  """Moving average of the head gradients, and which rows have begun.

  Attributes:
    gradients: [P, K, D·H].
    begun: bool [P, K].
  """

  gradients: jax.Array
  begun: jax.Array


class Balance(NamedTuple):
  """State of "gradnorm": what the next step weighs by, and how all began.

  Attributes:
    weights: [P, K], adding up to 1.
    first_losses: of each source when it was first seen, [P, K].
    begun: bool [P, K].
  """

  weights: jax.Array
  first_losses: jax.Array
  begun: jax.Array


def weighted_sources(
  rows: row_loss.RowLoss,
  config: MoreConfig,
  *,
  batch_size: int,
  num_features: int,
) -> row_loss.Coupling:
  """Rows of K sources, weighted so that no source is overruled.

    L = mean over parts of Σ_k λ_k L_k,   L_k = mean over the terms of source k
    G_kj = <∂L_k/∂W, ∂L_j/∂W>,   λ = argmin λᵀ G λ on the simplex

  W [D, H] is the reward head, linear and without bias, so a row with features f
  and outputs o adds f_c ⊗ ∂l/∂o_c + f_r ⊗ ∂l/∂o_r: λ of the step's own batch
  comes from closed-form gradients and the network runs once. The inner product
  is over all of W, and "l2" divides by the Frobenius norm:

  - one reward: the paper's, with l the pair loss;
  - a mixture: l_n = Σ_j γ_u(n),j l_nj, so column j of a source's gradient is
    that of head j on the source's pairs, as far as their users belong to it.
    One λ for all heads, as they share the network that it protects. The E-step
    is not weighted: it asks who explains each user, not whom to serve, so the
    likelihood may fall where λ is far from even;
  - label distributions: l is the distance of a labelled response from the
    crowd's shares and L_k the mean over the labelled responses of source k.

  Args:
    rows: what each row costs.
    config: how λ is found.
    batch_size: rows per step over all devices.
    num_features: D, the width of what the head reads.

  Returns:
    The coupling. Batches hold `source` int [B] and `row` int [B]. A source
    absent from a part gets λ = 0 there. Reported: per source λ and the norm of
    its gradient; per two sources the cosine of their gradients, 1 where one is
    absent; entropy of λ and the norm of what is left. Each is the mean over
    parts.

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
    per_row, pull = jax.vjp(
      lambda chosen, rejected: rows.losses(
        outputs._replace(chosen=chosen, rejected=rejected), batch
      ),
      outputs.chosen,
      outputs.rejected,
    )
    up, down = pull(jnp.ones_like(per_row))
    gradients = (
      outputs.chosen_features[:, :, None] * up[:, None, :]
      + outputs.rejected_features[:, :, None] * down[:, None, :]
    )

    def total(x: jax.Array) -> jax.Array:
      sums = segment_sum(
        x,
        segment=segments(batch),
        num_segments=parts * sources,
        where=batch["where"],
      )
      return sums.reshape(*layout, *x.shape[1:])

    return SourceSums(
      total(gradients.reshape(len(per_row), -1)),
      total(per_row),
      total(rows.counts(batch).astype(per_row.dtype)),
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
    means = sums.losses / counts
    balances = config.weights == "gradnorm"
    weights = (
      _present_shares(carry.weights.astype(means.dtype), present)
      if balances
      else _weights(config, gradients, means, present)
    )
    diagnostics = jax.vmap(
      lambda g, w, p: losses.more_diagnostics(g, w, where=p)
    )(measured, weights, present)
    if config.asymmetry is not None and config.step_size is not None:
      carry = _rebalanced(
        carry,
        diagnostics.norms,
        means,
        present,
        asymmetry=config.asymmetry,
        step_size=config.step_size,
      )

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

  def shares(context: SourceWeights, batch: Batch) -> jax.Array:
    share = context.weights / context.counts / parts
    return share.reshape(-1)[segments(batch)]

  carry: Any = ()
  if config.decay is not None:
    width = num_features * rows.num_outputs
    carry = Average(jnp.zeros((*layout, width)), jnp.zeros(layout, jnp.bool_))
  if config.weights == "gradnorm":
    carry = Balance(
      jnp.full(layout, 1 / sources),
      jnp.zeros(layout),
      jnp.zeros(layout, jnp.bool_),
    )
  return row_loss.Coupling(statistics, context, shares, carry)


def more(
  apply: RewardApply,
  config: MoreConfig,
  loss_config: PairLossConfig,
  *,
  batch_size: int,
  num_features: int,
  dropout: bool,
) -> Objective:
  """`weighted_sources` of pairs.

  Args:
    apply: reward model with one output, a linear head without bias.
    config: how λ is found.
    loss_config: the loss of a pair.
    batch_size: pairs per step over all devices.
    num_features: D, the width of what the head reads.
    dropout: whether training drops out activations.

  Returns:
    The objective.

  Raises:
    ValueError: the batch does not fall into equal parts.
  """
  rows = pair_rows(loss_config)
  coupling = weighted_sources(
    rows, config, batch_size=batch_size, num_features=num_features
  )
  return row_loss.couple(pair_forward(apply, dropout=dropout), rows, coupling)


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


def _rebalanced(
  balance: Balance,
  norms: jax.Array,
  means: jax.Array,
  present: jax.Array,
  *,
  asymmetry: float,
  step_size: float,
) -> Balance:
  """What the next step weighs by, from this step's norms and losses."""
  first = jnp.where(
    balance.begun, balance.first_losses.astype(means.dtype), means
  )

  def moved(
    w: jax.Array, n: jax.Array, l: jax.Array, l0: jax.Array, p: jax.Array
  ) -> jax.Array:
    return losses.gradnorm_weights(
      w,
      norms=n,
      losses=l,
      first_losses=l0,
      asymmetry=asymmetry,
      step_size=step_size,
      where=p,
    )

  weights = jax.vmap(moved)(
    balance.weights.astype(means.dtype), norms, means, first, present
  )
  dtype = balance.weights.dtype
  return Balance(
    weights.astype(dtype), first.astype(dtype), balance.begun | present
  )


def _present_shares(weights: jax.Array, present: jax.Array) -> jax.Array:
  """Weights [P, K] of those present, adding up to 1; equal ones where all 0."""
  some = present.astype(weights.dtype)
  given = weights * some
  total = jnp.sum(given, axis=1, keepdims=True)
  even = some / jnp.maximum(jnp.sum(some, axis=1, keepdims=True), 1)
  return jnp.where(total > 0, given / jnp.where(total > 0, total, 1), even)


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
    return _present_shares(jnp.ones_like(means), present)
  normalise = config.normalise or "none"

  def part_weights(g: jax.Array, l: jax.Array, p: jax.Array) -> jax.Array:
    if config.weights == "pcgrad":
      return losses.pcgrad_weights(g, where=p)
    if config.radius is not None:
      return losses.cagrad_weights(g, radius=config.radius, where=p)
    return losses.more_weights(
      g,
      normalise=normalise,
      losses=l if normalise.startswith("loss") else None,
      where=p,
    )

  weights: jax.Array = jax.vmap(part_weights)(gradients, means, present)
  return weights
