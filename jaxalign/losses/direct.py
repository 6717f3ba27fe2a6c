"""Direct preference optimisation: DPO, robust DPO, IPO and KTO.

`dpo_loss` and its form over groups take log-probabilities. The others take
implicit rewards, so that a margin or a soft label means to them what it means
to a reward model: DPO is `bradley_terry_loss` of implicit rewards, with soft
labels `soft_preference_loss`, and SimPO is the same of rewards per token.
"""

import jax
import jax.numpy as jnp

from jaxalign.losses import pairwise
from jaxalign.ops import checks, segments
from jaxalign.ops.masked import AxisName


def dpo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: float,
  flip_rate: float = 0.0,
) -> jax.Array:
  """Negative log-likelihood of a preference under the implicit reward, in nats.

    d = β [(log π_c − log ref_c) − (log π_r − log ref_r)]
    l = −(1 − e) log σ(d) − e log σ(−d)

  Args:
    chosen_log_probs: log-probability of the whole preferred response, [...].
    rejected_log_probs: the same of the other response, [...].
    ref_chosen_log_probs: the reference policy on the preferred one, [...].
    ref_rejected_log_probs: the reference policy on the other one, [...].
    beta: β > 0, reward units per nat, Python float.
    flip_rate: e, assumed share of mislabelled pairs, Python float in [0, 0.5).

  Returns:
    Loss per pair, [...], not reduced.

  Raises:
    TypeError: an array is not floating point.
    ValueError: shapes differ, or beta or flip_rate is out of range.

  References:
    Rafailov et al., "Direct preference optimization", 2023, equation 7.
    Mitchell, "A note on DPO with noisy preferences", 2023: the flip rate.
  """
  if not beta > 0.0:
    raise ValueError(f"beta must be positive, got {beta}")
  if not 0.0 <= flip_rate < 0.5:
    raise ValueError(f"flip_rate must be in [0, 0.5), got {flip_rate}")
  arrays = dict(
    chosen_log_probs=chosen_log_probs,
    rejected_log_probs=rejected_log_probs,
    ref_chosen_log_probs=ref_chosen_log_probs,
    ref_rejected_log_probs=ref_rejected_log_probs,
  )
  checks.same_shape(**arrays)
  chosen, rejected, ref_chosen, ref_rejected = checks.floating(**arrays)
  gap = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
  agree, flipped = -jax.nn.log_sigmoid(gap), -jax.nn.log_sigmoid(-gap)
  return (1 - flip_rate) * agree + flip_rate * flipped


