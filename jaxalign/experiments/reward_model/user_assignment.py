"""Who belongs to which component, against known groups, and who is new."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from optax import assignment

from jaxalign import losses
from jaxalign.algorithms import personal_rewards
from jaxalign.data.batching import pair_dataset

FOUND = "mixture.json"


class Recovery(NamedTuple):
  """Found components against known groups.

  Attributes:
    confusion: users of each group most likely of each component, int [G, K].
    accuracy: share of users on the diagonal under the best one-to-one naming;
      a group or component too many has no partner.
  """

  confusion: np.ndarray
  accuracy: float


def user_groups(dataset: pair_dataset.PairDataset) -> np.ndarray:
  """Group of each annotator, int64 [U]; −1 for none or more than one."""
  groups = np.full(len(dataset.annotator_names), -1)
  named = (dataset.annotator >= 0) & (dataset.group >= 0)
  user, group = dataset.annotator[named], dataset.group[named]
  groups[user] = group
  groups[user[groups[user] != group]] = -1
  return groups


def recovery(
  responsibilities: np.ndarray, groups: np.ndarray, num_groups: int
) -> Recovery | None:
  """Compares users' most likely components with their known groups.

  Args:
    responsibilities: [U, K].
    groups: group per user, −1 for unknown, int [U].
    num_groups: G.

  Returns:
    The comparison, or None where no user has a known group.
  """
  known = groups >= 0
  if not known.any():
    return None
  confusion = np.zeros((num_groups, responsibilities.shape[1]), int)
  home = responsibilities[known].argmax(axis=1)
  np.add.at(confusion, (groups[known], home), 1)
  rows, columns = assignment.hungarian_algorithm(
    jnp.asarray(-confusion, jnp.float32)
  )
  hits = confusion[np.asarray(rows), np.asarray(columns)].sum()
  return Recovery(confusion, float(hits / known.sum()))


def found(
  responsibilities: np.ndarray,
  weights: np.ndarray,
  reseeded: int,
  dataset: pair_dataset.PairDataset,
) -> dict[str, Any]:
  """What training found about its users, as JSON values.

  Args:
    responsibilities: [U, K].
    weights: [K].
    reseeded: empty components that were given users.
    dataset: training pairs.

  Returns:
    The content of mixture.json.
  """
  groups = user_groups(dataset)
  against = recovery(responsibilities, groups, len(dataset.group_names))
  return {
    "mixture_weights": numbers(weights),
    "reseeded": reseeded,
    "users": {
      name: numbers(row)
      for name, row in zip(
        dataset.annotator_names, responsibilities, strict=True
      )
    },
    "groups": list(dataset.group_names),
    "group_of_user": groups.tolist(),
    "confusion": None if against is None else against.confusion.tolist(),
    "group_accuracy": None if against is None else against.accuracy,
  }


def assign_users(
  gaps: np.ndarray,
  user: np.ndarray,
  num_users: int,
  weights: Sequence[float],
  *,
  num_pairs: int | None = None,
) -> np.ndarray:
  """Responsibilities for people the mixture was not trained on.

  Args:
    gaps: reward of chosen minus rejected under each head, float [N, K].
    user: who stated each preference, int [N], −1 for nobody.
    num_users: U.
    weights: of the mixture, [K].
    num_pairs: how many pairs of each user, the first, are looked at; all with
      None. A user without any gets the weights.

  Returns:
    float32 [U, K].
  """
  where = np.ones(len(gaps), bool)
  if num_pairs is not None:
    where = place_of(user) < num_pairs
  shares = losses.user_responsibilities(
    jnp.asarray(gaps, jnp.float32),
    user=jnp.asarray(user),
    num_users=num_users,
    mixture_weights=jnp.asarray(weights, jnp.float32),
    where=jnp.asarray(where),
  )
  return np.asarray(shares)


class Person(NamedTuple):
  """One new person, by a few of their own pairs.

  Attributes:
    heads: weights of a model's rewards, [K].
    factors: their own numbers, [R]; None where the model has no factors.
  """

  heads: np.ndarray
  factors: np.ndarray | None = None

  def rewards(
    self, rewards: np.ndarray, factors: np.ndarray | None
  ) -> np.ndarray:
    """The person's own, [n], of rewards [n, K] and factors [n, R]."""
    own: np.ndarray = rewards @ self.heads
    if self.factors is None or factors is None:
      return own
    return own + factors @ self.factors


