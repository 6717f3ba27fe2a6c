"""How much better than expected each token was, and what it weighs."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms.policy_config import (
  GROUP_RELATIVE,
  LearnerConfig,
  PolicyConfig,
)
from jaxalign.ops import gae
from jaxalign.ops.masked import masked_mean, masked_var, masked_whiten

Scalars = dict[str, jax.Array]


def token_weights(
  counted: jax.Array,
  where: jax.Array,
  config: PolicyConfig,
  *,
  axis_name: str | None = None,
) -> jax.Array:
  """What a token of each response weighs in the loss of its minibatch.

  The mean over minibatches of their losses is the loss of the whole batch: a
  token weighs the same in whichever minibatch it lands.

  Args:
    counted: tokens that count, bool [R, G, N].
    where: prompts that count, bool [R].
    config: with the aggregation and the number of minibatches.
    axis_name: mapped axis, None on one device.

  Returns:
    float32 or wider, [R, G]; 0 for what does not count.
  """
  dtype = jnp.result_type(float)
  lengths = jnp.sum(counted, axis=-1, dtype=dtype)
  responses = jnp.sum(where, dtype=dtype) * counted.shape[1]
  tokens = jnp.sum(lengths)
  if axis_name is not None:
    responses, tokens = jax.lax.psum((responses, tokens), axis_name)
  units = {
    "token_mean": tokens,
    "sequence_mean": responses * lengths,
    "sequence_sum": responses,
    "max_length": responses * counted.shape[-1],
  }[config.aggregation]
  weight = config.minibatches / jnp.maximum(units, 1)
  return jnp.where(lengths > 0, weight, 0.0)


def estimate_advantages(
  experience: Mapping[str, jax.Array],
  scores: jax.Array,
  values: jax.Array | None,
  config: LearnerConfig,
  *,
  kl_coef: jax.Array | float,
  axis_name: str | None = None,
) -> tuple[dict[str, jax.Array], Scalars]:
  """Advantages of tokens and, with a critic, the returns it is to predict.

  The value of a distributional critic is the mean of its law. Advantages are
  estimated from means, and its target is the law of the same λ-returns.

  Args:
    experience: `counted` bool, `old_log_probs` and `ref_log_probs`, [R, G, N].
    scores: scaled and shaped, [R, G].
    values: expected return before each token, [R, G, N], or the logits of its
      law, [R, G, N, M]; None without a critic.
    config: the learner's.
    kl_coef: of the penalty in the reward, scalar; 0 if it is in the loss.
    axis_name: mapped axis, None on one device.

  Returns:
    `advantages` [R, G, N]; with a critic `old_values` and `returns`, of the
    same shape, or of a law `return_probs` [R, G, N, M]; metrics.
  """
  counted = experience["counted"]

  def flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, counted.shape[-1])

  def spread(x: jax.Array) -> jax.Array:
    return masked_var(x, where=counted, axis_name=axis_name)

  kl = losses.kl_estimate(
    experience["old_log_probs"],
    experience["ref_log_probs"],
    estimator=config.kl.estimator,
  )
  rewards = losses.token_rewards(
    scores.reshape(-1), flat(kl), kl_coef=kl_coef, where=flat(counted)
  ).reshape(counted.shape)
  found: dict[str, jax.Array] = {}
  metrics: Scalars = {}
  if config.policy.kind in GROUP_RELATIVE or values is None:
    relative = losses.group_relative_advantages(
      jnp.sum(rewards, axis=-1), kind=config.policy.kind
    )
    advantages = jnp.where(counted, relative[..., None], 0.0)
  else:
    critic, law = config.critic, None
    values = values.astype(rewards.dtype)
    if critic.span is not None:
      law = jax.nn.softmax(values)
      atoms = jnp.linspace(*critic.span, law.shape[-1], dtype=law.dtype)
      values = losses.expected_utility(law, atoms)
    discount = 1.0 if critic.discount is None else critic.discount
    gae_lambda = 1.0 if critic.gae_lambda is None else critic.gae_lambda
    advantages, returns = gae(
      rewards, values, discount=discount, gae_lambda=gae_lambda, where=counted
    )
    found = {"old_values": values, "returns": returns}
    if law is not None and critic.span is not None:
      low, high = critic.span
      law = losses.projected_returns(
        law,
        rewards,
        low=low,
        high=high,
        discount=discount,
        gae_lambda=gae_lambda,
        where=counted,
      )
      found = {"return_probs": law}
      metrics["train/returns_out_of_range"] = masked_mean(
        ((returns < low) | (returns > high)).astype(returns.dtype),
        where=counted,
        axis_name=axis_name,
      )
    total = spread(returns)
    explained = 1 - spread(returns - values) / jnp.where(total > 0, total, 1.0)
    metrics["train/explained_variance"] = jnp.where(total > 0, explained, 0.0)
  metrics["train/advantage_std"] = jnp.sqrt(spread(advantages))
  if config.policy.whiten:
    advantages = masked_whiten(advantages, where=counted, axis_name=axis_name)
  return {"advantages": advantages, **found}, metrics
