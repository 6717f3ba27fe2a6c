"""Inter-annotator agreement of people who voted on the same thing."""

import jax
import jax.numpy as jnp

from jaxalign.ops import checks


def vote_entropy(counts: jax.Array) -> jax.Array:
  """Entropy of the votes on each item, in bits.

    h = −Σ_c p_c log₂ p_c,  p_c = counts_c / Σ counts

  It is biased downwards where few people voted: one vote has entropy 0.

  Args:
    counts: votes for each of d classes, float [..., d], ≥ 0.

  Returns:
    Entropy per item, [...], in [0, log₂ d]; 0 without votes.

  Raises:
    TypeError: counts are not floating point.
  """
  (counts,) = checks.floating(counts=counts)
  total = jnp.sum(counts, axis=-1, keepdims=True)
  probs = counts / jnp.where(total > 0, total, 1.0)
  logs = jnp.log2(jnp.where(probs > 0, probs, 1.0))
  return -jnp.sum(probs * logs, axis=-1) + 0.0  # no −0


def rater_agreement(counts: jax.Array) -> tuple[jax.Array, jax.Array]:
  """How many pairs of people who judged the same item agree, over all items.

    Σ_i Σ_c n_ic (n_ic − 1) / 2  of  Σ_i n_i (n_i − 1) / 2

  An item counts by its pairs of people, so one that many judged counts more; an
  item with a single vote does not count.

  Args:
    counts: votes for each of d classes, float [..., d], ≥ 0.

  Returns:
    (total, count), float scalars: add both over batches, then divide.

  Raises:
    TypeError: counts are not floating point.
  """
  (counts,) = checks.floating(counts=counts)
  votes = jnp.sum(counts, axis=-1)
  return (
    jnp.sum(counts * (counts - 1)) / 2,
    jnp.sum(votes * (votes - 1)) / 2,
  )
