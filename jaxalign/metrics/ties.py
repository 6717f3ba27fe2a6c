"""Ties score: equally good answers kept together, and bad ones below."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


def ties_score(
  reference_scores: jax.Array,
  tied_scores: jax.Array,
  *,
  reference_correct: jax.Array,
  tied_correct: jax.Array,
  reference_where: jax.Array | None = None,
  tied_where: jax.Array | None = None,
) -> jax.Array:
  """The ties score of a benchmark whose prompts have several right answers.

  Each prompt comes twice: with one right answer, and with several that should
  tie. With s = worst right − best wrong on either form and w = best right −
  worst right among the tied,

    score = 0.3 mean [s_tied > 0] + 0.3 mean [s_ref > 0]
          + 0.2 mean [s_tied > w] + 0.2 mean [min(s_ref, s_tied) > w]
          + 0.01 mean tanh(min(s_ref, s_tied)/w − 1)

  Args:
    reference_scores: rewards of the answers of the first form, float [P, N].
    tied_scores: rewards of the answers of the second form, float [P, M].
    reference_correct: which are right, bool [P, N].
    tied_correct: which are right, bool [P, M].
    reference_where: bool [P, N], True for an answer and False for padding, all
      by default.
    tied_where: the same for the second form, bool [P, M].

  Returns:
    A scalar, at most 1.01. A width w of 0 takes the limit of the last term.
    Every prompt needs right and wrong answers in both forms, without which it
    is NaN.

  Raises:
    TypeError: scores are not floating point or masks are not bool.
    ValueError: shapes do not fit.

  References:
    Malik et al., "RewardBench 2: advancing reward model evaluation", 2025,
    the ties subset; the weights are those of the authors' program.
  """
  separation, _ = _margins(
    "reference", reference_scores, reference_correct, reference_where
  )
  tied_separation, width = _margins(
    "tied", tied_scores, tied_correct, tied_where
  )
  checks.same_shape(reference_scores=separation, tied_scores=tied_separation)
  separation, tied_separation, width = checks.floating(
    reference_scores=separation, tied_scores=tied_separation, width=width
  )
  smaller = jnp.minimum(separation, tied_separation)
  # Without a width the ratio is infinite on the side of the separation.
  ratio = smaller / jnp.where(width > 0, width, 1.0)
  ratio = jnp.where(width > 0, ratio, jnp.sign(smaller) * jnp.inf)
  ratio = jnp.where((width <= 0) & (smaller == 0), 0.0, ratio)

  def share(x: jax.Array) -> jax.Array:
    return jnp.mean(x.astype(width.dtype))

  score = (
    0.3 * share(tied_separation > 0)
    + 0.3 * share(separation > 0)
    + 0.2 * share(tied_separation > width)
    + 0.2 * share(smaller > width)
    + 0.01 * jnp.mean(jnp.tanh(ratio - 1))
  )
  known = jnp.all(jnp.isfinite(separation) & jnp.isfinite(tied_separation))
  return jnp.where(known, score, jnp.nan)


def _margins(
  name: str,
  scores: jax.Array,
  correct: jax.Array,
  where: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
  """Worst right minus best wrong, and best minus worst right, [P] each."""
  checks.rank(2, **{f"{name}_scores": scores})
  checks.boolean(**{f"{name}_correct": correct, f"{name}_where": where})
  checks.same_shape(
    **{
      f"{name}_scores": scores,
      f"{name}_correct": correct,
      f"{name}_where": where,
    }
  )
  (scores,) = checks.floating(**{f"{name}_scores": scores})
  counted = jnp.ones(scores.shape, jnp.bool_) if where is None else where
  right, wrong = counted & correct, counted & ~correct
  worst = jnp.min(jnp.where(right, scores, jnp.inf), axis=-1)
  best = jnp.max(jnp.where(right, scores, -jnp.inf), axis=-1)
  best_wrong = jnp.max(jnp.where(wrong, scores, -jnp.inf), axis=-1)
  return worst - best_wrong, best - worst
