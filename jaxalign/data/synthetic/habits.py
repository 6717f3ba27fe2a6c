"""Habits of simulated annotators: careless reading, length, position, doubt.

What people do that is neither their group's taste nor a fair coin. A habit is
a person's, for all of their votes, so that noise is correlated within people.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.synthetic import texts, votes
from jaxalign.data.synthetic.config import HABITS, CrowdConfig

READ = 16  # characters of a response that a careless person reads
NONE = -1
_STREAM = 3  # of its own: asking for habits changes no text and nobody's group


class People(NamedTuple):
  """What is peculiar about each of P people.

  Attributes:
    habit: index into `HABITS`, or NONE, int [P].
    other: a second group of those who are in two, else NONE, int [P].
  """

  habit: np.ndarray
  other: np.ndarray


def draw_people(
  config: CrowdConfig, group_of: np.ndarray, *, split: int
) -> People:
  """Who has which habit.

  Args:
    config: the crowd.
    group_of: group of each person, int [P].
    split: number of the split.

  Returns:
    The people, whatever their group: shares are rounded to whole people.
  """
  number = len(group_of)
  rng = np.random.default_rng([config.seed, split, _STREAM])
  order = rng.permutation(number)
  habit, other = np.full(number, NONE), np.full(number, NONE)
  ends = np.cumsum([config.share_of(name) for name in HABITS])
  start = 0
  for index, end in enumerate(np.round(ends * number).astype(int)):
    habit[order[start:end]] = index
    start = end
  groups = len(config.groups)
  for person in np.flatnonzero(habit == HABITS.index("in_two_groups")):
    shares = np.array(config.shares)
    shares[group_of[person]] = 0.0
    other[person] = rng.choice(groups, p=shares / shares.sum())
  return People(habit, other)


def vote_probs(
  config: CrowdConfig,
  people: People,
  group: np.ndarray,
  shown: Sequence[str],
  probs_of: Callable[..., np.ndarray],
) -> np.ndarray:
  """Probability that each of some people prefers the first, float64 [n].

  Args:
    config: the crowd.
    people: those who are asked.
    group: of each, int [n].
    shown: the prompt and both responses, in the order in which they are shown.
    probs_of: `votes.vote_probs` of such texts, of all groups, float64 [K].

  Returns:
    `probs_of` their group for those without a habit; for others, with gap in
    the place of their group's difference of utilities:
      careless       that of the first READ characters of either response
      by_length      scale times the difference of the lengths, in the unit of
                     `texts.qualities`
      by_position    scale
      in_two_groups  none: the mean of the probabilities of both groups
  """
  by_group, (prompt, first, second) = probs_of(*shown), shown
  found = by_group[group]
  if not np.any(people.habit >= 0):
    return found
  glance = probs_of(prompt, first[:READ], second[:READ])
  brevity = texts.QUALITIES.index("brevity")
  longer = (
    texts.qualities(prompt, second)[brevity]
    - texts.qualities(prompt, first)[brevity]
  )
  said = {
    "careless": glance[group],
    "by_length": votes.noisy_prob(config, config.scale * longer),
    "by_position": votes.noisy_prob(config, config.scale),
    "in_two_groups": (found + by_group[np.maximum(people.other, 0)]) / 2,
  }
  for index, name in enumerate(HABITS):
    found = np.where(people.habit == index, said[name], found)
  return found
