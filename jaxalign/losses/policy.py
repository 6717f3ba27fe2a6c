"""Policy losses: clipped PPO, group advantages, importance corrections.

Per token and unreduced. A log-ratio is held within ±20 before it is
exponentiated, with zero gradient beyond: e²⁰ is 5·10⁸, where a ratio has long
stopped to mean anything, and an overflow would spread to the whole batch.
Padding is the caller's: a NaN in it has to be replaced before, not after.
"""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks

_LOG_RATIO_LIMIT = 20.0
_ADVANTAGES = ("grpo", "rloo", "dr_grpo")


def _ratio(log_ratio: jax.Array) -> jax.Array:
  return jnp.exp(jnp.clip(log_ratio, -_LOG_RATIO_LIMIT, _LOG_RATIO_LIMIT))


def _clip_range(
  clip_eps: float | tuple[float, float],
) -> tuple[float, float]:
  """How far the ratio may fall below 1 and rise above it."""
  low, high = clip_eps if isinstance(clip_eps, tuple) else (clip_eps, clip_eps)
  if not (low > 0.0 and high > 0.0):
    raise ValueError(f"clip_eps must be positive, got {clip_eps}")
  return low, high


def clipped_policy_loss(
  log_probs: jax.Array,
  old_log_probs: jax.Array,
  advantages: jax.Array,
  *,
  clip_eps: float | tuple[float, float] = 0.2,
  dual_clip: float | None = None,
) -> jax.Array:
  """Clipped surrogate of the policy gradient, in reward units.

    ρ = π(y_t) / π_old(y_t)
    l = max(−ρ A, −clip(ρ, 1 − ε_low, 1 + ε_high) A)
    with dual clip c:   l = min(l, −c A) where A < 0

  Args:
    log_probs: log-probability of each token now, float [...].
    old_log_probs: the same when the token was drawn, float [...].
    advantages: A, float [...]; to be passed as constants.
    clip_eps: ε > 0, Python float, or the pair (ε_low, ε_high): a wider upper
      range lets unlikely tokens grow, as "clip-higher" of DAPO.
    dual_clip: c > 1, Python float, bounds the loss of a token that became
      likely and turned out bad; None is off.

  Returns:
    Loss per token, [...]. Where the clip holds, the gradient is 0 to every
    order.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or clip_eps or dual_clip is out of range.

  References:
    Schulman et al., "Proximal policy optimization algorithms", 2017,
    equation 7.
    Ye et al., "Mastering complex control in MOBA games with deep reinforcement
    learning", 2020, equation 5: the dual clip.
    Yu et al., "DAPO: an open-source LLM reinforcement learning system at
    scale", 2025, equation 10: two ranges, 0.2 and 0.28.
  """
  low, high = _clip_range(clip_eps)
  if dual_clip is not None and not dual_clip > 1.0:
    raise ValueError(f"dual_clip must be above 1, got {dual_clip}")
  arrays = dict(
    log_probs=log_probs,
    old_log_probs=old_log_probs,
    advantages=advantages,
  )
  checks.same_shape(**arrays)
  log_probs, old, advantages = checks.floating(**arrays)
  ratio = _ratio(log_probs - old)
  clipped = jnp.clip(ratio, 1 - low, 1 + high)
  loss = jnp.maximum(-ratio * advantages, -clipped * advantages)
  if dual_clip is not None:
    bounded = jnp.minimum(loss, -dual_clip * advantages)
    loss = jnp.where(advantages < 0, bounded, loss)
  return loss


def policy_clipped(
  log_probs: jax.Array,
  old_log_probs: jax.Array,
  advantages: jax.Array,
  *,
  clip_eps: float | tuple[float, float] = 0.2,
) -> jax.Array:
  """Mask of tokens whose gradient the clip has removed.

  Args:
    log_probs: log-probability of each token now, float [...].
    old_log_probs: the same when the token was drawn, float [...].
    advantages: A, float [...].
    clip_eps: ε > 0, Python float, or the pair (ε_low, ε_high).

  Returns:
    bool [...]: ρ > 1 + ε_high with A > 0, or ρ < 1 − ε_low with A < 0. Its
    masked mean is the clip fraction.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or clip_eps is not positive.
  """
  low, high = _clip_range(clip_eps)
  arrays = dict(
    log_probs=log_probs,
    old_log_probs=old_log_probs,
    advantages=advantages,
  )
  checks.same_shape(**arrays)
  log_probs, old, advantages = checks.floating(**arrays)
  ratio = _ratio(log_probs - old)
  return ((ratio > 1 + high) & (advantages > 0)) | (
    (ratio < 1 - low) & (advantages < 0)
  )


