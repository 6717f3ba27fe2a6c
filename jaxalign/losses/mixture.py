"""Mixture of reward models over users: likelihood and responsibilities."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks, segments
from jaxalign.ops.masked import AxisName


def _joint_log_likelihood(
  gaps: jax.Array,
  user: jax.Array,
  num_users: int,
  mixture_weights: jax.Array,
  where: jax.Array | None,
  axis_name: AxisName,
) -> jax.Array:
  """The joint log π_k + Σ_{n∈u} log σ(gap_nk), [U, K]; −inf where π_k = 0."""
  checks.rank(2, gaps=gaps)
  checks.rank(1, user=user, mixture_weights=mixture_weights)
  checks.integer(user=user)
  checks.fraction(mixture_weights=mixture_weights)
  if jnp.shape(user) != jnp.shape(gaps)[:1]:
    raise ValueError(
      f"user must be {jnp.shape(gaps)[:1]} for gaps {jnp.shape(gaps)}, got "
      f"{jnp.shape(user)}"
    )
  if num_users < 1:
    raise ValueError(f"num_users must be at least 1, got {num_users}")
  if jnp.shape(gaps)[1:] != jnp.shape(mixture_weights):
    raise ValueError(
      "mixture_weights must have one entry per column of gaps, got "
      f"{jnp.shape(mixture_weights)} for gaps {jnp.shape(gaps)}"
    )
  gaps, weights = checks.floating(gaps=gaps, mixture_weights=mixture_weights)
  if where is not None:
    checks.boolean(where=where)
    checks.same_shape(user=user, where=where)
    gaps = jnp.where(where[:, None], gaps, 0.0)
  likelihood = segments.segment_sum(
    jax.nn.log_sigmoid(gaps),
    segment=user,
    num_segments=num_users,
    where=where,
    axis_name=axis_name,
  )
  # The slope of log at 0 is infinite, so the log never sees a 0.
  present = weights > 0
  log_weights = jnp.log(jnp.where(present, weights, 1.0))
  return jnp.where(present[None], likelihood + log_weights[None], -jnp.inf)


def mixture_log_likelihood(
  gaps: jax.Array,
  *,
  user: jax.Array,
  num_users: int,
  mixture_weights: jax.Array,
  where: jax.Array | None = None,
  axis_name: AxisName = None,
) -> jax.Array:
  """Log-likelihood of all preferences, latent groups summed out, in nats.

    L = Σ_u log Σ_k π_k Π_{n∈u} σ(gap_nk)

  All pairs of a user must be present, here or over `axis_name`: this is for
  full passes, a minibatch would sum over groups that change between batches.

  Args:
    gaps: reward of chosen minus reward of rejected under each component,
      float [N, K].
    user: who stated each preference, int [N]; a row with an index outside
      [0, num_users) belongs to no user and is dropped.
    num_users: U, a Python int.
    mixture_weights: π on the simplex, float [K]. A weight of exactly 0 takes
      its component out, gradient included.
    where: bool [N], True counts, all by default.
    axis_name: mapped axes the pairs are spread over, None on one device.

  Returns:
    A scalar, at most 0; a user without pairs adds log Σ π = 0.

  Raises:
    TypeError: an array is of the wrong kind.
    ValueError: shapes differ, num_users is below 1, or a known weight is
      outside [0, 1].

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, section 4; soft assignment.
  """
  joint = _joint_log_likelihood(
    gaps, user, num_users, mixture_weights, where, axis_name
  )
  return jnp.sum(jax.nn.logsumexp(joint, axis=-1))


def user_responsibilities(
  gaps: jax.Array,
  *,
  user: jax.Array,
  num_users: int,
  mixture_weights: jax.Array,
  where: jax.Array | None = None,
  hard: bool = False,
  axis_name: AxisName = None,
) -> jax.Array:
  """Posterior probability of each component for each user.

    ρ_uk ∝ π_k Π_{n∈u} σ(gap_nk)

  in log space, so a user may have any number of pairs.

  Args:
    gaps: reward of chosen minus reward of rejected under each component,
      float [N, K].
    user: who stated each preference, int [N]; a row with an index outside
      [0, num_users) belongs to no user and is dropped.
    num_users: U, a Python int.
    mixture_weights: π on the simplex, float [K].
    where: bool [N], True counts, all by default.
    hard: one-hot rows at the largest ρ, the first on ties, without gradient;
      the E-step of the paper with uniform π.
    axis_name: mapped axes the pairs are spread over, None on one device.

  Returns:
    ρ, [U, K], rows on the simplex. A user without pairs gets
    `mixture_weights`, also when `hard`.

  Raises:
    TypeError: an array is of the wrong kind.
    ValueError: shapes differ, num_users is below 1, or a known weight is
      outside [0, 1].

  References:
    Chakraborty et al., "MaxMin-RLHF", 2024, algorithm 2.
  """
  joint = _joint_log_likelihood(
    gaps, user, num_users, mixture_weights, where, axis_name
  )
  count = segments.segment_count(
    user, num_segments=num_users, where=where, axis_name=axis_name
  )
  if hard:
    rows = jax.nn.one_hot(
      jnp.argmax(joint, axis=-1), joint.shape[-1], dtype=joint.dtype
    )
  else:
    rows = jax.nn.softmax(joint, axis=-1)
  (prior,) = checks.floating(mixture_weights=mixture_weights)
  return jnp.where((count > 0)[:, None], rows, prior[None].astype(rows.dtype))