def group_robust_dpo_loss(
  chosen_log_probs: jax.Array,
  rejected_log_probs: jax.Array,
  ref_chosen_log_probs: jax.Array,
  ref_rejected_log_probs: jax.Array,
  *,
  beta: float,
  group: jax.Array,
  weights: jax.Array,
  flip_rate: float = 0.0,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> tuple[jax.Array, jax.Array]:
  """Group-robust DPO: weighted DPO loss, and the group losses behind weights.

    L_k = mean of `dpo_loss` over the counted pairs of group k
    L   = Σ_k λ_k L_k

  min over the policy of max over λ on the simplex: after each step raise the
  weight of what is still badly fitted,
  `exponentiated_weights(weights, -group_losses, step_size=...)`.

  Args:
    chosen_log_probs: log-probability of the whole preferred response, [B].
    rejected_log_probs: the same of the other response, [B].
    ref_chosen_log_probs: the reference policy on the preferred one, [B].
    ref_rejected_log_probs: the reference policy on the other one, [B].
    beta: β > 0, reward units per nat, Python float.
    group: which group a pair comes from, int [B].
    weights: λ on the simplex, float [K]; to be passed as constants.
    flip_rate: e, assumed share of mislabelled pairs, Python float in [0, 0.5).
    where: bool [B], True counts, all by default.
    axis_name: mapped axes the pairs are spread over, None on one device.

  Returns:
    The loss, a scalar, and the group losses [K], in nats. A group without
    pairs has loss 0 and nothing is renormalised for it.

  Raises:
    TypeError: an array is of the wrong kind.
    ValueError: shapes differ, or beta or flip_rate is out of range.

  References:
    Ramesh et al., "Group robust preference optimization in reward-free RLHF",
    2024, algorithm 1.
  """
  checks.rank(1, chosen_log_probs=chosen_log_probs, weights=weights)
  checks.integer(group=group)
  checks.same_shape(chosen_log_probs=chosen_log_probs, group=group)
  log_probs, where = checks.counted(
    where,
    chosen_log_probs=chosen_log_probs,
    rejected_log_probs=rejected_log_probs,
    ref_chosen_log_probs=ref_chosen_log_probs,
    ref_rejected_log_probs=ref_rejected_log_probs,
  )
  losses = dpo_loss(*log_probs, beta=beta, flip_rate=flip_rate)
  group_losses = segments.segment_mean(
    losses,
    segment=group,
    num_segments=jnp.shape(weights)[0],
    where=where,
    axis_name=axis_name,
  )
  group_losses, weights = checks.floating(
    group_losses=group_losses, weights=weights
  )
  loss = jnp.sum(weights * group_losses)
  return loss, group_losses


def implicit_rewards(
  log_probs: jax.Array,
  *,
  beta: float,
  ref_log_probs: jax.Array | None = None,
  lengths: jax.Array | None = None,
) -> jax.Array:
  """Reward whose optimal policy is the given one, up to a shift per prompt.

    r = β (log π(y|x) − log ref(y|x)),   over |y| with lengths

  Args:
    log_probs: log-probability of each whole response, [...].
    beta: β > 0, reward units per nat, Python float.
    ref_log_probs: the same under the reference; None for none, as in SimPO.
    lengths: tokens of each response, [...]; None for the sum over them. A
      response of no token has reward 0.

  Returns:
    Rewards, [...].

  Raises:
    TypeError: an array is not floating point, or lengths are not integers.
    ValueError: shapes differ, or beta is out of range.

  References:
    Rafailov et al., "Direct preference optimization", 2023, equation 5.
    Meng et al., "SimPO", 2024, equation 4: per token, without a reference.
  """
  if not beta > 0.0:
    raise ValueError(f"beta must be positive, got {beta}")
  (ratio,) = checks.floating(log_probs=log_probs)
  if ref_log_probs is not None:
    checks.same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
    ratio, reference = checks.floating(
      log_probs=log_probs, ref_log_probs=ref_log_probs
    )
    ratio = ratio - reference
  if lengths is not None:
    checks.integer(lengths=lengths)
    checks.same_shape(log_probs=log_probs, lengths=lengths)
    ratio = ratio / jnp.maximum(lengths, 1).astype(ratio.dtype)
  return beta * ratio


def robust_preference_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  flip_rate: float,
  margin: jax.Array | float = 0.0,
) -> jax.Array:
  """Unbiased loss of the true label where labels are flipped at random.

    l = [(1 − e) b(d) − e b(−d)] / (1 − 2e) = b(d) − e d / (1 − 2e)
    b(d) = −log σ(d),   d = chosen − rejected − margin

  The mean over flips of rate e is b of the true label. It falls without bound
  as the gap grows, at slope e / (1 − 2e), which `bradley_terry_loss` with the
  same `flip_rate` does not.

  Args:
    chosen: reward of the preferred response, float [...].
    rejected: reward of the other response, float [...].
    flip_rate: e, assumed share of mislabelled pairs, Python float in [0, 0.5).
    margin: gap the pair must clear, in reward units, scalar or [...].

  Returns:
    Loss per pair, [...], in nats, not reduced; it may be negative.

  Raises:
    TypeError: a reward or an array margin is not floating point.
    ValueError: the shapes differ, or flip_rate is out of range.

  References:
    Chowdhury et al., "Provably robust DPO", 2024, equation 9.
  """
  if not 0.0 <= flip_rate < 0.5:
    raise ValueError(f"flip_rate must be in [0, 0.5), got {flip_rate}")
  gap = pairwise.gap_beyond(chosen, rejected, margin)
  return -jax.nn.log_sigmoid(gap) - flip_rate / (1 - 2 * flip_rate) * gap


