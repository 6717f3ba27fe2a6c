"""Direct preference optimisation (DPO), plain and group-robust."""

import jax
import jax.numpy as jnp

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
