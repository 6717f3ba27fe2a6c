"""Permutation tests for whether people differ beyond one shared preference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import special

from jaxalign.ops import checks


class Structure(NamedTuple):
  """Between-unit share of the variation, with its p-value.

  `share` is observed, `expected` is what chance alone gives units of these
  sizes, `p_value` is the probability of a share this large by chance.
  """

  share: jax.Array  # float [], in [0, 1]
  expected: jax.Array  # float [], mean over permutations
  p_value: jax.Array  # float [], in [1 / (num_samples + 1), 1]


def shared_taste_scores(
  features: jax.Array,
  chosen_prob: jax.Array,
  *,
  ridge: float = 1.0,
  num_iters: int = 20,
) -> jax.Array:
  """Score of each preference against one shared preference of all.

    s_n = (p_n − σ(w·x_n)) x_n
    w   = arg min Σ_n CE(p_n, σ(w·x_n)) + ridge/2 |w|²

  s_n is the gradient of the preference's log-likelihood in the taste w, at the
  one that suits everybody best. Where all share it, whose preference it is says
  nothing about s_n; a person with another taste has scores that lean its way.
  Swapping the responses of a pair changes no score.

  Args:
    features: of the first response minus those of the second, float [N, D], in
      units in which a taste is of order 1.
    chosen_prob: probability or share of votes for the first, float [N].
    ridge: of the shared taste, > 0, in pairs.
    num_iters: steps of Newton's method.

  Returns:
    Scores, float [N, D].

  Raises:
    TypeError: an argument is not floating point.
    ValueError: the shapes do not fit, the ridge is not positive, or a known
      chosen_prob is outside [0, 1].
  """
  checks.rank(2, features=features)
  checks.same_shape(features=features[:, 0], chosen_prob=chosen_prob)
  checks.fraction(chosen_prob=chosen_prob)
  if ridge <= 0.0:
    raise ValueError(f"ridge must be > 0, got {ridge}")
  features, target = checks.floating(features=features, chosen_prob=chosen_prob)
  num_features = features.shape[1]

  def loss(taste: jax.Array) -> jax.Array:
    gaps = features @ taste
    surprise = -target * jax.nn.log_sigmoid(gaps)
    surprise -= (1 - target) * jax.nn.log_sigmoid(-gaps)
    return jnp.sum(surprise) + ridge / 2 * jnp.sum(taste * taste)

  def newton(_: int, taste: jax.Array) -> jax.Array:
    prob = special.expit(features @ taste)
    gradient = features.T @ (prob - target) + ridge * taste
    weighted = features * (prob * (1 - prob))[:, None]
    hessian = features.T @ weighted + ridge * jnp.eye(num_features)
    step = jnp.linalg.solve(hessian, gradient)
    # Halved until it helps: far out the logistic is flat and Newton overshoots.
    sizes = 0.5 ** jnp.arange(10, dtype=taste.dtype)
    candidates = taste[None, :] - sizes[:, None] * step[None, :]
    best: jax.Array = candidates[jnp.argmin(jax.vmap(loss)(candidates))]
    return best

  taste = jax.lax.fori_loop(
    0, num_iters, newton, jnp.zeros(num_features, features.dtype)
  )
  residual = target - special.expit(features @ taste)
  return residual[:, None] * features


def permutation_test(
  scores: jax.Array,
  *,
  unit: jax.Array,
  num_units: int,
  key: jax.Array,
  block: jax.Array | None = None,
  num_samples: int = 999,
) -> Structure:
  """Tests whether rows of one unit resemble each other more than by chance.

    share = Σ_u n_u |mean_u − mean|² / Σ_n |s_n − mean|²

  against the same with rows dealt out anew to the units, within blocks. If it
  makes no difference which unit a row belongs to, the p-value is exact: at most
  a share p of data sets has one that small.

  Args:
    scores: rows, float [N, D], e.g. from `shared_taste_scores`.
    unit: whose row it is, int [N] in [0, num_units).
    num_units: number of units; one without rows is left out.
    key: typed PRNG key, consumed.
    block: rows are exchanged only among those of equal `block`, int [N]; all by
      default. Votes on one pair form a block: then the pair cannot be taken for
      a taste.
    num_samples: permutations.

  Returns:
    `share`, `expected` and `p_value`, scalars, [...] = []. Without variation,
    or where no row can be exchanged, the p-value is 1.

  Raises:
    TypeError: scores are not floating point, or unit or block not integer.
    ValueError: the shapes do not fit, or a number is below 1.

  References:
    Anderson, "A new method for non-parametric multivariate analysis of
    variance", 2001.
    Phipson & Smyth, "Permutation p-values should never be zero", 2010.
  """
  checks.rank(2, scores=scores)
  checks.same_shape(scores=scores[:, 0], unit=unit, block=block)
  checks.integer(unit=unit)
  if num_units < 1 or num_samples < 1:
    raise ValueError(
      f"num_units and num_samples must be >= 1, got {num_units} and "
      f"{num_samples}"
    )
  if block is None:
    block = jnp.zeros_like(unit)
  checks.integer(block=block)
  (scores,) = checks.floating(scores=scores)
  order = jnp.argsort(unit)
  unit, block = unit[order], block[order]
  centred = (scores - jnp.mean(scores, axis=0, keepdims=True))[order]
  count = jnp.bincount(unit, length=num_units)
  size = jnp.maximum(count, 1).astype(scores.dtype)
  in_blocks = jnp.argsort(block)

  def between(rows: jax.Array) -> jax.Array:
    sums = jax.ops.segment_sum(
      rows, unit, num_segments=num_units, indices_are_sorted=True
    )
    return jnp.sum(jnp.sum(sums * sums, axis=1) / size)

  def dealt_anew(sample_key: jax.Array) -> jax.Array:
    noise = jax.random.uniform(sample_key, unit.shape)
    dealt = jnp.zeros_like(in_blocks)
    dealt = dealt.at[in_blocks].set(jnp.lexsort((noise, block)))
    return between(centred[dealt])

  observed = between(centred)
  by_chance = jax.lax.map(dealt_anew, jax.random.split(key, num_samples))
  # Equal in exact arithmetic must count as equal.
  as_large = jnp.sum(by_chance >= observed * (1 - 1e-5), dtype=scores.dtype)
  total = jnp.sum(centred * centred)
  total = jnp.where(total > 0, total, 1.0)
  return Structure(
    observed / total,
    jnp.mean(by_chance) / total,
    (1 + as_large) / (num_samples + 1),
  )
