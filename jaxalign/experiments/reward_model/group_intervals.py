"""Accuracy of each known group of people, with intervals."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import metrics
from jaxalign.data.batching.pair_dataset import PairDataset


@functools.partial(jax.jit, static_argnames=("num_people", "num_samples"))
def _intervals(
  right: jax.Array,
  members: jax.Array,
  people: jax.Array,
  key: jax.Array,
  num_people: int,
  num_samples: int,
) -> metrics.Interval:
  """Of the mean of [N, M] over the rows of G groups, [N, G]: ends [G, M].

  A resample in which nobody of a group was drawn says nothing of it, and has
  the group's own mean.
  """
  each = right[:, None] * members[:, :, None]
  mean = each.sum(0) / members.sum(0)[:, None]
  return metrics.clustered_interval(
    lambda total, count: jnp.where(
      count[:, None] > 0, total / jnp.maximum(count, 1)[:, None], mean
    ),
    each,
    members,
    cluster=people,
    num_clusters=num_people,
    key=key,
    num_samples=num_samples,
  )


def of_models(
  rewards: Mapping[str, np.ndarray],
  dataset: PairDataset,
  people: np.ndarray | None,
  *,
  num_samples: int,
  seed: int,
) -> dict[str, Any]:
  """How many people and pairs a group has, and how well it is predicted.

  Args:
    rewards: float32 [N, 2, K] per model name; the first reward is scored.
    dataset: the pairs.
    people: of `pair_scores.clusters_of`; None draws pairs.
    num_samples: resamples of the bootstrap.
    seed: of resampling.

  Returns:
    {group: {"num_people", "num_pairs", "accuracy": {model: value, low, high}}};
    empty where no group is known. People are those with a name; a group of
    pairs without names has 0.
  """
  rows = {
    name: dataset.group == k for k, name in enumerate(dataset.group_names)
  }
  rows = {name: member for name, member in rows.items() if member.any()}
  if not rows:
    return {}
  gaps = np.stack([v[:, 0, 0] - v[:, 1, 0] for v in rewards.values()], axis=1)
  right = (np.sign(gaps).astype(np.float32) + 1) / 2
  members = np.stack([*rows.values()], axis=1).astype(np.float32)
  drawn = np.arange(len(right)) if people is None else people
  number = int(drawn.max()) + 1
  low, high = np.full((2, len(rows), right.shape[1]), None)
  if number > 1:
    interval = _intervals(
      right, members, drawn, jax.random.key(seed), number, num_samples
    )
    low, high = np.asarray(interval.low), np.asarray(interval.high)
  found: dict[str, Any] = {}
  for g, (name, member) in enumerate(rows.items()):
    known = dataset.annotator[member]
    found[name] = {
      "num_people": len(np.unique(known[known >= 0])),
      "num_pairs": int(member.sum()),
      "accuracy": {
        model: {
          "value": float(right[member, m].mean()),
          "low": None if low[g, m] is None else float(low[g, m]),
          "high": None if high[g, m] is None else float(high[g, m]),
        }
        for m, model in enumerate(rewards)
      },
    }
  return found
