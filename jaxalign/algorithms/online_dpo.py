"""Online DPO: preference pairs from the policy's own responses."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms.update import Batch, Metrics, Objective, Params
from jaxalign.ops.masked import masked_mean

Scalars = dict[str, jax.Array]


def label_pairs(
  experience: Mapping[str, jax.Array],
  scores: jax.Array,
  *,
  where: jax.Array,
  beta: float,
  axis_name: str | None = None,
) -> tuple[dict[str, jax.Array], jax.Array, Scalars]:
  """The best against the worst response to each prompt, under J scores.

  Args:
    experience: `old_log_probs` and `ref_log_probs` [R, G, N], 0 where masked.
    scores: of each response, [R, G, J].
    where: prompts that count, bool [R].
    beta: reward units per nat, > 0.
    axis_name: mapped axis, None on one device.

  Returns:
    `chosen` and `rejected` int32 [R, J] with `pair_weight` [R, J], by which
    losses add up to their means over pairs; the mean losses [J] before the
    first step; metrics. Responses that are all worth the same make no pair.
  """
  chosen = jnp.argmax(scores, axis=1).astype(jnp.int32)
  rejected = jnp.argmin(scores, axis=1).astype(jnp.int32)
  differ = jnp.max(scores, axis=1) > jnp.min(scores, axis=1)
  differ = differ & where[:, None]
  dtype = jnp.result_type(float)
  number = jnp.sum(differ, axis=0, dtype=dtype)
  prompts = jnp.sum(where, dtype=dtype)
  if axis_name is not None:
    number, prompts = jax.lax.psum((number, prompts), axis_name)
  per_pair = _losses(
    jnp.sum(experience["old_log_probs"], axis=-1),
    jnp.sum(experience["ref_log_probs"], axis=-1),
    chosen,
    rejected,
    beta,
  )
  fit = masked_mean(per_pair, where=differ, axis=0, axis_name=axis_name)
  weight = jnp.where(differ, 1 / jnp.maximum(number, 1), 0.0)
  metrics = {"train/pair_share": jnp.mean(number) / jnp.maximum(prompts, 1)}
  pairs = {"chosen": chosen, "rejected": rejected, "pair_weight": weight}
  return pairs, fit, metrics


def _losses(
  log_probs: jax.Array,
  ref_log_probs: jax.Array,
  chosen: jax.Array,
  rejected: jax.Array,
  beta: float,
) -> jax.Array:
  """DPO of pairs [R, J] from log-probabilities of responses [R, G]."""

  def pick(x: jax.Array, at: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, at, axis=1)

  return losses.dpo_loss(
    pick(log_probs, chosen),
    pick(log_probs, rejected),
    pick(ref_log_probs, chosen),
    pick(ref_log_probs, rejected),
    beta=beta,
  )


def preference_objective(
  log_probs: Callable[[Params, Batch], jax.Array], *, beta: float
) -> Objective:
  """Weighted DPO over the pairs of a minibatch.

  Args:
    log_probs: `(params, batch) -> [R, G, N]`.
    beta: reward units per nat, > 0.

  Returns:
    The two phases; what couples pairs is in their weights already.
  """

  def forward(params: Params, batch: Batch) -> jax.Array:
    return jnp.where(batch["counted"], log_probs(params, batch), 0.0)

  def loss(
    outputs: jax.Array, batch: Batch, context: tuple[()]
  ) -> tuple[jax.Array, Metrics]:
    del context
    per_pair = _losses(
      jnp.sum(outputs, axis=-1),
      jnp.sum(batch["ref_log_probs"], axis=-1),
      batch["chosen"],
      batch["rejected"],
      beta,
    )
    weight = batch["pair_weight"].astype(per_pair.dtype)
    counted = batch["counted"]
    drift = losses.kl_estimate(
      batch["old_log_probs"].astype(outputs.dtype), outputs, estimator="k3"
    )
    tokens = jnp.sum(counted, dtype=per_pair.dtype)
    pairs = weight > 0
    right = jnp.sum(per_pair < jnp.log(2.0), where=pairs, dtype=per_pair.dtype)
    return jnp.sum(per_pair * weight), {
      "train/approx_kl": (jnp.sum(drift, where=counted), tokens),
      "train/pair_accuracy": (right, jnp.sum(pairs, dtype=per_pair.dtype)),
    }

  return Objective(forward, lambda outputs, batch: (), loss)