def clipped_value_loss(
  values: jax.Array,
  old_values: jax.Array,
  returns: jax.Array,
  *,
  clip_eps: float = 0.2,
) -> jax.Array:
  """Squared error of a value, clipped to stay near the old value.

    l = ½ max((V − G)², (clip(V, V_old − ε, V_old + ε) − G)²)

  Args:
    values: V, float [...].
    old_values: V_old when the rollout was made, float [...].
    returns: G, float [...]; to be passed as constants.
    clip_eps: ε > 0 in reward units, Python float.

  Returns:
    Loss per token in squared reward units, [...], with the ½.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or clip_eps is not positive.

  References:
    Huang et al., "The 37 implementation details of proximal policy
    optimization", 2022, detail 9.
  """
  _clip_range(clip_eps)
  arrays = dict(values=values, old_values=old_values, returns=returns)
  checks.same_shape(**arrays)
  values, old, returns = checks.floating(**arrays)
  clipped = jnp.clip(values, old - clip_eps, old + clip_eps)
  return 0.5 * jnp.maximum(
    jnp.square(values - returns), jnp.square(clipped - returns)
  )


def group_relative_advantages(
  rewards: jax.Array, *, kind: str = "grpo"
) -> jax.Array:
  """Advantage of each response over the others to the same prompt.

    grpo      (r − mean) / (std + 1e-6), std with G − 1
    rloo      r − mean of the others = (r − mean) G / (G − 1)
    dr_grpo   r − mean

  Args:
    rewards: rewards of G ≥ 2 responses to a prompt, float [..., G].
    kind: "grpo", "rloo" or "dr_grpo".

  Returns:
    Advantages, [..., G]; equal rewards give 0 with zero gradient.

  Raises:
    TypeError: rewards are not floating point.
    ValueError: the kind is unknown, or there are fewer than two responses.

  References:
    Shao et al., "DeepSeekMath", 2024, section 4.1: grpo.
    Ahmadian et al., "Back to basics", 2024, equation 9: rloo.
    Liu et al., "Understanding R1-Zero-like training", 2025: dr_grpo.
  """
  checks.one_of(_ADVANTAGES, kind=kind)
  if jnp.ndim(rewards) < 1 or jnp.shape(rewards)[-1] < 2:
    raise ValueError(
      "rewards must have a last axis of at least 2 responses, got shape "
      f"{jnp.shape(rewards)}"
    )
  (rewards,) = checks.floating(rewards=rewards)
  size = rewards.shape[-1]
  centred = rewards - jnp.mean(rewards, axis=-1, keepdims=True)
  if kind == "dr_grpo":
    return centred
  if kind == "rloo":
    return centred * (size / (size - 1))
  variance = jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / (size - 1)
  spread = variance > 0  # the root's slope at 0 is infinite
  std = jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1.0)), 0.0)
  return centred / (std + 1e-6)


def decoupled_advantages(
  rewards: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
  """Sum over several rewards, each normalised over the responses by itself.

    A_g = Σ_k w_k (r_gk − mean_k) / (std_k + 1e-6), std with G − 1

  A reward on a large scale, or one that always differs, does not drown the
  others, as it does where the sum is normalised. The paper then brings A to
  mean 0 and variance 1 over the batch: `ops.masked_whiten`. The authors'
  programs add 1e-6 (in verl) or 1e-4 (in TRL) to std, with G − 1 as here.

  Args:
    rewards: K rewards of G ≥ 2 responses to a prompt, float [..., G, K].
    weights: w of each reward, float [K]; None for ones.

  Returns:
    Advantages before they are whitened, [..., G]; a reward that does not differ
    among the responses adds 0 with zero gradient.

  Raises:
    TypeError: an array is not floating point.
    ValueError: there are fewer than two responses, or weights are not [K].

  References:
    Liu et al., "GDPO: group reward-decoupled normalization policy optimization
    for multi-reward RL optimization", 2026, arXiv 2601.05242.
  """
  if jnp.ndim(rewards) < 2 or jnp.shape(rewards)[-2] < 2:
    raise ValueError(
      "rewards must be [..., G, K] with at least 2 responses, got "
      f"{jnp.shape(rewards)}"
    )
  (rewards,) = checks.floating(rewards=rewards)
  each = group_relative_advantages(jnp.moveaxis(rewards, -1, 0), kind="grpo")
  if weights is None:
    return jnp.sum(each, axis=0)
  if jnp.shape(weights) != (len(each),):
    raise ValueError(
      f"weights must be [{len(each)}], one per reward, got {jnp.shape(weights)}"
    )
  (weights,) = checks.floating(weights=weights)
  return jnp.tensordot(weights.astype(each.dtype), each, axes=1)


def truncated_importance_weights(
  log_probs: jax.Array, sampler_log_probs: jax.Array, *, limit: float = 2.0
) -> jax.Array:
  """Truncated importance weights between the sampler and the learner.

    w = min(π_learner(y_t) / π_sampler(y_t), C)

  Args:
    log_probs: the learner's log-probability of each token under the weights
      it was drawn with, float [...].
    sampler_log_probs: what the sampler reported, float [...].
    limit: C > 0, Python float.

  Returns:
    Weights per token, [...], without gradient; they multiply a policy loss.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or limit is not positive.

  References:
    Ionides, "Truncated importance sampling", 2008.
  """
  if not limit > 0.0:
    raise ValueError(f"limit must be positive, got {limit}")
  arrays = dict(log_probs=log_probs, sampler_log_probs=sampler_log_probs)
  checks.same_shape(**arrays)
  log_probs, sampler = checks.floating(**arrays)
  ratio = jax.lax.stop_gradient(_ratio(log_probs - sampler))
  return jnp.minimum(ratio, limit)
