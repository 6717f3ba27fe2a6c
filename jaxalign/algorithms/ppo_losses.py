"""PPO losses: actor and critic over one minibatch of prepared responses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms.policy_config import CriticConfig, LearnerConfig
from jaxalign.algorithms.ppo_batch import PolicyOutputs
from jaxalign.algorithms.update import Batch, Metrics, Objective, Params


def policy_objective(
  forward: Callable[[Params, Batch], PolicyOutputs],
  config: LearnerConfig,
  kl_coef: jax.Array,
  *,
  own_past: bool = False,
) -> Objective:
  """Clipped surrogate, entropy, KL and, on a shared trunk, the value loss.

    l_t = clip loss(A_t) + β kl_t − c_H H_t + c_V value loss_t

  β is 0 where the KL is in the reward. The loss of a minibatch is Σ w_t l_t
  with the weights of `ppo_batch.token_weights`.

  Args:
    forward: `(params, batch) -> PolicyOutputs`.
    config: the learner's.
    kl_coef: β, scalar.
    own_past: whether the policy that is passed forward is the one that sampled,
      so that its own log-probabilities are the old ones. The batch then has
      `sampler_log_probs` in their place, which are reported on.

  Returns:
    The two phases; what couples tokens is in advantages and weights already.
  """
  policy = config.policy

  def loss(
    outputs: PolicyOutputs, batch: Batch, context: tuple[()]
  ) -> tuple[jax.Array, Metrics]:
    del context
    counted = batch["counted"]
    # Where nothing counts the ratio is 1 and its gradient 0.
    past = batch["sampler_log_probs" if own_past else "old_log_probs"]
    log_probs = jnp.where(counted, outputs.log_probs, past)
    dtype = log_probs.dtype
    old, advantages = past.astype(dtype), batch["advantages"].astype(dtype)
    if own_past:
      old = jax.lax.stop_gradient(log_probs)
    low = 0.2 if policy.clip_eps is None else policy.clip_eps
    high = low if policy.clip_eps_high is None else policy.clip_eps_high
    clip_eps = (low, high)
    per_token = losses.clipped_policy_loss(
      log_probs, old, advantages, clip_eps=clip_eps, dual_clip=policy.dual_clip
    )
    if policy.importance_limit is not None:
      per_token = per_token * batch["importance"].astype(dtype)

    def mean_of(x: jax.Array) -> tuple[jax.Array, jax.Array]:
      total = jnp.sum(jnp.where(counted, x, 0.0))
      return total, jnp.sum(counted, dtype=dtype)

    drift = losses.kl_estimate(old, log_probs, estimator="k3")
    clipped = losses.policy_clipped(
      log_probs, old, advantages, clip_eps=clip_eps
    )
    metrics = {
      "train/policy_loss": mean_of(per_token),
      "train/approx_kl": mean_of(drift),
      "train/clip_fraction": mean_of(clipped.astype(dtype)),
      "train/entropy": mean_of(-log_probs),
    }
    if own_past:
      said = past.astype(dtype)
      distance = losses.kl_estimate(said, old, estimator="k3")
      metrics["train/mismatch_mean_abs"] = mean_of(jnp.abs(said - old))
      metrics["train/mismatch_kl"] = mean_of(distance)
    if config.kl.place == "loss":
      pull = losses.kl_estimate(
        log_probs,
        jnp.where(counted, batch["ref_log_probs"], log_probs).astype(dtype),
        estimator=config.kl.estimator,
      )
      metrics["train/kl_loss"] = mean_of(pull)
      per_token = per_token + kl_coef.astype(dtype) * pull
    if policy.entropy_coef is not None and outputs.entropy is not None:
      entropy = jnp.where(counted, outputs.entropy, 0.0)
      metrics["train/entropy"] = mean_of(entropy)
      per_token = per_token - policy.entropy_coef * entropy
    if config.critic.coef is not None and outputs.values is not None:
      errors = value_losses(outputs.values, batch, config.critic)
      metrics["train/value_loss"] = mean_of(errors)
      per_token = per_token + config.critic.coef * errors
    weight = batch["weight"][..., None].astype(dtype)
    return jnp.sum(jnp.where(counted, per_token, 0.0) * weight), metrics

  return Objective(forward, lambda outputs, batch: (), loss)


def value_losses(
  values: jax.Array, batch: Batch, config: CriticConfig
) -> jax.Array:
  """The error of each prediction, 0 where masked.

  Half the square of a value's, clipped if asked; of a distributional
  critic the cross-entropy against the return distribution.

  Args:
    values: [R, G, N], or logits over atoms [R, G, N, M].
    batch: `counted`, `old_values` and `returns`, [R, G, N], or in place of the
      last two `return_probs`, [R, G, N, M].
    config: how far a value may move, and whether there are atoms.

  Returns:
    [R, G, N].
  """
  counted, clip = batch["counted"], config.clip
  if config.num_atoms is not None:
    return losses.categorical_critic_loss(
      values, batch["return_probs"].astype(values.dtype), where=counted
    )
  values = jnp.where(counted, values, 0.0)
  old, returns = (
    batch[k].astype(values.dtype) for k in ("old_values", "returns")
  )
  if clip is None:
    errors = 0.5 * jnp.square(values - returns)
  else:
    errors = losses.clipped_value_loss(values, old, returns, clip_eps=clip)
  return jnp.where(counted, errors, 0.0)


def value_objective(
  values: Callable[[Params, Batch], jax.Array], config: LearnerConfig
) -> Objective:
  """The loss of a critic of its own, a mean over the tokens of the batch.

  Args:
    values: `(params, batch) -> [R, G, N]`, or logits [R, G, N, M].
    config: the learner's.

  Returns:
    The two phases.
  """

  def loss(
    outputs: jax.Array, batch: Batch, context: tuple[()]
  ) -> tuple[jax.Array, Metrics]:
    del context
    errors = value_losses(outputs, batch, config.critic)
    weight = batch["weight"][..., None].astype(errors.dtype)
    total = jnp.sum(errors)
    count = jnp.sum(batch["counted"], dtype=errors.dtype)
    return jnp.sum(errors * weight), {"train/value_loss": (total, count)}

  return Objective(values, lambda outputs, batch: (), loss)