def ipo_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  beta: float,
  chosen_prob: jax.Array | float = 1.0,
  margin: jax.Array | float = 0.0,
) -> jax.Array:
  """Squared distance of a log-ratio gap from what the label asks for.

    l = p (h − 1 / 2β)² + (1 − p) (h + 1 / 2β)²
    h = (chosen − rejected − margin) / β

  The least is at h = (2p − 1) / 2β, so a pair that all agree on asks for a
  finite gap, where the logistic loss asks for an infinite one.

  Args:
    chosen: implicit reward of the preferred response, float [...].
    rejected: implicit reward of the other response, float [...].
    beta: β > 0 of `implicit_rewards`, the paper's τ, Python float.
    chosen_prob: p, share of votes for `chosen`, in [0, 1], scalar or [...].
    margin: gap the pair must clear, in reward units, scalar or [...].

  Returns:
    Loss per pair, [...], in squared nats, not reduced.

  Raises:
    TypeError: a reward, or an array given as probability or margin, is not
      floating point.
    ValueError: shapes differ, or beta or a chosen_prob is out of range; of
      traced arrays the latter cannot be checked.

  References:
    Azar et al., "A general theoretical paradigm to understand learning from
    human preferences", 2023, equation 17.
  """
  if not beta > 0.0:
    raise ValueError(f"beta must be positive, got {beta}")
  checks.fraction(chosen_prob=chosen_prob)
  gap = pairwise.gap_beyond(chosen, rejected, margin) / beta
  if isinstance(chosen_prob, (int, float)):
    chosen_prob = jnp.asarray(chosen_prob, gap.dtype)
  elif jnp.ndim(chosen_prob) > 0:
    checks.same_shape(chosen=chosen, chosen_prob=chosen_prob)
  gap, prob = checks.floating(gap=gap, chosen_prob=chosen_prob)
  wanted = 1 / (2 * beta)
  agree, flipped = jnp.square(gap - wanted), jnp.square(gap + wanted)
  return prob * agree + (1 - prob) * flipped


def kto_loss(
  rewards: jax.Array,
  *,
  reference_point: jax.Array | float,
  desirable: jax.Array,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
) -> jax.Array:
  """Loss of single labelled responses against what the policy gives on average.

    l = p λ_D (1 − σ(r − z)) + (1 − p) λ_U (1 − σ(z − r))

  Args:
    rewards: r, implicit rewards, float [...].
    reference_point: z >= 0, β times the KL of the policy from the reference,
      as a constant; scalar or [...].
    desirable: p, whether the response is desired: bool, or the share of votes
      for it in [0, 1], [...].
    desirable_weight: λ_D >= 0, Python float.
    undesirable_weight: λ_U >= 0, Python float.

  Returns:
    Loss per response, [...], in [0, max(λ_D, λ_U)], not reduced.

  Raises:
    TypeError: rewards or the reference point are not floating point.
    ValueError: shapes differ, or a weight is negative.

  References:
    Ethayarajh et al., "KTO: model alignment as prospect theoretic
    optimization", 2024, equation 8.
  """
  for name, weight in (
    ("desirable_weight", desirable_weight),
    ("undesirable_weight", undesirable_weight),
  ):
    if not weight >= 0.0:
      raise ValueError(f"{name} must be >= 0, got {weight}")
  checks.same_shape(rewards=rewards, desirable=desirable)
  (rewards,) = checks.floating(rewards=rewards)
  if isinstance(reference_point, (int, float)):
    reference_point = jnp.asarray(reference_point, rewards.dtype)
  elif jnp.ndim(reference_point) > 0:
    checks.same_shape(rewards=rewards, reference_point=reference_point)
  rewards, point = checks.floating(
    rewards=rewards, reference_point=reference_point
  )
  share = jnp.asarray(desirable).astype(rewards.dtype)
  gain = jax.nn.sigmoid(rewards - point)
  return (
    share * desirable_weight * (1 - gain)
    + (1 - share) * undesirable_weight * gain
  )
