"""Personal rewards: a few numbers per person, with a prior; on frozen features.

Each person's reward is one of a family with R dimensions, and where in it the
person is has a Gaussian prior. So a person without pairs has the common reward,
and one with a few pairs is moved as far as these say.

  "low_rank"      r_u(φ) = (w + Bᵀ a_u)·φ
  "ideal_points"  r_u(φ) = −½ |Pφ − (c + a_u)|² + ½ |c + a_u|²

Both are a common reward plus d(φ)·a_u, linear in a_u ~ N(0, 1). PAL holds ideal
points in the hull of a few prototypes; here a prior does. `personal_recipe`
trains networks of the same two kinds.

Chen et al., "PAL: Pluralistic alignment framework for learning from
heterogeneous preferences", 2024.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxalign.algorithms import reward_readout
from jaxalign.algorithms.linear_mixture import STEP_SIZES, Comparisons
from jaxalign.ops import checks, segment_sum

START = 0.1  # size of the first directions, beside a common head of size 1


@dataclasses.dataclass(frozen=True)
class PersonalConfig:
  """How personal rewards are fitted on frozen features.

  Attributes:
    kind: "low_rank" for heads near a common one, "ideal_points" for distances
      from a point of one's own.
    rank: R, dimensions in which people differ.
    num_steps: of L-BFGS, over everything at once.
  """

  kind: str = "low_rank"
  rank: int = 4
  num_steps: int = 100

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.one_of(reward_readout.PERSONAL, kind=self.kind)
    checks.at_least(1, rank=self.rank, num_steps=self.num_steps)


class Family(NamedTuple):
  """What people have in common.

  Attributes:
    common: w [D] of "low_rank", c [R] of "ideal_points".
    directions: B or P, [R, D].
  """

  common: jax.Array
  directions: jax.Array


class PersonalRewards(NamedTuple):
  """A family of rewards and where people are in it.

  Attributes:
    family: what they have in common.
    people: a, [U, R]; 0 for a person without pairs.
    objective: what is minimised, in nats, before each step, [num_steps].
  """

  family: Family
  people: jax.Array
  objective: jax.Array


def rewards(
  family: Family, features: jax.Array, *, kind: str
) -> tuple[jax.Array, jax.Array]:
  """The common reward of each text, and what a person's numbers add to it.

  Args:
    family: what people have in common.
    features: of the texts, [I, D].
    kind: as of `PersonalConfig`.

  Returns:
    Rewards [I] of a person at 0 and d [I, R]: person u's are the first plus
    d @ a_u.
  """
  turned = jnp.einsum(
    "id,rd->ir", features, family.directions, precision="highest"
  )
  if kind == "low_rank":
    own = jnp.einsum("id,d->i", features, family.common, precision="highest")
  else:
    own = jnp.sum(turned * family.common[None], axis=1)
  outputs = jnp.concatenate([own[:, None], turned], axis=1)
  return reward_readout.shared_reward(outputs, kind), turned


def penalised_loss(
  family: Family,
  people: jax.Array,
  data: Comparisons,
  penalties: Family,
  *,
  kind: str,
  where: jax.Array | None = None,
) -> jax.Array:
  """What the fit minimises: minus the joint log-density, in nats.

    Σ_n log(1 + exp(−gap_n)) + ½ Σ_u |a_u|² + ½ λ |common|² + ½ κ |directions|²

  Args:
    family: what people have in common.
    people: a, [U, R].
    data: the pairs; those of nobody are of a person at 0.
    penalties: λ and κ.
    kind: as of `PersonalConfig`.
    where: bool [N], True counts, all by default.

  Returns:
    A scalar.
  """
  common, turned = rewards(family, data.features, kind=kind)
  known = (data.user >= 0) & (data.user < len(people))
  own = people[jnp.where(known, data.user, 0)]
  own = jnp.where(known[:, None], own, 0)
  apart = turned[data.chosen] - turned[data.rejected]
  gaps = common[data.chosen] - common[data.rejected]
  gaps = gaps + jnp.sum(apart * own, axis=1)
  lost = jax.nn.softplus(-gaps)
  if where is not None:
    lost = jnp.where(where, lost, 0)
  prior = jnp.sum(people**2) + sum(
    penalty * jnp.sum(leaf * leaf)
    for penalty, leaf in zip(penalties, family, strict=True)
  )
  return jnp.sum(lost) + prior / 2


@functools.partial(jax.jit, static_argnames=("num_users", "config"))
def fit(
  data: Comparisons,
  *,
  num_users: int,
  config: PersonalConfig,
  ridge: jax.Array | float,
  pull: jax.Array | float,
  head: jax.Array,
  key: jax.Array,
  where: jax.Array | None = None,
) -> PersonalRewards:
  """Fits a family and everybody's place in it, as the likeliest of both.

  Args:
    data: the pairs.
    num_users: U, a Python int.
    config: kind and rank.
    ridge: penalty of the squared norm of what is common, per counted pair, > 0.
    pull: the same for the directions. The prior of people is 1, so this says
      how near to each other they are.
    head: a pooled head to begin with, [D].
    key: typed PRNG key, consumed.
    where: bool [N], True counts, all by default.

  Returns:
    The rewards. The objective does not rise from step to step.

  Raises:
    TypeError: features are not floating point, or indices not integer.
    ValueError: shapes differ.
  """
  checks.rank(2, features=data.features)
  checks.rank(1, head=head, chosen=data.chosen)
  checks.integer(chosen=data.chosen, rejected=data.rejected, user=data.user)
  checks.same_shape(chosen=data.chosen, rejected=data.rejected, user=data.user)
  features, head = checks.floating(features=data.features, head=head)
  data = data._replace(features=features)
  if where is None:
    where = jnp.ones(len(data.user), jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(user=data.user, where=where)
  number = jnp.sum(where.astype(features.dtype))
  penalties = Family(number * ridge, number * pull)
  directions = jax.random.normal(
    key, (config.rank, features.shape[1]), features.dtype
  )
  directions = (
    START * directions / jnp.sqrt(jnp.sum(directions**2, axis=1))[:, None]
  )
  common = head
  if config.kind == "ideal_points":
    # A long way off in the direction of the head: nearly linear.
    size = jnp.sqrt(jnp.maximum(jnp.sum(head * head), 1e-12))
    directions = directions.at[0].set(START * head / size)
    common = jnp.zeros(config.rank, features.dtype).at[0].set(size / START)
  start = (
    Family(common, directions),
    jnp.zeros((num_users, config.rank), features.dtype),
  )
  cost = lambda both: penalised_loss(
    both[0], both[1], data, penalties, kind=config.kind, where=where
  )
  solver = optax.lbfgs()

  def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
    both, state = carry
    value, gradient = optax.value_and_grad_from_state(cost)(both, state=state)
    updates, state = solver.update(
      gradient, state, both, value=value, grad=gradient, value_fn=cost
    )
    return (optax.apply_updates(both, updates), state), value

  with jax.numpy_dtype_promotion("standard"):  # as optax counts steps
    ((family, people), _), objective = jax.lax.scan(
      step, (start, solver.init(start)), length=config.num_steps
    )
  return PersonalRewards(family, people, objective)


class Placed(NamedTuple):
  """Where a person is: mean [R] and covariance [R, R], Gaussian."""

  mean: jax.Array
  covariance: jax.Array


def place(
  gaps: jax.Array,
  apart: jax.Array,
  *,
  where: jax.Array | None = None,
  num_steps: int = 20,
) -> Placed:
  """A person whom the fit has not met, by a few pairs of theirs.

    a = argmin Σ_n log(1 + exp(−gap_n − d_n·a)) + ½ |a|²

  by damped Newton steps, with the inverse Hessian there as covariance.

  Args:
    gaps: common reward of the chosen minus the rejected text, float [N].
    apart: d of the chosen minus the rejected text, float [N, R].
    where: bool [N], True counts, all by default.
    num_steps: of Newton.

  Returns:
    The place; without pairs mean 0 and covariance 1, the prior.
  """
  checks.rank(1, gaps=gaps)
  checks.boolean(where=where)
  gaps, apart = checks.floating(gaps=gaps, apart=apart)
  counted = jnp.ones(gaps.shape, gaps.dtype)
  if where is not None:
    checks.same_shape(gaps=gaps, where=where)
    counted = where.astype(gaps.dtype)
    gaps = jnp.where(where, gaps, 0)
    apart = jnp.where(where[:, None], apart, 0)
  eye = jnp.eye(apart.shape[1], dtype=gaps.dtype)
  sizes = jnp.asarray((*STEP_SIZES, 0.0), gaps.dtype)

  def cost(own: jax.Array) -> jax.Array:
    lost = counted * jax.nn.softplus(-gaps - apart @ own)
    return jnp.sum(lost) + own @ own / 2

  def curvature(own: jax.Array) -> tuple[jax.Array, jax.Array]:
    miss = counted * jax.nn.sigmoid(-gaps - apart @ own)
    spread = miss * jax.nn.sigmoid(gaps + apart @ own)
    return own - miss @ apart, eye + apart.T @ (spread[:, None] * apart)

  def step(_: jax.Array, own: jax.Array) -> jax.Array:
    slope, hessian = curvature(own)
    tried = own[None] - sizes[:, None] * jnp.linalg.solve(hessian, slope)[None]
    best: jax.Array = tried[jnp.argmin(jax.vmap(cost)(tried))]
    return best

  mean = jax.lax.fori_loop(
    0, num_steps, step, jnp.zeros(apart.shape[1], gaps.dtype)
  )
  return Placed(mean, jnp.linalg.inv(curvature(mean)[1]))


def place_people(
  gaps: jax.Array,
  apart: jax.Array,
  *,
  user: jax.Array,
  num_users: int,
  chosen_prob: jax.Array | None = None,
  where: jax.Array | None = None,
  num_steps: int = 20,
) -> Placed:
  """`place` of many people, each by their own pairs, with soft labels.

    a_u = argmin Σ_{n∈u} [−p_n log σ(g_n) − (1 − p_n) log σ(−g_n)] + ½ |a|²
    g_n = gap_n + d_n·a

  Args:
    gaps: common reward of the chosen minus the rejected text, float [N].
    apart: d of the chosen minus the rejected text, float [N, R].
    user: who stated each preference, int [N]; outside [0, num_users) nobody.
    num_users: U, a Python int.
    chosen_prob: p, share of votes for the chosen text, float [N]; None for 1.
    where: bool [N], True counts, all by default.
    num_steps: of Newton.

  Returns:
    Means [U, R] and covariances [U, R, R]; the prior without pairs.
  """
  checks.rank(1, gaps=gaps, user=user)
  checks.rank(2, apart=apart)
  checks.integer(user=user)
  checks.same_shape(gaps=gaps, user=user)
  gaps, apart = checks.floating(gaps=gaps, apart=apart)
  if where is None:
    where = jnp.ones(gaps.shape, jnp.bool_)
  checks.boolean(where=where)
  checks.same_shape(gaps=gaps, where=where)
  where = where & (user >= 0) & (user < num_users)
  gaps = jnp.where(where, gaps, 0)
  apart = jnp.where(where[:, None], apart, 0)
  prob = jnp.ones_like(gaps)
  if chosen_prob is not None:
    (prob,) = checks.floating(chosen_prob=chosen_prob)
    checks.same_shape(gaps=gaps, chosen_prob=prob)
    prob = jnp.where(where, prob.astype(gaps.dtype), 1)
  home = jnp.where(where, user, 0)
  eye = jnp.eye(apart.shape[1], dtype=gaps.dtype)
  sizes = jnp.asarray((*STEP_SIZES, 0.0), gaps.dtype)

  def summed(rows: jax.Array) -> jax.Array:
    return segment_sum(rows, segment=home, num_segments=num_users, where=where)

  def reached(own: jax.Array) -> jax.Array:
    return gaps + jnp.sum(apart * own[home], axis=1)

  def cost(own: jax.Array) -> jax.Array:
    gap = reached(own)
    lost = prob * jax.nn.softplus(-gap) + (1 - prob) * jax.nn.softplus(gap)
    return summed(lost) + jnp.sum(own * own, axis=1) / 2

  def curvature(own: jax.Array) -> tuple[jax.Array, jax.Array]:
    likely = jax.nn.sigmoid(reached(own))
    spread = (likely * (1 - likely))[:, None, None]
    hessian = eye[None] + summed(spread * apart[:, :, None] * apart[:, None])
    return own + summed((likely - prob)[:, None] * apart), hessian

  def step(_: jax.Array, own: jax.Array) -> jax.Array:
    slope, hessian = curvature(own)
    move = jnp.linalg.solve(hessian, slope[..., None])[..., 0]
    tried = own[None] - sizes[:, None, None] * move[None]
    best = jnp.argmin(jax.vmap(cost)(tried), axis=0)
    taken: jax.Array = jnp.take_along_axis(tried, best[None, :, None], axis=0)
    return taken[0]

  start = jnp.zeros((num_users, apart.shape[1]), gaps.dtype)
  mean = jax.lax.fori_loop(0, num_steps, step, start)
  return Placed(mean, jnp.linalg.inv(curvature(mean)[1]))


def of_pairs(placed: Placed, user: jax.Array) -> Placed:
  """Where the person of each pair is, the prior for nobody.

  Args:
    placed: of U people, [U, R] and [U, R, R].
    user: who stated each preference, int [N]; outside [0, U) nobody.

  Returns:
    Means [N, R] and covariances [N, R, R].
  """
  number, rank = placed.mean.shape
  known = (user >= 0) & (user < number)
  home = jnp.where(known, user, 0)
  eye = jnp.eye(rank, dtype=placed.covariance.dtype)
  return Placed(
    jnp.where(known[:, None], placed.mean[home], 0),
    jnp.where(known[:, None, None], placed.covariance[home], eye[None]),
  )


def win_probability(
  gaps: jax.Array, apart: jax.Array, placed: Placed
) -> jax.Array:
  """How probably a person prefers the first response, over where they may be.

    p ≈ σ(m / √(1 + π v / 8)),   m = gap + d·mean,   v = d·covariance·d

  Args:
    gaps: common reward of the first minus the second response, [N].
    apart: d of the first minus the second response, [N, R].
    placed: where the person is, or where that of each pair is, see `of_pairs`.

  Returns:
    Probabilities, [N].

  References:
    MacKay, "The evidence framework applied to classification networks", 1992.
  """
  if placed.mean.ndim == 2:
    middle = gaps + jnp.sum(apart * placed.mean, axis=1)
  else:
    middle = gaps + apart @ placed.mean
  each = "nrs" if placed.mean.ndim == 2 else "rs"
  spread = jnp.einsum(f"nr,{each},ns->n", apart, placed.covariance, apart)
  return jax.nn.sigmoid(middle / jnp.sqrt(1 + math.pi / 8 * spread))