def person_of(
  gaps: np.ndarray, factors: np.ndarray | None, weights: Sequence[float]
) -> Person:
  """Places one new person among heads, or among factors where there are any.

  Args:
    gaps: raw reward of chosen minus rejected, [n, K].
    factors: the same of the factors, [n, R], or None.
    weights: share of each head's group, [K]; not read with factors.
  """
  if factors is None:
    return Person(place_person(gaps, weights))
  return Person(np.ones(1), place_point(gaps[:, 0], factors))


def place_person(gaps: np.ndarray, weights: Sequence[float]) -> np.ndarray:
  """Which groups one new person belongs to, by a few of their own pairs.

    ρ_k ∝ π_k Π_n σ(gap_nk)

  Args:
    gaps: raw reward of chosen minus rejected under each head, [n, K]; n may be
      0, which leaves the weights.
    weights: share of each head's group, [K].

  Returns:
    Responsibilities, float64 [K].
  """
  shares = np.asarray(weights, np.float64)
  each = -np.logaddexp(0.0, -np.asarray(gaps, np.float64))
  joint = np.log(np.where(shares > 0, shares, 1.0)) + each.sum(axis=0)
  joint = np.where(shares > 0, joint, -np.inf)
  likely = np.exp(joint - joint.max())
  placed: np.ndarray = likely / likely.sum()
  return placed


def place_point(gaps: np.ndarray, factors: np.ndarray) -> np.ndarray:
  """Where one new person is, by a few of their own pairs; of personal rewards.

  Args:
    gaps: raw shared reward of chosen minus rejected, [n]; n may be 0, which
      leaves the person at 0.
    factors: the same of the factors, [n, R].

  Returns:
    The person's numbers, float64 [R], see `personal_rewards.place`.
  """
  # Padded to powers of two, so that a server compiles few programs.
  spare = (1 << max(len(gaps) - 1, 0).bit_length()) - len(gaps)
  placed = _placed(
    np.pad(np.asarray(gaps, np.float32), (0, spare)),
    np.pad(np.asarray(factors, np.float32), ((0, spare), (0, 0))),
    where=np.arange(len(gaps) + spare) < len(gaps),
  )
  return np.asarray(placed.mean, np.float64)


_placed = jax.jit(personal_rewards.place)


def place_of(user: np.ndarray) -> np.ndarray:
  """How many earlier rows are of the same user, int64 [N]."""
  order = np.argsort(user, kind="stable")
  ranked = user[order]
  first = np.searchsorted(ranked, ranked)
  place = np.empty(len(user), int)
  place[order] = np.arange(len(user)) - first
  return place


def apart(user: np.ndarray, sides: np.ndarray, num_pairs: int) -> np.ndarray:
  """Pairs on which people who were placed by their first pairs can be scored.

  A text of a pair that placed a person says what they think of it; a later pair
  with the same text would be half known.

  Args:
    user: who stated each preference, int [N], −1 for nobody.
    sides: numbers of the two texts of each pair, int [N, 2].
    num_pairs: the first pairs of each person, by which they are placed.

  Returns:
    True for later pairs of somebody that share no text with those, bool [N].
  """
  seen = place_of(user) < num_pairs
  key = user.astype(np.int64)[:, None] * (sides.max(initial=0) + 1) + sides
  free: np.ndarray = ~(seen | np.isin(key, key[seen]).any(axis=1)) & (user >= 0)
  return free


def first_said(user: np.ndarray, sides: np.ndarray) -> np.ndarray:
  """Pairs whose texts a person has not judged in an earlier one of these.

  Votes on single items make many pairs of one item. Over such pairs alone a
  likelihood counts no vote twice.

  Args:
    user: who stated each preference, int [N], −1 for nobody.
    sides: numbers of the two texts of each pair, int [N, 2].

  Returns:
    True for the pairs, in their order as many as fit, bool [N]; all of nobody.
  """
  known: set[tuple[int, int]] = set()
  kept = np.ones(len(user), bool)
  for n, (who, first, second) in enumerate(
    zip(user.tolist(), *sides.T.tolist(), strict=True)
  ):
    if who < 0:
      continue
    kept[n] = not {(who, first), (who, second)} & known
    if kept[n]:
      known |= {(who, first), (who, second)}
  return kept


def numbers(values: np.ndarray | Sequence[float]) -> list[float]:
  """Values [N] as JSON has them."""
  return [float(value) for value in values]
