"""Reward shaping: from one score per response to a reward per token.

Shaping terms are returned apart from the score, so that both can be logged.
"""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


def token_rewards(
  scores: jax.Array,
  kl: jax.Array,
  *,
  kl_coef: jax.Array | float,
  where: jax.Array,
) -> jax.Array:
  """Reward of each token: the KL penalty everywhere, the score at the end.

    r_t = −β kl_t + [t is the last counted token] · score

  Args:
    scores: score of each response, [B].
    kl: KL estimate of each token in nats, [B, T].
    kl_coef: β, reward units per nat, scalar.
    where: bool [B, T], True for a token of the response.

  Returns:
    Rewards, [B, T], float32 or wider whatever the dtypes that came in; 0
    where masked. A response without tokens gets no score.

  Raises:
    TypeError: `where` is not bool, or an input is complex.
    ValueError: shapes do not fit.

  References:
    Ouyang et al., "Training language models to follow instructions with human
    feedback", 2022, equation 2.
  """
  checks.rank(1, scores=scores)
  checks.rank(2, kl=kl)
  checks.boolean(where=where)
  checks.same_shape(kl=kl, where=where)
  if jnp.shape(scores) != jnp.shape(kl)[:1]:
    raise ValueError(
      f"scores must be [B] for kl [B, T], got scores {jnp.shape(scores)} for "
      f"kl {jnp.shape(kl)}"
    )
  scores, kl = checks.floating(scores=_real(scores), kl=_real(kl))
  if not isinstance(kl_coef, (int, float)):
    checks.rank(0, kl_coef=kl_coef)
    kl_coef = jnp.asarray(kl_coef, kl.dtype)
  penalty = jnp.where(where, -kl_coef * jnp.where(where, kl, 0.0), 0.0)
  step = jnp.arange(where.shape[1])[None]
  last = jnp.max(jnp.where(where, step, -1), axis=1, keepdims=True)
  return penalty + jnp.where(step == last, scores[:, None], 0.0)


def _real(x: jax.Array) -> jax.Array:
  """Integers as float32, which the result is at least; floats as they are."""
  if jnp.issubdtype(jnp.result_type(x), jnp.integer):
    return jnp.asarray(x, jnp.float32)
  return x


def missing_eos_penalty(
  scores: jax.Array, *, ended: jax.Array, penalty: float
) -> jax.Array:
  """Scores less a fixed amount for responses that were cut off.

  Args:
    scores: score of each response, float [...].
    ended: bool [...], True if the response ended on a stop token of its own.
    penalty: what a cut-off response loses, in score units, Python float ≥ 0.

  Returns:
    Scores, [...].

  Raises:
    TypeError: scores are not floating point or `ended` is not bool.
    ValueError: shapes differ, or penalty is negative.
  """
  if not penalty >= 0.0:
    raise ValueError(f"penalty must not be negative, got {penalty}")
  checks.boolean(ended=ended)
  checks.same_shape(scores=scores, ended=ended)
  (scores,) = checks.floating(scores=scores)
  return scores - jnp.where(ended, 0.0, penalty).astype(scores.dtype)


def clipped_scores(scores: jax.Array, *, limit: float) -> jax.Array:
  """Scores held within ±limit, to be applied before the KL is added.

  Args:
    scores: score of each response, float [...]; standardised, if `limit` is
      meant in standard deviations.
    limit: largest magnitude in score units, Python float > 0.

  Returns:
    Scores, [...].

  Raises:
    TypeError: scores are not floating point.
    ValueError: limit is not positive.
  """
  if not limit > 0.0:
    raise ValueError(f"limit must be positive, got {limit}")
  (scores,) = checks.floating(scores=scores)
  return jnp.clip(scores, -limit, limit)


def overlong_penalty(
  lengths: jax.Array, *, limit: int, buffer: int
) -> jax.Array:
  """Soft penalty for the last stretch before the length limit.

    0 up to limit − buffer, then falling linearly to −1 at limit, −1 beyond

  Args:
    lengths: tokens of each response, int [...].
    limit: tokens at which the penalty is full, Python int.
    buffer: tokens over which it builds up, Python int in [1, limit].

  Returns:
    Penalty in [−1, 0], float32 [...], to be scaled and added to the score.

  Raises:
    TypeError: lengths are not integers.
    ValueError: buffer is out of range.

  References:
    Yu et al., "DAPO: an open-source LLM reinforcement learning system at
    scale", 2025, equation 13.
  """
  checks.integer(lengths=lengths)
  if not 1 <= buffer <= limit:
    raise ValueError(f"buffer must be in [1, {limit}], got {buffer}")
  excess = (jnp.asarray(lengths) - (limit - buffer)).astype(jnp.float32)
  return -jnp.clip(excess / buffer, 0.0, 1.0)


def repeated_ngram_fraction(
  tokens: jax.Array, *, where: jax.Array, ngram: int = 3
) -> jax.Array:
  """Share of a response's n-grams that occurred in it before.

    1 − (distinct n-grams) / (all n-grams)

  Args:
    tokens: token ids, int [..., T].
    where: bool [..., T], True for a token of the response. An n-gram across
      a gap does not count.
    ngram: n ≥ 1, Python int.

  Returns:
    Share in [0, 1), float32 [...], to be scaled and subtracted from the
    score; 0 for responses shorter than n.

  Raises:
    TypeError: tokens are not integers or `where` is not bool.
    ValueError: shapes differ, or ngram is out of range.
  """
  checks.integer(tokens=tokens)
  checks.boolean(where=where)
  checks.same_shape(tokens=tokens, where=where)
  if not 1 <= ngram <= jnp.shape(tokens)[-1]:
    raise ValueError(
      f"ngram must be in [1, {jnp.shape(tokens)[-1]}], got {ngram}"
    )
  tokens, where = jnp.asarray(tokens), jnp.asarray(where)
  starts = tokens.shape[-1] - ngram + 1
  windows = [tokens[..., i : i + starts] for i in range(ngram)]
  whole = where[..., :starts]
  for i in range(1, ngram):
    whole = whole & where[..., i : i + starts]
  # Sorted by their tokens, equal n-grams are neighbours, the ones across a gap
  # last: no table of all pairs.
  keys = jax.lax.sort(
    [(~whole).astype(jnp.int32), *windows], dimension=-1, num_keys=ngram + 1
  )
  equal = keys[0][..., 1:] == 0
  for key in keys:
    equal = equal & (key[..., 1:] == key[..., :-1])
  repeated = jnp.sum(equal, axis=-1).astype(jnp.float32)
  total = jnp.maximum(jnp.sum(whole, axis=-1), 1).astype(jnp.float32)
  return repeated / total
