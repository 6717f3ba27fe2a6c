"""Mixture of linear rewards on frozen features: EM over people, by Newton.

One head per latent group reads features that do not change, so the M-step is a
convex problem that a few Newton steps solve. All pairs of a person share their
group; the E-step is that of `mixture_em`.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxalign.algorithms import mixture, mixture_em
from jaxalign.ops import checks

STEP_SIZES = (1.0, 0.5, 0.2, 0.05)
MAX_GRAPH = 4096  # items, whose graph is a matrix of their number squared
SURE = 0.8  # of a first assignment


@dataclasses.dataclass(frozen=True)
class LinearMixtureConfig:
  """How heads for latent groups are fitted on frozen features.

  Attributes:
    num_components: K, the latent groups; 1 for a single pooled head.
    num_rounds: of E-step and M-step.
    newton_steps: of an M-step; the first fit takes four times as many.
    restarts: random first assignments; the most likely one is kept.
  """

  num_components: int
  num_rounds: int = 20
  newton_steps: int = 3
  restarts: int = 4

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_components=self.num_components,
      num_rounds=self.num_rounds,
      newton_steps=self.newton_steps,
      restarts=self.restarts,
    )


class LinearMixture(NamedTuple):
  """K heads and who belongs to them.

  Attributes:
    heads: rewards are features @ heads.T, [K, D].
    weights: share of each latent group among people, [K].
    responsibilities: posterior of each latent group per person, [U, K].
    objective: log-likelihood minus the penalty after each round, in nats,
      [num_rounds].
  """

  heads: jax.Array
  weights: jax.Array
  responsibilities: jax.Array
  objective: jax.Array


class Comparisons(NamedTuple):
  """Which of some items were preferred to which, and by whom.

  Attributes:
    features: of each item, float [I, D].
    chosen: the preferred item of each pair, int [N].
    rejected: the other item, int [N].
    user: who stated it, int [N]; outside [0, U) nobody.
  """

  features: jax.Array
  chosen: jax.Array
  rejected: jax.Array
  user: jax.Array

  def gaps(self, heads: jax.Array) -> jax.Array:
    """Reward of the chosen minus that of the rejected item, [N, K]."""
    rewards = self.features @ heads.T
    return rewards[self.chosen] - rewards[self.rejected]


def penalised_loss(
  head: jax.Array, data: Comparisons, shares: jax.Array, penalty: jax.Array
) -> jax.Array:
  """What an M-step minimises for one head, in nats.

    Σ_n γ_n log(1 + exp(−w·(φ_chosen − φ_rejected))) + penalty / 2 · |w|²

  Args:
    head: w, [D].
    data: the pairs.
    shares: γ, how far each pair's person belongs to the head, [N].
    penalty: of the squared norm of a head.

  Returns:
    A scalar, shape [...] = [].
  """
  gaps = data.gaps(head[None])[:, 0]
  lost = jnp.sum(shares * jax.nn.softplus(-gaps))
  return lost + penalty / 2 * jnp.sum(head * head)


def _between(data: Comparisons, values: jax.Array) -> jax.Array:
  """Σ_n v_n (φ_chosen − φ_rejected), [D]."""
  each = jnp.zeros(len(data.features), values.dtype)
  each = each.at[data.chosen].add(values).at[data.rejected].add(-values)
  return each @ data.features


def _hessian(data: Comparisons, values: jax.Array) -> jax.Array:
  """Σ_n v_n (φ_chosen − φ_rejected)(φ_chosen − φ_rejected)ᵀ, [D, D].

  Through the weighted graph of the items, whose size is that of the items and
  not of the pairs, unless there are too many items for it.
  """
  items = len(data.features)
  if items > MAX_GRAPH:
    apart = data.features[data.chosen] - data.features[data.rejected]
    return apart.T @ (values[:, None] * apart)
  first, second = data.chosen, data.rejected
  graph = (
    jnp.zeros((items, items), values.dtype)
    .at[jnp.concatenate([first, second]), jnp.concatenate([first, second])]
    .add(jnp.concatenate([values, values]))
    .at[jnp.concatenate([first, second]), jnp.concatenate([second, first])]
    .add(-jnp.concatenate([values, values]))
  )
  return data.features.T @ (graph @ data.features)


def newton_step(
  head: jax.Array, data: Comparisons, shares: jax.Array, penalty: jax.Array
) -> jax.Array:
  """One damped Newton step on `penalised_loss`, which it never raises.

  Args:
    head: [D].
    data: the pairs.
    shares: [N].
    penalty: of the squared norm of a head.

  Returns:
    The next head, [D].
  """
  miss = jax.nn.sigmoid(-data.gaps(head[None])[:, 0])
  gradient = penalty * head - _between(data, shares * miss)
  hessian = _hessian(data, shares * miss * (1 - miss))
  hessian = hessian + penalty * jnp.eye(len(head), dtype=head.dtype)
  towards = jax.scipy.linalg.solve(hessian, gradient, assume_a="pos")
  sizes = jnp.asarray((*STEP_SIZES, 0.0), head.dtype)
  tried = head[None] - sizes[:, None] * towards[None]
  costs = jax.vmap(penalised_loss, (0, None, None, None))(
    tried, data, shares, penalty
  )
  return tried[jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))]


def fit_heads(
  heads: jax.Array,
  data: Comparisons,
  shares: jax.Array,
  penalty: jax.Array,
  num_steps: int,
) -> jax.Array:
  """The M-step: every head on the pairs of its people.

  Args:
    heads: to begin with, [K, D].
    data: the pairs.
    shares: [N, K].
    penalty: of the squared norm of a head.
    num_steps: Newton steps.

  Returns:
    The heads after them, [K, D].
  """

  def of_head(one: tuple[jax.Array, jax.Array]) -> jax.Array:
    head, share = one
    step = lambda _, head: newton_step(head, data, share, penalty)
    fitted: jax.Array = jax.lax.fori_loop(0, num_steps, step, head)
    return fitted

  fitted: jax.Array = jax.lax.map(of_head, (heads, shares.T))
  return fitted


def _checked(data: Comparisons) -> Comparisons:
  """The pairs, with users outside as -1 at most."""
  checks.rank(2, features=data.features)
  checks.integer(chosen=data.chosen, rejected=data.rejected, user=data.user)
  checks.same_shape(chosen=data.chosen, rejected=data.rejected, user=data.user)
  checks.rank(1, chosen=data.chosen)
  (features,) = checks.floating(features=data.features)
  return data._replace(features=features)


@functools.partial(jax.jit, static_argnames=("num_users", "config"))
def fit(
  data: Comparisons,
  *,
  num_users: int,
  config: LinearMixtureConfig,
  ridge: jax.Array | float,
  key: jax.Array,
  where: jax.Array | None = None,
) -> LinearMixture:
  """Fits K heads and the people behind them by expectation maximisation.

  Maximises Σ_u log Σ_k π_k Π_{n∈u} σ(gap_nk) − ridge N / 2 · Σ_k |w_k|² from
  several random assignments of people, each after a common pooled head, and
  keeps the best. The objective does not fall from round to round.

  Args:
    data: the pairs; those of nobody count for every head by its weight.
    num_users: U, a Python int.
    config: K and rounds.
    ridge: penalty of a head's squared norm per counted pair, > 0.
    key: typed PRNG key, consumed.
    where: bool [N], True counts, all by default.

  Returns:
    The mixture. A person without pairs has its weights as responsibilities.

  Raises:
    TypeError: features are not floating point, or indices not integer.
    ValueError: shapes differ, or there are fewer users than components.
  """
  data = _checked(data)
  kind = data.features.dtype
  if where is None:
    where = jnp.ones(len(data.user), jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(user=data.user, where=where)
  counted = where.astype(kind)[:, None]
  data = data._replace(user=jnp.where(where, data.user, -1))
  penalty = jnp.asarray(ridge, kind) * jnp.sum(counted)
  components = config.num_components
  em = mixture.MixtureConfig(
    name="mixture",
    num_components=components,
    steps_per_round=1,
    num_users=num_users,
  )
  pooled = fit_heads(
    jnp.zeros((1, data.features.shape[1]), kind),
    data,
    counted,
    penalty,
    4 * config.newton_steps,
  )
  known = ((data.user >= 0) & (data.user < num_users))[:, None]

  def one_round(
    carry: tuple[jax.Array, mixture.Membership], _: jax.Array
  ) -> tuple[tuple[jax.Array, mixture.Membership], jax.Array]:
    heads, old = carry
    rows = old.responsibilities[jnp.clip(data.user, 0, num_users - 1)]
    shares = counted * jnp.where(known, rows, old.weights[None])
    heads = fit_heads(heads, data, shares, penalty, config.newton_steps)
    new, _scalars = mixture_em.expectation(
      data.gaps(heads),
      user=data.user,
      membership=old,
      config=em,
      reseed=False,
    )
    objective = new.log_likelihood - penalty / 2 * jnp.sum(heads * heads)
    return (heads, new), objective

  def start(start_key: jax.Array) -> LinearMixture:
    # People in equal parts at random, not quite sure.
    home = jax.random.permutation(start_key, num_users) % components
    rows = SURE * jax.nn.one_hot(home, components, dtype=kind)
    first = mixture.start(rows + (1 - SURE) / components)
    heads = jnp.tile(pooled, (components, 1))
    (heads, found), objective = jax.lax.scan(
      one_round, (heads, first), jnp.arange(config.num_rounds)
    )
    return LinearMixture(
      heads, found.weights, found.responsibilities, objective
    )

  number = 1 if components == 1 else config.restarts
  tried = jax.lax.map(start, jax.random.split(key, number))
  best = jnp.argmax(tried.objective[:, -1])
  return LinearMixture(*(leaf[best] for leaf in tried))


@functools.partial(
  jax.jit, static_argnames=("num_users", "num_samples", "batch_size")
)
def bootstrap_heads(
  data: Comparisons,
  *,
  num_users: int,
  ridge: jax.Array | float,
  key: jax.Array,
  num_samples: int = 1000,
  batch_size: int = 20,
) -> jax.Array:
  """A pooled head fitted anew on each of many resamples of the people.

  People are drawn with replacement, each with all of their pairs; a pair of
  nobody is drawn by itself. So whatever is computed of the heads, a ranking or
  an accuracy, has its spread over people.

  Args:
    data: the pairs.
    num_users: U, a Python int.
    ridge: penalty of a head's squared norm per pair, > 0.
    key: typed PRNG key, consumed.
    num_samples: heads.
    batch_size: of them fitted at once, each with a Hessian [D, D] in memory.

  Returns:
    The heads, [num_samples, D]; each fit begins at that of all people.

  Raises:
    TypeError: features are not floating point, or indices not integer.
    ValueError: shapes differ.
  """
  data = _checked(data)
  kind, number = data.features.dtype, len(data.user)
  named = (data.user >= 0) & (data.user < num_users)
  cluster = jnp.where(named, data.user, num_users + jnp.arange(number))
  # Only those who have pairs are drawn.
  present = jnp.zeros(num_users + number, jnp.bool_).at[cluster].set(True)
  order = jnp.argsort(~present)
  some = jnp.sum(present)
  penalty = jnp.asarray(ridge, kind) * number
  whole = jnp.ones((number, 1), kind)
  start = jnp.zeros((1, data.features.shape[1]), kind)
  pooled = fit_heads(start, data, whole, penalty, 12)[0]

  def refit(sample_key: jax.Array) -> jax.Array:
    drawn = jax.random.uniform(sample_key, (num_users + number,))
    chosen = order[jnp.floor(drawn * some).astype(jnp.int32)]
    counts = jnp.zeros(num_users + number, kind)
    counts = counts.at[chosen].add(
      (jnp.arange(num_users + number) < some).astype(kind)
    )
    step = lambda _, head: newton_step(head, data, counts[cluster], penalty)
    fitted: jax.Array = jax.lax.fori_loop(0, 6, step, pooled)
    return fitted

  heads: jax.Array = jax.lax.map(
    refit, jax.random.split(key, num_samples), batch_size=batch_size
  )
  return heads


def win_probability(
  gaps: jax.Array, responsibilities: jax.Array, user: jax.Array
) -> jax.Array:
  """How probably each person prefers the first response, group by group.

    p_n = Σ_k ρ_u(n)k σ(gap_nk)

  Args:
    gaps: reward of the first response minus that of the second under each
      head, float [N, K].
    responsibilities: [U, K].
    user: who is asked, int [N], each in [0, U).

  Returns:
    Probabilities, [N].
  """
  return jnp.sum(responsibilities[user] * jax.nn.sigmoid(gaps), axis=1)
