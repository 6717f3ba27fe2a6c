"""Simulated voters: people of groups, each group with a reward as its taste.

Unlike a synthetic crowd they judge texts that already exist.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Vote(NamedTuple):
  """One person's choice between two responses to a prompt.

  Attributes:
    record: number of the prompt.
    chosen: number of the response that the person prefers.
    rejected: number of the other.
    person: number of the person.
    group: number of the person's group.
  """

  record: int
  chosen: int
  rejected: int
  person: int
  group: int


def groups_of(shares: Sequence[float], number: int) -> np.ndarray:
  """The group of each of some people, in whole people as near as can be.

  Args:
    shares: of K groups, adding up to 1.
    number: P people.

  Returns:
    Numbers of groups in ascending order, int [P].
  """
  ends = np.round(np.cumsum(shares) * number).astype(int)
  return np.searchsorted(ends, np.arange(number), side="right")


def draw(
  rewards: Sequence[np.ndarray],
  *,
  shares: Sequence[float],
  num_people: int,
  pairs_per_person: int,
  temperature: float,
  seed: int,
) -> list[Vote]:
  """Votes of some people, each on different prompts as long as there are any.

    P(a preferred to b by a person of group k) = σ((r_ak − r_bk) / T)

  Args:
    rewards: of the responses to each prompt in the eyes of K groups, float
      [n, K] each with n >= 2.
    shares: of the groups among people, adding up to 1.
    num_people: P.
    pairs_per_person: votes of each.
    temperature: T, in the unit of the rewards; 0 for the higher one always,
      and a coin where they are equal.
    seed: of everything drawn.

  Returns:
    P · pairs_per_person votes, person by person.
  """
  rng = np.random.default_rng(seed)
  groups = rng.permutation(groups_of(shares, num_people))
  votes = []
  for person, group in enumerate(groups.tolist()):
    rounds = -(-pairs_per_person // len(rewards))
    order = np.concatenate([rng.permutation(len(rewards))] * rounds)
    for at in order[:pairs_per_person].tolist():
      first, second = rng.choice(len(rewards[at]), 2, replace=False).tolist()
      gap = float(rewards[at][first, group] - rewards[at][second, group])
      if temperature:
        prob = 1 / (1 + np.exp(-gap / temperature))
      else:
        prob = (np.sign(gap) + 1) / 2
      if rng.random() >= prob:
        first, second = second, first
      votes.append(Vote(at, first, second, person, group))
  return votes
