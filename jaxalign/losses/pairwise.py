"""Losses on pairs and rankings of responses, per prompt and never reduced."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


def gap_beyond(
  chosen: jax.Array, rejected: jax.Array, margin: jax.Array | float
) -> jax.Array:
  """Gap past the margin, after the checks that every pair loss shares."""
  checks.same_shape(chosen=chosen, rejected=rejected)
  chosen, rejected = checks.floating(chosen=chosen, rejected=rejected)
  if isinstance(margin, (int, float)):
    return chosen - rejected - margin
  if jnp.ndim(margin) > 0:  # [B] against [B, 1] would broadcast to [B, B]
    checks.same_shape(chosen=chosen, margin=margin)
  chosen, rejected, margin = checks.floating(
    chosen=chosen, rejected=rejected, margin=margin
  )
  return chosen - rejected - margin


def bradley_terry_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  margin: jax.Array | float = 0.0,
  flip_rate: float = 0.0,
) -> jax.Array:
  """Negative log-likelihood of a preference under Bradley-Terry, in nats.

    l = −(1 − e) log σ(d) − e log σ(−d),   d = chosen − rejected − margin

  Args:
    chosen: reward of the preferred response, float [...].
    rejected: reward of the other response, float [...].
    margin: gap the pair must clear, in reward units, scalar or [...].
    flip_rate: e, assumed share of mislabelled pairs, Python float in [0, 0.5).

  Returns:
    Loss per pair, [...], not reduced.

  Raises:
    TypeError: a reward or an array margin is not floating point.
    ValueError: the shapes differ, or flip_rate is out of range.

  References:
    Bradley & Terry, "Rank analysis of incomplete block designs", 1952.
    Wang et al., "Secrets of RLHF in large language models part II", 2024:
    the margin and the label smoothing.
  """
  if not 0.0 <= flip_rate < 0.5:
    raise ValueError(f"flip_rate must be in [0, 0.5), got {flip_rate}")
  gap = gap_beyond(chosen, rejected, margin)
  # log sigmoid, not log of sigmoid: finite to second order at any gap.
  agree, flipped = -jax.nn.log_sigmoid(gap), -jax.nn.log_sigmoid(-gap)
  return (1 - flip_rate) * agree + flip_rate * flipped


def soft_preference_loss(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  chosen_prob: jax.Array | float,
  margin: jax.Array | float = 0.0,
) -> jax.Array:
  """Cross-entropy of a pair against a share of votes, in nats.

    l = −p log σ(d) − (1 − p) log σ(−d),   d = chosen − rejected − margin

  At p = 1 this is `bradley_terry_loss`; a tie is p = 0.5. Without a margin,
  swapping the responses and p → 1 − p changes nothing.

  Args:
    chosen: reward of the first response, float [...].
    rejected: reward of the second response, float [...].
    chosen_prob: p, share of votes for `chosen`, in [0, 1], scalar or [...].
    margin: gap the pair must clear, in reward units, scalar or [...].

  Returns:
    Loss per pair, [...], not reduced. Its least value is the entropy of p,
    not 0.

  Raises:
    TypeError: a reward, or an array given as probability or margin, is not
      floating point.
    ValueError: the shapes differ, or a chosen_prob is outside [0, 1]; of
      arrays that are traced, as under `jit`, this cannot be checked.
  """
  gap = gap_beyond(chosen, rejected, margin)
  checks.fraction(chosen_prob=chosen_prob)
  if isinstance(chosen_prob, (int, float)):
    chosen_prob = jnp.asarray(chosen_prob, gap.dtype)
  elif jnp.ndim(chosen_prob) > 0:
    checks.same_shape(chosen=chosen, chosen_prob=chosen_prob)
  gap, prob = checks.floating(gap=gap, chosen_prob=chosen_prob)
  return -prob * jax.nn.log_sigmoid(gap) - (1 - prob) * jax.nn.log_sigmoid(-gap)


def reward_centering_penalty(
  chosen: jax.Array, rejected: jax.Array
) -> jax.Array:
  """Squared sum of a pair's rewards, in squared reward units.

    l = (chosen + rejected)²

  Bradley-Terry sees gaps only; added with a small coefficient this pins the
  free shift at zero.

  Args:
    chosen: reward of the preferred response, float [...].
    rejected: reward of the other response, float [...].

  Returns:
    Penalty per pair, [...], not reduced.

  Raises:
    TypeError: a reward is not floating point.
    ValueError: the shapes differ.

  References:
    Eisenstein et al., "Helping or herding?", 2023, section 3.
  """
  checks.same_shape(chosen=chosen, rejected=rejected)
  chosen, rejected = checks.floating(chosen=chosen, rejected=rejected)
  return jnp.square(chosen + rejected)


def _counted(scores: jax.Array, where: jax.Array | None) -> jax.Array:
  """The mask of a listwise loss, all True when none is given."""
  if jnp.ndim(scores) < 1:
    raise ValueError("scores must have a last axis of responses, got shape ()")
  if where is None:
    return jnp.ones(jnp.shape(scores), jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(scores=scores, where=where)
  return where


def plackett_luce_loss(
  scores: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
  """Negative log-likelihood of a ranking under Plackett-Luce, in nats.

    l = Σ_i [ log Σ_{j ≥ i} exp(s_j) − s_i ]

  over counted responses; two of them give `bradley_terry_loss`. Memory is
  quadratic in the number of responses of one prompt.

  Args:
    scores: rewards listed best first, float [..., N].
    where: bool [..., N], True for a response that exists, all by default.

  Returns:
    Loss per ranking, [...], not reduced; 0 for fewer than two responses.

  Raises:
    TypeError: scores are not floating point or `where` is not bool.
    ValueError: shapes differ or `scores` has no axis.

  References:
    Plackett, "The analysis of permutations", 1975.
    Luce, "Individual choice behavior", 1959.
  """
  counted = _counted(scores, where)
  (scores,) = checks.floating(scores=scores)
  scores = jnp.where(counted, scores, 0.0)
  n = scores.shape[-1]
  later, itself = (
    jnp.broadcast_to(mask, (*scores.shape, n))
    for mask in (jnp.tri(n, dtype=jnp.bool_).T, jnp.eye(n, dtype=jnp.bool_))
  )
  # A masked row keeps itself as its only candidate: an empty log-sum-exp would
  # be −inf, and its gradient NaN even though the row is dropped below.
  candidates = (later & counted[..., None, :]) | itself
  remaining = jax.nn.logsumexp(
    jnp.where(candidates, scores[..., None, :], -jnp.inf), axis=-1
  )
  return jnp.sum(jnp.where(counted, remaining - scores, 0.0), axis=-1)
