"""How well personal rewards fit people that training has not met."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.algorithms import personal_rewards, reward_readout
from jaxalign.data.batching import pair_dataset
from jaxalign.experiments.reward_model import (
  mixture_scores,
  scoring,
  user_assignment,
)


def summarise(
  outputs: np.ndarray,
  dataset: pair_dataset.PairDataset,
  read: reward_readout.Readout,
) -> dict[str, Any]:
  """Scores of people who are placed by their own first pairs.

  Args:
    outputs: of a personal model, float32 [N, 2, 1 + R] of held-out pairs.
    dataset: the pairs.
    read: how outputs are read, of a kind of `reward_readout.PERSONAL`.

  Returns:
    JSON values: `kind`, `rank`, and `new_users` as those of a mixture, empty
    where no annotators are named.
  """
  lines = []
  if len(dataset.annotator_names):
    lines = mixture_scores.new_users(_Placing(outputs, dataset, read), dataset)
  rank = read.num_factors(outputs.shape[-1])
  return {"kind": read.kind, "rank": rank, "new_users": lines}


def quick(
  outputs: np.ndarray,
  dataset: pair_dataset.PairDataset,
  read: reward_readout.Readout,
) -> dict[str, float]:
  """The few scores of a training curve.

  Args:
    outputs: float32 [N, 2, 1 + R].
    dataset: the pairs.
    read: how outputs are read.

  Returns:
    `eval/accuracy` and `eval/nll` of the shared reward and, where people have
    enough pairs, `eval/placed_accuracy` and `eval/placed_nll` after the most
    own pairs of `summarise`.
  """
  scores = scoring.quick_scores(np.asarray(read(outputs)))
  if lines := summarise(outputs, dataset, read)["new_users"]:
    for name in ("accuracy", "nll"):
      scores[f"eval/placed_{name}"] = lines[-1][name]
  return scores


class _Placing:
  """How probably pairs go as stated, after the first pairs of their people."""

  def __init__(
    self,
    outputs: np.ndarray,
    dataset: pair_dataset.PairDataset,
    read: reward_readout.Readout,
  ) -> None:
    rewards = np.asarray(read(jnp.asarray(outputs)))[..., 0]
    self._gaps = rewards[:, 0] - rewards[:, 1]
    self._apart = outputs[:, 0, 1:] - outputs[:, 1, 1:]
    self._dataset = dataset

  def __call__(self, number: int) -> np.ndarray:
    """Probabilities, float64 [N], after `number` pairs."""
    user = self._dataset.annotator
    prob = _predicted(
      self._gaps,
      self._apart,
      user,
      user_assignment.place_of(user) < number,
      num_users=len(self._dataset.annotator_names),
    )
    return np.asarray(prob, np.float64)


def _probability(
  gaps: jax.Array,
  apart: jax.Array,
  user: jax.Array,
  seen: jax.Array,
  *,
  num_users: int,
) -> jax.Array:
  placed = personal_rewards.place_people(
    gaps, apart, user=user, num_users=num_users, where=seen
  )
  own = personal_rewards.of_pairs(placed, user)
  return personal_rewards.win_probability(gaps, apart, own)


_predicted = jax.jit(_probability, static_argnames="num_users")
