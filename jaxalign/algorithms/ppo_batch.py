"""PPO batch: advantages, group weights and token weights of scored responses.

All that couples rows is done here, once, over the whole batch: utilities and
weights of the groups, running moments, advantages and their whitening, and the
weight of every token in the loss. What follows is a plain sum over rows, so no
cut of the batch changes it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxalign import losses
from jaxalign.algorithms import (
  group_weights,
  online_dpo,
  policy_metrics,
  reward_shaping,
  update,
)
from jaxalign.algorithms.policy_config import (
  GROUP_RELATIVE,
  PAIRWISE,
  LearnerConfig,
  PolicyConfig,
)
from jaxalign.algorithms.train_state import TrainState
from jaxalign.algorithms.update import Batch, Params
from jaxalign.ops import checks, gae
from jaxalign.ops.masked import masked_mean, masked_var, masked_whiten

Scalars = dict[str, jax.Array]


def token_weights(
  counted: jax.Array,
  where: jax.Array,
  config: PolicyConfig,
  *,
  axis_name: str | None = None,
) -> jax.Array:
  """Weight of each response token in the loss of its minibatch.

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
  relative: jax.Array | None = None,
  outcomes: tuple[jax.Array, jax.Array] | None = None,
  axis_name: str | None = None,
) -> tuple[dict[str, jax.Array], Scalars]:
  """Advantages of tokens and, with a critic, the returns it is to predict.

  The value of a distributional critic is the mean of its prediction. Advantages
  are estimated from means; its target is the distribution of these λ-returns.

  Args:
    experience: `counted` bool, `old_log_probs` and `ref_log_probs`, [R, G, N].
    scores: scaled and shaped, [R, G].
    values: expected return before each token, [R, G, N], or the logits of its
      distribution, [R, G, N, M]; None without a critic.
    config: the learner's.
    kl_coef: of the penalty in the reward, scalar; 0 if it is in the loss.
    relative: advantage of each response, [R, G], where it does not follow from
      `scores`; None computes it.
    outcomes: of each response the probabilities of several scores, and how far
      each is from `scores`, [R, G, d] both, of which a distributional critic
      learns; None for the one score.
    axis_name: mapped axis, None on one device.

  Returns:
    `advantages` [R, G, N]; with a critic `old_values` and `returns`, of the
    same shape, or of a distribution `return_probs` [R, G, N, M]; metrics.
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
    if relative is None:
      relative = losses.group_relative_advantages(
        jnp.sum(rewards, axis=-1), kind=config.policy.kind
      )
    advantages = jnp.where(counted, relative[..., None], 0.0)
  else:
    critic, probs = config.critic, None
    values = values.astype(rewards.dtype)
    if critic.span is not None:
      probs = jax.nn.softmax(values)
      atoms = jnp.linspace(*critic.span, probs.shape[-1], dtype=probs.dtype)
      values = losses.expected_utility(probs, atoms)
    discount = 1.0 if critic.discount is None else critic.discount
    gae_lambda = 1.0 if critic.gae_lambda is None else critic.gae_lambda
    advantages, returns = gae(
      rewards, values, discount=discount, gae_lambda=gae_lambda, where=counted
    )
    found = {"old_values": values, "returns": returns}
    if probs is not None and critic.span is not None:
      low, high = critic.span
      probs = losses.projected_returns(
        probs,
        rewards,
        low=low,
        high=high,
        discount=discount,
        gae_lambda=gae_lambda,
        where=counted,
        final_probs=None if outcomes is None else outcomes[0],
        final_gaps=None if outcomes is None else outcomes[1],
      )
      found = {"return_probs": probs}
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


def decoupled_relative(
  scores: jax.Array,
  penalties: jax.Array,
  weights: jax.Array,
  *,
  where: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """Advantages of GDPO: each reward by itself, then the sum over the batch.

  Args:
    scores: of each group, [R, G, K].
    penalties: what shaping adds to a score, [R, G]; one more reward, of the
      weight of an average group.
    weights: of the groups, [K].
    where: prompts that count, bool [R].
    axis_name: mapped axis the prompts are spread over, None on one device.

  Returns:
    Mean 0 and variance 1 over the responses that count, [R, G].
  """
  (scores,) = checks.floating(scores=scores)
  each = jnp.concatenate([scores, penalties[..., None]], axis=-1)
  average = jnp.mean(weights, keepdims=True)
  summed = losses.decoupled_advantages(
    jnp.where(where[:, None, None], each, 0.0),
    weights=jnp.concatenate([weights, average]),
  )
  counted = jnp.broadcast_to(where[:, None], summed.shape)
  return masked_whiten(summed, where=counted, axis_name=axis_name)


Frozen = Any  # what the reference reads: parameters that are never trained


class PolicyOutputs(NamedTuple):
  """Outputs of a policy for the N response tokens of R prompts, G each.

  Attributes:
    log_probs: of each token given those before it, at the temperature that
      samples, [R, G, N].
    model_log_probs: the same at temperature 1, as a sampler reports them.
    entropy: of the next token at each place, [R, G, N], or None.
    values: expected return before each token, [R, G, N], or the logits of its
      distribution over a critic's atoms, [R, G, N, M], or None.
  """

  log_probs: jax.Array
  model_log_probs: jax.Array
  entropy: jax.Array | None
  values: jax.Array | None


class Networks(NamedTuple):
  """The forward passes of a learner.

  A batch holds `tokens` int32 and `mask` bool [R, G, P + N]: prompts of P
  columns, padded on the left, then responses, padded on the right.

  Attributes:
    actor: `(params, frozen, batch) -> PolicyOutputs`.
    reference: `(frozen, batch) -> log_probs [R, G, N]`.
    critic: `(params, batch) -> values` as PolicyOutputs has them, or None.
    sampler_agrees: whether the log-probabilities that come with the responses
      are those of `actor` up to rounding: its parameters, temperature 1.
  """

  actor: Callable[[Params, Frozen, Batch], PolicyOutputs]
  reference: Callable[[Frozen, Batch], jax.Array]
  critic: Callable[[Params, Batch], jax.Array] | None
  sampler_agrees: bool = False


class PolicyState(NamedTuple):
  """All that a resumed run needs beside its config and frozen parameters.

  Attributes:
    iteration: rollouts learned from, int32 [].
    actor: parameters, optimiser and step of the policy.
    critic: the same of the critic; () without one of its own.
    kl: coefficient of the pull towards the reference.
    moments: running statistics of the scores.
    group_weights: float32 [K].
  """

  iteration: jax.Array
  actor: TrainState
  critic: TrainState | tuple[()]
  kl: losses.KLController
  moments: reward_shaping.Moments
  group_weights: jax.Array


class Prepared(NamedTuple):
  """An iteration's responses, ready to be learned from.

  Attributes:
    experience: arrays [R, ...] of the objectives.
    state: with moments and weights moved on.
    observed_kl: mean KL per response to the reference, nats, scalar.
    metrics: what is reported, scalars.
  """

  experience: dict[str, jax.Array]
  state: PolicyState
  observed_kl: jax.Array
  metrics: Scalars


def prepare(
  networks: Networks,
  state: PolicyState,
  frozen: Frozen,
  batch: Batch,
  config: LearnerConfig,
  *,
  number: int = 1,
  axis_name: str | None = None,
  passed: Mapping[str, jax.Array] | None = None,
) -> Prepared:
  """Rewards, advantages and weights of an iteration's responses.

  Args:
    networks: the forward passes.
    state: of the learner.
    frozen: parameters of the reference.
    batch: `tokens` and `mask` as `Networks` says, `sampler_log_probs`
      [R, G, N], `scores` [R, G, K], `ended` bool [R, G], `group` int32 [R] (the
      group of a prompt, -1 for none), `where` bool [R]; for a critic of labels
      `label_probs` and `label_gaps` [R, G, d], what each is worth beyond the
      score.
    config: the learner's.
    number: micro-batches of the forward passes.
    axis_name: mapped axis the prompts are spread over, None on one device.
    passed: what actor and critic have said of the tokens, None to ask them.

  Returns:
    The experience, float32 or wider.
  """
  counted = response_mask(batch)
  spared = passed is None and spares_forward(networks, config)
  passed = {"log_probs": batch["sampler_log_probs"]} if spared else passed
  asked = _forward(networks, state, frozen, batch, number, passed)
  found = {
    name: jnp.where(counted if x.ndim == 3 else counted[..., None], x, 0.0)
    for name, x in asked.items()
  }

  def flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])

  def mean(x: jax.Array) -> jax.Array:
    return masked_mean(x, where=present, axis_name=axis_name)

  present = flat(jnp.broadcast_to(batch["where"][:, None], counted.shape[:2]))
  combined = group_weights.combine(
    flat(batch["scores"]),
    state.group_weights,
    config.welfare,
    where=present,
    axis_name=axis_name,
  )
  moments = reward_shaping.update_moments(
    state.moments, combined.rewards, where=present, axis_name=axis_name
  )
  shaped = reward_shaping.shaped_scores(
    reward_shaping.scaled_scores(combined.rewards, moments, config.reward),
    flat(batch["tokens"][..., -counted.shape[-1] :]),
    where=flat(counted),
    ended=flat(batch["ended"]),
    config=config.reward,
  )
  log_ratio = losses.kl_estimate(found["log_probs"], found["ref_log_probs"])
  divergence = jnp.sum(log_ratio, axis=-1)
  experience = {k: batch[k] for k in ("tokens", "mask", "row")} | {
    "counted": counted,
    "old_log_probs": found["log_probs"],
    "ref_log_probs": found["ref_log_probs"],
  }
  weights, basis = combined.weights, combined.utilities
  if config.policy.kind in PAIRWISE:
    each = config.policy.kind == "group_dpo"
    pairs, fit, metrics = online_dpo.label_pairs(
      experience,
      batch["scores"] if each else shaped.reshape(*counted.shape[:2], 1),
      where=batch["where"],
      beta=config.kl.coef,
      axis_name=axis_name,
    )
    if each:
      basis = -fit
      weights = group_weights.group_weights(
        basis, state.group_weights, config.welfare
      )
      pairs["pair_weight"] = pairs["pair_weight"] * weights[None]
      for k, name in enumerate(config.groups):
        metrics[f"train/group_loss/{name}"] = fit[k]
    pairs["pair_weight"] = pairs["pair_weight"] * config.policy.minibatches
    experience |= pairs
  else:
    relative = None
    if config.policy.kind == "gdpo":
      relative = decoupled_relative(
        batch["scores"],
        (shaped - combined.rewards).reshape(counted.shape[:2]),
        combined.weights,
        where=batch["where"],
        axis_name=axis_name,
      )
    estimates, metrics = estimate_advantages(
      experience,
      shaped.reshape(counted.shape[:2]),
      found.get("values"),
      config,
      kl_coef=state.kl.kl_coef if config.kl.place == "reward" else 0.0,
      relative=relative,
      outcomes=_outcomes(batch, moments, config),
      axis_name=axis_name,
    )
    experience |= estimates
    experience["weight"] = token_weights(
      counted, batch["where"], config.policy, axis_name=axis_name
    )
    if config.policy.importance_limit is not None:
      experience["importance"] = losses.truncated_importance_weights(
        found["model_log_probs"],
        jnp.where(counted, batch["sampler_log_probs"], 0.0),
        limit=config.policy.importance_limit,
      )
  observed = mean(flat(divergence))
  metrics |= {
    "train/kl": observed,
    "train/kl_coef": state.kl.kl_coef,
    "train/score": mean(combined.rewards),
    "train/shaped_score": mean(shaped),
    "train/worst_utility": jnp.min(combined.utilities),
    "train/response_tokens": mean(
      jnp.sum(flat(counted), axis=-1, dtype=shaped.dtype)
    ),
    "train/ended": mean(flat(batch["ended"]).astype(shaped.dtype)),
  }
  if spared:
    # The step reads its own forward pass for what the policy was.
    experience["sampler_log_probs"] = experience.pop("old_log_probs")
  else:
    metrics |= policy_metrics.mismatch(batch, found, counted, axis_name)
  metrics |= policy_metrics.by_group(
    batch, divergence, combined.utilities, weights, config, axis_name
  )
  kept = group_weights.kept_weights(
    weights, basis, state.group_weights, config.welfare
  )
  state = state._replace(
    moments=moments, group_weights=kept.astype(jnp.float32)
  )
  return Prepared(experience, state, observed, metrics)


def _outcomes(
  batch: Batch, moments: reward_shaping.Moments, config: LearnerConfig
) -> tuple[jax.Array, jax.Array] | None:
  """Chances of labels and their gaps in shaped units, for such a critic."""
  if config.critic.num_labels is None:
    return None
  gaps = batch["label_gaps"]
  unit = reward_shaping.score_unit(moments, config.reward)
  return batch["label_probs"], gaps / unit.astype(gaps.dtype)


def spares_forward(networks: Networks, config: LearnerConfig) -> bool:
  """Whether the step's own forward pass says what the policy was before it."""
  return networks.sampler_agrees and config.one_step


def response_mask(batch: Batch) -> jax.Array:
  """Which response tokens count, bool [R, G, N]."""
  mask: jax.Array = batch["mask"][..., -batch["sampler_log_probs"].shape[-1] :]
  return mask & batch["where"][:, None, None]


def _forward(
  networks: Networks,
  state: PolicyState,
  frozen: Frozen,
  batch: Batch,
  number: int,
  passed: Mapping[str, jax.Array] | None,
) -> dict[str, jax.Array]:
  """Log-probabilities under policy and reference, and values if any."""

  def forward(part: Batch) -> dict[str, jax.Array]:
    found = {"ref_log_probs": networks.reference(frozen, part)}
    if passed is not None:
      return found
    out = networks.actor(state.actor.params, frozen, part)
    found["log_probs"] = out.log_probs
    found["model_log_probs"] = out.model_log_probs
    if networks.critic is not None and isinstance(state.critic, TrainState):
      found["values"] = networks.critic(state.critic.params, part)
    elif out.values is not None:
      found["values"] = out.values
    return found

  read = {k: batch[k] for k in ("tokens", "mask")}
  return {**update.map_over(forward, read, number), **(passed or {})}
