"""E-step of a mixture: which latent group explains each user's preferences."""

import jax
import jax.numpy as jnp

from jaxalign.algorithms import mixture
from jaxalign.algorithms.update import Scalars
from jaxalign.ops import checks, segment_count, segment_sum

# A component with less than this many users' worth of responsibility is empty.
EMPTY = 0.5


def expectation(
  gaps: jax.Array,
  *,
  user: jax.Array,
  membership: mixture.Membership,
  config: mixture.MixtureConfig,
  reseed: bool,
  chosen_prob: jax.Array | None = None,
) -> tuple[mixture.Membership, Scalars]:
  """The E-step: which latent group explains all that each user has said.

  The likelihood is Σ_u log Σ_k π_k p_uk with "soft" assignment and Σ_u max_k
  log π_k p_uk with "hard" and "oracle" (there of the assigned k), p_uk = Π σ of
  the user's gaps, or Π σ(gap)^p σ(−gap)^(1−p) with soft labels p. It cannot
  fall from one E-step to the next if the M-step between them maximises and no
  user is below `min_pairs`.

  An empty component would stay so forever. With `reseed` it is given, as
  theirs alone, the worst explained users of the largest component, half of
  their even share: a defined start, which is counted and may fail again.

  Args:
    gaps: reward of chosen minus reward of rejected under each head for all
      training pairs, float [N, K].
    user: who stated each preference, int [N], −1 if unknown.
    membership: from the last E-step.
    config: kind of assignment and of weights.
    reseed: whether empty components get users; False after the last M-step.
    chosen_prob: soft label of each pair, float [N]; None for 1.

  Returns:
    The membership for the next M-step, and scalars by name: the likelihood, in
    all and per pair, entropy of responsibilities in nats, the share of users
    who moved, users with enough pairs, components reseeded, and the size of
    each component among those users.
  """
  users = checks.known(num_users=config.num_users)
  old = membership
  (gaps,) = checks.floating(gaps=gaps)
  count = segment_count(user, num_segments=users).astype(gaps.dtype)
  known = count >= config.min_pairs
  num_known = jnp.maximum(jnp.sum(known, dtype=gaps.dtype), 1)
  present = old.weights > 0
  log_weights = jnp.where(
    present, jnp.log(jnp.where(present, old.weights, 1.0)), -jnp.inf
  )
  each = jax.nn.log_sigmoid(gaps)
  if chosen_prob is not None:
    prob = jnp.asarray(chosen_prob, gaps.dtype)[:, None]
    each = prob * each + (1 - prob) * jax.nn.log_sigmoid(-gaps)
  joint = log_weights[None] + segment_sum(
    each, segment=user, num_segments=users
  )
  if config.assignment == "oracle":
    shares = old.responsibilities
  elif config.assignment == "hard":
    shares = jax.nn.one_hot(
      jnp.argmax(joint, axis=1), joint.shape[1], dtype=joint.dtype
    )
  else:
    shares = jax.nn.softmax(joint, axis=1)
  if config.assignment == "soft":
    per_user = jax.nn.logsumexp(joint, axis=1)
  else:
    per_user = jnp.sum(jnp.where(shares > 0, shares * joint, 0.0), axis=1)
  shares = jnp.where(known[:, None], shares, old.weights[None])
  moved = jnp.argmax(shares, 1) != jnp.argmax(old.responsibilities, 1)
  reseeded = jnp.zeros((), jnp.int32)
  if reseed and config.assignment != "oracle":
    shares, reseeded = _reseeded(
      shares, per_user / jnp.maximum(count, 1), known
    )
  sizes = jnp.sum(jnp.where(known[:, None], shares, 0.0), axis=0) / num_known
  weights = sizes if config.weights == "learned" else old.weights
  shares = jnp.where(known[:, None], shares, weights[None])
  entropy = -jnp.sum(jax.scipy.special.xlogy(shares, shares), axis=1)
  total = jnp.sum(jnp.where(known, per_user, 0.0))
  pairs = jnp.sum(jnp.where(known, count, 0.0))
  scalars = {
    "em/log_likelihood": total,
    "em/log_likelihood_per_pair": total / jnp.maximum(pairs, 1),
    "em/entropy": jnp.sum(jnp.where(known, entropy, 0.0)) / num_known,
    "em/moved": jnp.sum(known & moved, dtype=gaps.dtype) / num_known,
    "em/users": jnp.sum(known, dtype=gaps.dtype),
    "em/reseeded": reseeded,
  }
  for k, name in enumerate(config.outputs):
    scalars[f"em/size/{name}"] = sizes[k]
  return (
    mixture.Membership(
      shares.astype(old.responsibilities.dtype),
      weights.astype(old.weights.dtype),
      total.astype(old.log_likelihood.dtype),
      old.reseeded + reseeded,
    ),
    scalars,
  )


def _reseeded(
  shares: jax.Array, explained: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Responsibilities [U, K] without empty components, and how many there were.

  Args:
    shares: responsibilities, [U, K].
    explained: mean log-likelihood per pair of each user, [U].
    known: users who may move, bool [U].
  """
  components = shares.shape[1]
  even = jnp.sum(known, dtype=jnp.int32) // (2 * components)
  times = jnp.zeros((), jnp.int32)
  for k in range(components):
    mass = jnp.sum(jnp.where(known[:, None], shares, 0.0), axis=0)
    home = jnp.argmax(shares, axis=1)
    members = jnp.sum(
      (home[:, None] == jnp.arange(components)[None]) & known[:, None],
      axis=0,
      dtype=jnp.int32,
    )
    largest = jnp.argmax(members)
    number = jnp.minimum(jnp.maximum(even, 1), members[largest] // 2)
    donor = known & (home == largest)
    order = jnp.argsort(jnp.where(donor, explained, jnp.inf))
    rank = jnp.argsort(order)
    empty = (mass[k] < EMPTY) & (number > 0)
    given = empty & donor & (rank < number)
    row = jax.nn.one_hot(k, components, dtype=shares.dtype)
    shares = jnp.where(given[:, None], row[None], shares)
    times = times + empty.astype(jnp.int32)
  return shares, times
