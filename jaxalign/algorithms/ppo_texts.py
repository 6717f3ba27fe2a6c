"""PPO-ptx: likelihood of texts beside the policy's loss.

    L = L_policy − c mean over text tokens of log π(token | before)

A policy that is only rewarded forgets what it was not asked about; texts of its
pretraining, or demonstrations, are learned from in the same steps.

References:
  Ouyang et al., "Training language models to follow instructions with human
  feedback", 2022, eq. (2).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.algorithms import sft
from jaxalign.algorithms.update import Batch, Metrics, Objective, Params

PREFIX = "text_"
ARRAYS = ("tokens", "segment_ids", "mask", "loss_mask", "where")
LogProbs = Callable[[Params, Batch], jax.Array]


def named(texts: Mapping[str, Any]) -> dict[str, Any]:
  """Arrays of packed texts by the names they have beside responses."""
  return {PREFIX + name: texts[name] for name in ARRAYS}


def texts_of(batch: Batch) -> dict[str, jax.Array]:
  """Those arrays by their own names, as `sft` has them."""
  return {name: batch[PREFIX + name] for name in ARRAYS}


def weighted(
  batch: Batch, *, minibatches: int, axis_name: str | None = None
) -> dict[str, jax.Array]:
  """The texts of an iteration, each token with its weight in a minibatch.

  As the weights of responses are, so that the mean over minibatches of their
  losses is that of the whole batch.

  Args:
    batch: with the arrays of `named`, a row of texts for each prompt.
    minibatches: optimiser steps per pass.
    axis_name: mapped axis the rows are spread over, None on one device.

  Returns:
    The same arrays, `text_counted` bool [R, L - 1] and `text_weight` [R].
  """
  texts = texts_of(batch)
  counted = sft.counted_targets(texts)
  number = jnp.sum(counted, dtype=jnp.result_type(float))
  if axis_name is not None:
    number = jax.lax.psum(number, axis_name)
  weight = minibatches / jnp.maximum(number, 1)
  return {
    **named(texts),
    "text_counted": counted,
    "text_weight": jnp.broadcast_to(weight, counted.shape[:1]),
  }


def beside(
  objective: Objective, log_probs: LogProbs, *, coef: float
) -> Objective:
  """The policy's objective with that of texts.

  Args:
    objective: of `ppo_losses.policy_objective`.
    log_probs: `(params, batch) -> [R, L - 1]`, of each text token given those
      before it; the batch is that of `texts_of`.
    coef: c > 0, nats of text loss per unit of the policy's.

  Returns:
    The two phases, for batches with what `weighted` adds.
  """

  def forward(params: Params, batch: Batch) -> Any:
    return objective.forward(params, batch), log_probs(params, texts_of(batch))

  def loss(
    outputs: Any, batch: Batch, context: Any
  ) -> tuple[jax.Array, Metrics]:
    policy, found = outputs
    total, metrics = objective.loss(policy, batch, context)
    counted = batch["text_counted"]
    # Replaced before the sum: a NaN under the mask would reach the gradient.
    surprise = -jnp.sum(jnp.where(counted, found, 0.0), axis=-1)
    number = jnp.sum(counted, dtype=surprise.dtype)
    metrics = {**metrics, "train/text_nll": (jnp.sum(surprise), number)}
    weight = batch["text_weight"].astype(surprise.dtype)
    added = coef * jnp.sum(surprise * weight)
    return total + added.astype(total.dtype), metrics

  return objective._replace(forward=forward, loss=loss)
