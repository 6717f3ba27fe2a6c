"""Contrastive reward learning: Bradley-Terry on two views of each pair.

Views differ by dropout, or the second one's responses have tokens masked, a
span deleted, or are other texts that the batch holds.

The contrastive loss couples all rows, so it is taken once, on a statistic: the
features of all rows. A micro-batch adds <features, gradient of that loss>,
whose gradient in the parameters is the chain rule's, to the last digit.

SwAV's prototypes are unit vectors beside the network, with their own Adam.
`mean_cosines` measures how alike the two views are.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxalign import losses
from jaxalign.algorithms import text_views
from jaxalign.algorithms.bradley_terry import (
  PairLossConfig,
  RewardApply,
  pair_losses,
  pair_metrics,
  response_forward,
)
from jaxalign.algorithms.update import Batch, Metrics, Objective, Params
from jaxalign.ops import checks, segment_sum, unit_rows

VIEWS = 2


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
  """Kind of contrastive loss, its instances and its weight.

  Attributes:
    name: of the recipe.
    loss: "simcse" (the other view of a row among all rows) or "swav" (the
      prototype of the other view).
    instances: "pairs" (each response is one) or "differences" (chosen minus
      rejected, and its negative).
    weight: β, of the contrastive loss beside Bradley-Terry, >= 0.
    temperature: τ of the softmax, > 0; 0.05 for SimCSE, 0.1 for SwAV.
    num_prototypes: K; set for "swav", None for "simcse".
    epsilon: entropy of the balanced assignments, > 0; "swav" alone reads it.
    num_iters: rounds of Sinkhorn-Knopp; "swav" alone reads it.
    prototype_learning_rate: of the prototypes' own Adam; "swav" alone reads it.
    queue_size: earlier instances that fill the prototypes where a batch has
      fewer rows than these, 0 for none; "swav" alone.
    augmentation: what makes the second view: "dropout" alone, or "masking" of
      tokens or "deletion" of a span of the response, or "back_translation",
      with dropout if there is.
    augmentation_rate: share of a response's tokens that are masked or deleted,
      in (0, 1); with "masking" and "deletion" alone.
    mask_token: id written in place of masked tokens, the tokenizer's mask or
      padding; set for "masking", None for others.
  """

  name: Literal["contrastive"]
  loss: str = "simcse"
  instances: str = "pairs"
  weight: float = 1.0
  temperature: float = 0.05
  num_prototypes: int | None = None
  epsilon: float = 0.05
  num_iters: int = 3
  prototype_learning_rate: float = 1e-3
  queue_size: int = 0
  augmentation: str = "dropout"
  augmentation_rate: float = 0.1
  mask_token: int | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    checks.one_of(("simcse", "swav"), loss=self.loss)
    checks.one_of(("pairs", "differences"), instances=self.instances)
    checks.at_least(0, weight=self.weight)
    checks.above(
      0,
      temperature=self.temperature,
      epsilon=self.epsilon,
      prototype_learning_rate=self.prototype_learning_rate,
    )
    checks.at_least(1, num_iters=self.num_iters)
    clusters = self.loss == "swav"
    if (self.num_prototypes is not None) != clusters or (
      self.num_prototypes is not None and self.num_prototypes < 2
    ):
      raise ValueError(
        "num_prototypes must be >= 2 with loss='swav' and None with 'simcse', "
        f"got {self.num_prototypes} with {self.loss!r}"
      )
    if self.queue_size < 0 or (self.queue_size and not clusters):
      raise ValueError(
        "queue_size must be >= 0 and goes with loss='swav' alone, got "
        f"{self.queue_size} with {self.loss!r}"
      )
    self._check_augmentation()

  def _check_augmentation(self) -> None:
    kind, rate = self.augmentation, self.augmentation_rate
    checks.one_of(
      ("dropout", *text_views.KINDS, "back_translation"), augmentation=kind
    )
    checks.at_least(0, mask_token=self.mask_token)
    if not 0 < rate < 1 or (kind not in text_views.KINDS and rate != 0.1):
      raise ValueError(
        "augmentation_rate must be in (0, 1) and goes with augmentation="
        f"'masking' or 'deletion' alone, got {rate} with {kind!r}"
      )
    if (self.mask_token is not None) != (kind == "masking"):
      raise ValueError(
        "mask_token must be an id with augmentation='masking' and None with "
        f"others, got {self.mask_token} with {kind!r}"
      )


class ViewOutputs(NamedTuple):
  """What a reward model says of both responses of B pairs, in both views.

  Attributes:
    rewards: [B, 2 views, 2 responses], chosen first.
    features: what the head read, [B, 2, 2, D].
  """

  rewards: jax.Array
  features: jax.Array


class AllRows(NamedTuple):
  """The statistic: every pair of the batch at its place, zeros elsewhere.

  Attributes:
    features: [N, 2 views, 2 responses, D].
    where: 1 where a pair counts, [N].
  """

  features: jax.Array
  where: jax.Array


class Contrast(NamedTuple):
  """Whole-batch values that the contrastive loss reads.

  Attributes:
    num_pairs: pairs that count, [].
    shares: of each pair in the mean contrastive loss, [N]; they add up to it.
    slopes: gradient of that mean in the features, [N, 2, 2, D].
  """

  num_pairs: jax.Array
  shares: jax.Array
  slopes: jax.Array


def contrastive(
  apply: RewardApply,
  config: ContrastiveConfig,
  loss_config: PairLossConfig,
  *,
  batch_size: int,
  num_features: int,
  dropout: bool,
) -> Objective:
  """Two views of every pair in one forward pass, and their losses.

    L = mean over pairs and views of l + β · mean over instances of l_cl

  Negatives and balanced assignments are those of the whole batch, whatever
  the layout. Prototypes are no part of the network: they live in the carry and
  follow the gradient of β·l_cl by an Adam of their own, brought back to unit
  length after each step.

  Args:
    apply: reward model with one output.
    config: the contrastive loss.
    loss_config: the loss of a pair.
    batch_size: N, pairs per step over all devices.
    num_features: D, the width of what the head reads.
    dropout: must be True unless the config changes texts.

  Returns:
    The objective, for gradients of first order: what each row adds through the
    negatives of the others is constant in it. Batches hold `row` int [B], and
    with "back_translation" `view_tokens` and `view_mask` [B, 2, T] and
    `view_prompt_lengths` [B, 2].
    Pair metrics are means over both views. Reported besides: the mean
    contrastive loss, the mean cosine between the views of an instance and
    between different instances and, for SwAV, how many prototypes are in use.

  Raises:
    ValueError: dropout is off and texts stay, so that both views are one.

  References:
    Wang et al., "Secrets of RLHF in large language models part II", 2024,
    section 3.1.
  """
  changes = config.augmentation != "dropout"
  if not dropout and not changes:
    raise ValueError(
      "model.dropout must be > 0 with recipe 'contrastive': nothing else makes "
      "two views of a text differ; got 0; recipe.augmentation changes texts"
    )
  forward_all = response_forward(apply, dropout=dropout)

  rate, token = config.augmentation_rate, config.mask_token
  change = (
    text_views.shortened(rate)
    if token is None
    else text_views.masked(rate, token)
  )

  def forward(params: Params, batch: Batch) -> ViewOutputs:
    twice = {
      k: jnp.concatenate([batch[k]] * VIEWS, axis=1)
      for k in ("tokens", "mask", "prompt_lengths")
      if k in batch
    }
    if config.augmentation == "back_translation":
      twice |= {
        k: jnp.concatenate([batch[k], batch[f"view_{k}"]], axis=1)
        for k in twice
      }
    elif changes:
      twice |= text_views.second_view(change, batch)
    rewards, features = forward_all(params, {**batch, **twice})
    return ViewOutputs(
      rewards[..., 0].reshape(-1, VIEWS, 2),
      features.reshape(-1, VIEWS, 2, num_features),
    )

  def statistics(outputs: ViewOutputs, batch: Batch) -> AllRows:
    placed = functools.partial(
      segment_sum, segment=batch["row"], num_segments=batch_size
    )
    where = batch["where"].astype(outputs.features.dtype)
    return AllRows(placed(outputs.features), placed(where))

  def context(
    rows: AllRows, carry: Any
  ) -> tuple[Contrast, Any, dict[str, jax.Array]]:
    where = rows.where > 0
    counted = jnp.concatenate([where, where])
    count = jnp.maximum(jnp.sum(counted), 1).astype(rows.where.dtype)

    def mean_loss(
      features: jax.Array, centres: Any
    ) -> tuple[jax.Array, jax.Array]:
      views = _instances(features, config)
      per_instance = _loss(views, counted, centres, carry, config)
      return jnp.sum(per_instance) / count, per_instance / count

    centres: Any = carry.centres if config.loss == "swav" else ()
    (value, shares), (slopes, centre_slopes) = jax.value_and_grad(
      mean_loss, argnums=(0, 1), has_aux=True
    )(rows.features, centres)
    views = _instances(rows.features, config)
    scalars = {"train/contrastive": value, **mean_cosines(views, counted)}
    if config.loss == "swav":
      used = num_used(centres, views[0], counted)
      scalars["train/prototypes_used"] = used
      carry = moved_prototypes(
        carry,
        config.weight * centre_slopes,
        views,
        counted,
        learning_rate=config.prototype_learning_rate,
      )
    per_pair = shares[:batch_size] + shares[batch_size:]
    return Contrast(jnp.sum(rows.where), per_pair, slopes), carry, scalars

  def loss(
    outputs: ViewOutputs, batch: Batch, context: Contrast
  ) -> tuple[jax.Array, Metrics]:
    where, row = batch["where"], batch["row"]
    total: jax.Array = jnp.zeros((), outputs.rewards.dtype)
    metrics: Metrics = {}
    for view in range(VIEWS):
      chosen, rejected = (
        outputs.rewards[:, view, 0],
        outputs.rewards[:, view, 1],
      )
      per_pair = pair_losses(chosen, rejected, batch, loss_config)
      total += jnp.sum(per_pair, where=where) / VIEWS
      for name, (part, number) in pair_metrics(chosen, rejected, where).items():
        before = metrics.get(name, (0.0, 0.0))
        metrics[name] = before[0] + part, before[1] + number
    # The value is the loss's, the gradient comes from the slopes alone.
    value = jnp.sum(context.shares[row], where=where)
    pull = jnp.sum(outputs.features * context.slopes[row])
    pull -= jax.lax.stop_gradient(pull)
    total /= jnp.maximum(context.num_pairs, 1).astype(total.dtype)
    return total + config.weight * (value + pull), metrics

  carry: Any = ()
  if config.num_prototypes is not None:
    carry = init_prototypes(
      config.num_prototypes, num_features, queue_size=config.queue_size
    )
  return Objective(forward, statistics, loss, context, carry)


def _instances(
  features: jax.Array, config: ContrastiveConfig
) -> tuple[jax.Array, jax.Array]:
  """Both views of the 2N instances, [2N, D] each."""
  rows = (
    losses.pair_rows if config.instances == "pairs" else losses.difference_rows
  )
  first, second = (
    rows(features[:, view, 0], features[:, view, 1]) for view in range(VIEWS)
  )
  return first, second


def _loss(
  views: tuple[jax.Array, jax.Array],
  counted: jax.Array,
  centres: Any,
  carry: Any,
  config: ContrastiveConfig,
) -> jax.Array:
  """The contrastive loss of each instance, [2N]."""
  if config.loss == "simcse":
    return losses.simcse_loss(
      *views, temperature=config.temperature, where=counted
    )
  return losses.swav_loss(
    *views,
    centres.astype(views[0].dtype),
    temperature=config.temperature,
    epsilon=config.epsilon,
    num_iters=config.num_iters,
    where=counted,
    queue=carry.queue if config.queue_size else None,
  )


def mean_cosines(
  views: tuple[jax.Array, jax.Array], where: jax.Array
) -> dict[str, jax.Array]:
  """Mean cosine between an instance's views, and between two instances.

  Args:
    views: both views of the batch's instances, [N, D] each.
    where: instances that count, bool [N].

  Returns:
    `train/view_cosine` and `train/instance_cosine`, the first view of one
    instance against the second of another; 0 where there are none.
  """
  first, second = (
    jnp.where(where[:, None], unit_rows(view), 0.0) for view in views
  )
  count = jnp.sum(where).astype(first.dtype)
  alike = jnp.sum(first * second)
  everything = jnp.sum(jnp.sum(first, axis=0) * jnp.sum(second, axis=0))
  others = jnp.maximum(count * (count - 1), 1)
  return {
    "train/view_cosine": alike / jnp.maximum(count, 1),
    "train/instance_cosine": (everything - alike) / others,
  }


class Prototypes(NamedTuple):
  """SwAV state carried from step to step.

  Attributes:
    centres: unit vectors, [K, D].
    moments: of the prototypes' own Adam.
    queue: earlier instances, or () for none.
  """

  centres: jax.Array
  moments: Any
  queue: Any


def init_prototypes(
  number: int, num_features: int, *, queue_size: int
) -> Prototypes:
  """Random directions, the same in every run, and an empty queue.

  Args:
    number: K.
    num_features: D.
    queue_size: instances kept, 0 for none.

  Returns:
    The prototypes before the first step.
  """
  shape = (number, num_features)
  centres = unit_rows(jax.random.normal(jax.random.key(0), shape, jnp.float32))
  queue: Any = ()
  if queue_size:
    queue = losses.init_feature_queue(queue_size, num_features)
  return Prototypes(centres, optax.scale_by_adam().init(centres), queue)


def moved_prototypes(
  prototypes: Prototypes,
  slopes: jax.Array,
  views: tuple[jax.Array, jax.Array],
  where: jax.Array,
  *,
  learning_rate: float,
) -> Prototypes:
  """The prototypes after a step of their Adam, back on the unit sphere.

  Args:
    prototypes: before the step.
    slopes: gradient of the loss in the centres, [K, D].
    views: both views of the batch's instances, [N, D] each, for the queue.
    where: instances that count, bool [N].
    learning_rate: Python float.

  Returns:
    The prototypes after it.
  """
  centres, moments, queue = prototypes
  direction, moments = optax.scale_by_adam().update(
    slopes.astype(centres.dtype), moments
  )
  if queue:
    queue = losses.push_features(queue, *views, where=where)
  return Prototypes(
    unit_rows(centres - learning_rate * direction), moments, queue
  )


def num_used(
  centres: jax.Array, rows: jax.Array, where: jax.Array
) -> jax.Array:
  """How many prototypes are in use, in [1, K].

    exp(entropy of the shares of rows that each prototype is nearest to)

  Args:
    centres: unit vectors, [K, D].
    rows: instances, [N, D].
    where: instances that count, bool [N].

  Returns:
    The number, [].
  """
  nearest = jnp.argmax(unit_rows(rows) @ centres.T.astype(rows.dtype), axis=-1)
  number = jnp.zeros(len(centres), rows.dtype)
  number = number.at[nearest].add(where.astype(rows.dtype))
  share = number / jnp.maximum(jnp.sum(number), 1)
  return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))
