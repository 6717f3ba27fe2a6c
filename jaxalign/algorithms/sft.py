"""Supervised fine-tuning: language modelling loss on the answers alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign.algorithms.update import Batch, Metrics, Objective, Params

LogProbs = Callable[[Params, Batch], jax.Array]


def counted_targets(batch: Batch) -> jax.Array:
  """Mask of answer tokens, the only targets of the loss.

  Args:
    batch: `loss_mask` bool [B, T], True on the tokens of answers; `segment_ids`
      int [B, T], one number per text of a row and 0 for padding; `where` bool
      [B], False on rows that fill up.

  Returns:
    bool [B, T - 1] for tokens 1 to T - 1: the first token of a text has nothing
    that precedes it.
  """
  texts = batch["segment_ids"]
  counted = batch["loss_mask"][:, 1:] & (texts[:, 1:] == texts[:, :-1])
  return counted & (texts[:, 1:] > 0) & batch["where"][:, None]


def answer_likelihood(log_probs: LogProbs) -> Objective:
  """Mean negative log-likelihood of answer tokens, in nats per token.

    loss = - sum_bt m_bt log p(token_bt | before) / sum_bt m_bt

  The mean is over the tokens of the whole batch, so neither packing nor
  accumulation changes it.

  Args:
    log_probs: `(params, batch) -> [B, T - 1]`, of each token given those before
      it in its text.

  Returns:
    The two phases. The statistic is the number of tokens that count.
  """

  def statistics(outputs: jax.Array, batch: Batch) -> jax.Array:
    del outputs
    return jnp.sum(counted_targets(batch), dtype=jnp.float32)

  def loss(
    outputs: jax.Array, batch: Batch, num_tokens: jax.Array
  ) -> tuple[jax.Array, Metrics]:
    counted = counted_targets(batch)
    # Replaced before the sum: a NaN under the mask would reach the gradient.
    total = -jnp.sum(jnp.where(counted, outputs, 0.0))
    count = jnp.sum(counted, dtype=total.dtype)
    mean = total / jnp.maximum(num_tokens.astype(total.dtype), 1)
    return mean, {"train/nll": (total, count)}

  return Objective(log_probs, statistics, loss)
