"""PPO metrics: how an iteration's batch fares by group and by its sampler."""

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms.policy_config import LearnerConfig
from jaxalign.algorithms.update import Batch
from jaxalign.ops.segments import segment_sum

Scalars = dict[str, jax.Array]


def mismatch(
  batch: Batch,
  found: dict[str, jax.Array],
  counted: jax.Array,
  axis_name: str | None,
) -> Scalars:
  """How far the sampler's log-probabilities are from the learner's.

  Args:
    batch: of `ppo_batch.prepare`.
    found: with `model_log_probs` [R, G, N] of the learner.
    counted: tokens that count, bool [R, G, N].
    axis_name: mapped axis the prompts are spread over, None on one device.

  Returns:
    `train/mismatch_NAME` by field of `losses.log_prob_mismatch`.
  """
  gap = losses.log_prob_mismatch(
    found["model_log_probs"],
    batch["sampler_log_probs"],
    where=counted,
    axis_name=axis_name,
  )
  return {f"train/mismatch_{k}": v for k, v in gap._asdict().items()}


def by_group(
  batch: Batch,
  divergence: jax.Array,
  utilities: jax.Array,
  weights: jax.Array,
  config: LearnerConfig,
  axis_name: str | None,
) -> Scalars:
  """Utility and weight of each group; KL on its own prompts, NaN without.

  Args:
    batch: of `ppo_batch.prepare`.
    divergence: of each response to the reference, nats, [R, G].
    utilities: of the groups, [K].
    weights: of the groups, [K].
    config: the learner's, with the groups' names.
    axis_name: mapped axis the prompts are spread over, None on one device.

  Returns:
    `train/utility/NAME`, `train/group_weight/NAME` and `train/kl/NAME`.
  """
  counts = batch["where"] & (batch["group"] >= 0)
  kl = jnp.mean(divergence, axis=1)
  total, number = segment_sum(
    jnp.stack([kl, jnp.ones_like(kl)], axis=1),
    segment=jnp.where(counts, batch["group"], 0),
    num_segments=len(config.groups),
    where=counts,
    axis_name=axis_name,
  ).T
  own = total / number
  metrics = {}
  for k, name in enumerate(config.groups):
    metrics[f"train/utility/{name}"] = utilities[k]
    metrics[f"train/group_weight/{name}"] = weights[k]
    metrics[f"train/kl/{name}"] = own[k]
  return metrics
