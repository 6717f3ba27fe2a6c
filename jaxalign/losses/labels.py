"""Crowd labels as targets: votes, priors, certainty, label sets."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.ops import checks


class LabelSet(NamedTuple):
  """Utilities of labels, and the distances between them."""

  utilities: jax.Array  # [d], in reward units
  cost: jax.Array  # [d, d], in reward units


HELPFUL_HARMLESS_LABELS = (
  "helpful, harmless",
  "neutral, harmless",
  "not helpful, harmless",
  "helpful, harmful",
  "neutral, harmful",
  "not helpful, harmful",
)


def additive_label_set(
  *penalties: Sequence[float], best: float = 1.0
) -> LabelSet:
  """Utilities and a metric for labels that combine several attributes.

    u_i = best − Σ_a penalty_a(i),   C_ij = Σ_a |penalty_a(i) − penalty_a(j)|

  Labels that differ in kind stay apart even where their utilities agree. And
  C_ij ≥ |u_i − u_j|, with equality against a label without penalties, so that
  transport to that label costs just the utility that is missing.

  Args:
    *penalties: for each attribute the penalty of each of its levels, in reward
      units; the last attribute's level changes fastest.
    best: utility of a label without penalties.

  Returns:
    `utilities` float32 [d] and `cost` float32 [d, d], d the product of the
    numbers of levels.

  Raises:
    ValueError: no attribute, or one without levels.
  """
  if not penalties or any(len(levels) == 0 for levels in penalties):
    raise ValueError(
      f"every attribute needs levels, got {[len(p) for p in penalties]}"
    )
  table = np.array(list(itertools.product(*penalties)), np.float64)  # [d, a]
  cost = np.abs(table[:, None, :] - table[None, :, :]).sum(-1)
  return LabelSet(
    utilities=jnp.asarray(best - table.sum(-1), jnp.float32),
    cost=jnp.asarray(cost, jnp.float32),
  )


def helpful_harmless_label_set() -> LabelSet:
  """The six labels of DPRM: three degrees of help, harmless or harmful.

  In the order of `HELPFUL_HARMLESS_LABELS`. The utilities are the published
  ones; they happen to be additive, and the cost is what additivity implies.

  Returns:
    `utilities` float32 [6] = 1, 0.5, −1, −1, −1.5, −3 and `cost` float32
    [6, 6].

  References:
    Li et al., "Aligning crowd feedback via distributional preference reward
    modeling", 2024, table 1.
  """
  return additive_label_set((0.0, 2.0), (0.0, 0.5, 2.0), best=1.0)


def _repeated(x: jax.Array, shape: tuple[int, ...], name: str) -> jax.Array:
  """`x` of the shape given or of its last axis alone, repeated."""
  if x.shape not in (shape, shape[-1:]):
    raise ValueError(f"{name} must be {shape[-1:]} or {shape}, got {x.shape}")
  missing = len(shape) - x.ndim
  return jnp.broadcast_to(jnp.reshape(x, (1,) * missing + x.shape), shape)


def label_posterior(
  prior: jax.Array, votes: jax.Array, *, prior_strength: float
) -> jax.Array:
  """Shares of the labels given a prior and votes, a Dirichlet mean.

    p_i = (κ prior_i + votes_i) / (κ + Σ votes)

  Each entry is also the mean of a Beta with the same pseudo-counts, so the
  beta and the categorical form of the method are one.

  Args:
    prior: shares expected before any vote, float [d] or [..., d].
    votes: number of votes per label, float [..., d]; pseudo-counts kept by
      `add_votes` with prior_strength 0.
    prior_strength: κ ≥ 0, the votes that the prior is worth.

  Returns:
    Shares, [..., d]; the prior where κ + Σ votes is 0.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit or `prior_strength` is negative.
  """
  if isinstance(prior_strength, (int, float)) and not prior_strength >= 0:
    raise ValueError(f"prior_strength must be >= 0, got {prior_strength}")
  prior, votes = checks.floating(prior=prior, votes=votes)
  if votes.ndim < 1:
    raise ValueError("votes must have a last axis of labels, got shape ()")
  prior = _repeated(prior, votes.shape, "prior")
  total = prior_strength + jnp.sum(votes, axis=-1, keepdims=True)
  some = total > 0
  mass = prior_strength * prior + votes
  return jnp.where(some, mass / jnp.where(some, total, 1.0), prior)


def add_votes(
  pseudo_counts: jax.Array, votes: jax.Array, *, decay: float = 1.0
) -> jax.Array:
  """Pseudo-counts after more votes, the older ones worth less.

    α ← decay · α + votes

  Start from κ · prior. A decay below 1 follows a crowd that changes: what was
  said n updates ago weighs decay^n.

  Args:
    pseudo_counts: α, float [..., d].
    votes: new votes per label, float [..., d].
    decay: what a vote keeps of its weight per update, in [0, 1].

  Returns:
    New pseudo-counts, [..., d].

  Raises:
    TypeError: an input is not floating point.
    ValueError: the shapes differ or `decay` is out of range.
  """
  if not 0.0 <= decay <= 1.0:
    raise ValueError(f"decay must be in [0, 1], got {decay}")
  checks.same_shape(pseudo_counts=pseudo_counts, votes=votes)
  pseudo_counts, votes = checks.floating(
    pseudo_counts=pseudo_counts, votes=votes
  )
  return decay * pseudo_counts + votes


def targeted_label_smoothing(
  probs: jax.Array,
  *,
  epsilon: float,
  prior: jax.Array | None = None,
  cost: jax.Array | None = None,
) -> jax.Array:
  """Shares whose certainty is capped, for the good of one other label.

  What the top label has above 1 − ε goes to the runner-up: the label with the
  next highest share, ties broken by the higher prior, then by the lower cost
  from the top label, then by the lower index.

  Args:
    probs: shares, float [..., d], d at least 2.
    epsilon: ε, a Python float in [0, 0.5].
    prior: shares expected before any vote, float [d] or [..., d].
    cost: distance between labels, float [d, d].

  Returns:
    Shares, [..., d], with the same sum. What is less certain than 1 − ε is
    unchanged. The choice of labels is a selection without gradient.

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `epsilon` or a known probability is out of
      range.
  """
  if not 0.0 <= epsilon <= 0.5:
    raise ValueError(f"epsilon must be in [0, 0.5], got {epsilon}")
  checks.fraction(probs=probs)
  (probs,) = checks.floating(probs=probs)
  if probs.ndim < 1 or probs.shape[-1] < 2:
    raise ValueError(f"probs must be [..., d], d >= 2, got {probs.shape}")
  size = probs.shape[-1]
  top = jnp.argmax(probs, axis=-1)
  is_top = jax.nn.one_hot(top, size, dtype=jnp.int32) > 0
  candidates = ~is_top
  keys = [probs]
  if prior is not None:
    (prior,) = checks.floating(prior=prior)
    keys.append(_repeated(prior, probs.shape, "prior"))
  if cost is not None:
    (cost,) = checks.floating(cost=cost)
    if cost.shape != (size, size):
      raise ValueError(f"cost must be ({size}, {size}), got {cost.shape}")
    keys.append(-cost[top])
  for key in keys:
    highest = jnp.max(
      jnp.where(candidates, key, -jnp.inf), axis=-1, keepdims=True
    )
    candidates = candidates & (key == highest)
  runner_up = jax.nn.one_hot(jnp.argmax(candidates, axis=-1), size)
  kept = jnp.minimum(probs, 1 - epsilon)
  excess = jnp.sum(jnp.where(is_top, probs - kept, 0.0), -1, keepdims=True)
  smoothed = jnp.where(is_top, kept, probs)
  return smoothed + excess * runner_up.astype(probs.dtype)


def uniform_label_smoothing(probs: jax.Array, *, epsilon: float) -> jax.Array:
  """Shares mixed with equal ones, the control of targeted smoothing.

    p' = (1 − ε) p + ε / d

  Every label gains the same, also those that nobody would confuse with the
  top one, and shares that were not certain change too.

  Args:
    probs: shares that sum to 1, float [..., d], d at least 2.
    epsilon: ε, a Python float in [0, 0.5].

  Returns:
    Shares, [..., d].

  Raises:
    TypeError: an input is not floating point.
    ValueError: shapes do not fit, or `epsilon` or a known probability is out of
      range.
  """
  if not 0.0 <= epsilon <= 0.5:
    raise ValueError(f"epsilon must be in [0, 0.5], got {epsilon}")
  checks.fraction(probs=probs)
  (probs,) = checks.floating(probs=probs)
  if probs.ndim < 1 or probs.shape[-1] < 2:
    raise ValueError(f"probs must be [..., d], d >= 2, got {probs.shape}")
  return (1 - epsilon) * probs + epsilon / probs.shape[-1]
