"""How well the heads of a mixture fit groups, and people they have not met."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxalign import losses, metrics
from jaxalign.data.batching import pair_dataset
from jaxalign.experiments.reward_model import pooled_cost
from jaxalign.experiments.reward_model import user_assignment as people

SHOTS = (0, 1, 2, 5, 10)


def quick(
  rewards: np.ndarray,
  dataset: pair_dataset.PairDataset,
  weights: Sequence[float],
) -> dict[str, float]:
  """The few scores of a training curve.

  Args:
    rewards: float32 [N, 2, K].
    dataset: the pairs.
    weights: of the mixture, [K].

  Returns:
    `eval/accuracy`, `eval/nll` and, where annotators are named,
    `eval/user_nll`.
  """
  gaps = rewards[:, 0] - rewards[:, 1]
  prob = _probs(gaps) @ np.asarray(weights, np.float64)
  scores = {
    "eval/accuracy": float(np.mean(_right(prob))),
    "eval/nll": _nll(prob),
  }
  if len(dataset.annotator_names):
    scores["eval/user_nll"] = _user_nll(gaps, dataset, weights)
  return scores


def of_models(
  rewards: Mapping[str, np.ndarray],
  dataset: pair_dataset.PairDataset,
  weights: Mapping[str, Sequence[float] | None] | None,
  *,
  beta: float = 0.05,
) -> dict[str, Any]:
  """`summarise` of every model with several heads, by name.

  Args:
    rewards: float32 [N, 2, K] per model name.
    dataset: the pairs.
    weights: of the mixture, [K] per model name; None for equal ones.
    beta: at which alignment gaps are measured.

  Returns:
    Scores by name; empty where every model has one head.
  """
  pooled = {
    name: (values[:, 0, 0] - values[:, 1, 0]).astype(np.float64)
    for name, values in rewards.items()
    if values.shape[-1] == 1
  }
  return {
    name: summarise(
      values, dataset, (weights or {}).get(name), beta=beta, pooled=pooled
    )
    for name, values in rewards.items()
    if values.shape[-1] > 1
  }


def summarise(
  rewards: np.ndarray,
  dataset: pair_dataset.PairDataset,
  weights: Sequence[float] | None,
  *,
  beta: float = 0.05,
  pooled: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """Scores of a model with K heads as a mixture of K groups.

  Args:
    rewards: float32 [N, 2, K] of held-out pairs.
    dataset: the pairs, with groups and annotators where they are known.
    weights: of the mixture, [K]; None takes 1 / K each.
    beta: reward units per nat, at which alignment gaps are measured.
    pooled: gaps of models with one head on the same pairs, [N] by name.

  Returns:
    JSON values: `weights`; `pooled`, the accuracy and NLL of what a random
    member prefers; `heads`, the accuracy of each head on each group, [G, K],
    and on all; `diversity` between heads, [K, K]; `pooled_cost`, what a
    single pooled reward costs each group; and where annotators are named
    `user_nll`, `users` with responsibilities by all their pairs, their groups,
    confusion and its accuracy, and `new_users`, placed by their first pairs
    and scored on later ones of other texts.
  """
  gaps = (rewards[:, 0] - rewards[:, 1]).astype(np.float64)
  components = gaps.shape[1]
  even = np.full(components, 1 / components)
  shares = even if weights is None else np.asarray(weights, np.float64)
  given = people.numbers(shares)
  probs = _probs(gaps)
  member = probs @ shares
  right = _right(probs)
  groups = dataset.group_names
  counts = [int(np.sum(dataset.group == g)) for g in range(len(groups))]
  result: dict[str, Any] = {
    "weights": given,
    "pooled": {"accuracy": float(_right(member).mean()), "nll": _nll(member)},
    "heads": {
      "all": people.numbers(right.mean(axis=0)),
      "groups": list(groups),
      "num_pairs": counts,
      "accuracy": [
        people.numbers(right[dataset.group == g].mean(axis=0))
        if counts[g]
        else None
        for g in range(len(groups))
      ],
    },
    "diversity": np.asarray(
      metrics.diversity_matrix(jnp.asarray(probs.T, jnp.float32))
    ).tolist(),
    "pooled_cost": pooled_cost.of_mixture(
      gaps, shares, beta=beta, pooled=pooled
    ),
  }
  if not len(dataset.annotator_names):
    return result
  users = len(dataset.annotator_names)
  belong = people.assign_users(gaps, dataset.annotator, users, given)
  home = people.user_groups(dataset)
  against = people.recovery(belong, home, len(groups))

  def predicted(number: int) -> np.ndarray:
    rows = people.assign_users(
      gaps, dataset.annotator, users, given, num_pairs=number
    )
    mixed: np.ndarray = np.sum(probs * rows[dataset.annotator], axis=1)
    return mixed

  return result | {
    "user_nll": _user_nll(gaps, dataset, given),
    "users": {
      "names": list(dataset.annotator_names),
      "responsibilities": [people.numbers(row) for row in belong],
      "groups": home.tolist(),
      "confusion": None if against is None else against.confusion.tolist(),
      "group_accuracy": None if against is None else against.accuracy,
    },
    "new_users": new_users(predicted, dataset),
  }


def new_users(
  predicted: Callable[[int], np.ndarray], dataset: pair_dataset.PairDataset
) -> list[dict[str, Any]]:
  """Users placed by their first pairs, scored on pairs after all of SHOTS.

  The most shots are those that half of the users have, with one pair to spare
  that shares no text with them; users with fewer are left out, so that every
  line is about the same pairs.

  Args:
    predicted: `number -> [N]`, how probably each pair goes as stated, after the
      first `number` pairs of its person.
    dataset: the pairs.

  Returns:
    JSON values, a line per number; none where people have too few pairs.
  """
  user, users = dataset.annotator, len(dataset.annotator_names)
  counts = np.bincount(user[user >= 0], minlength=users)
  free = {n: people.apart(user, dataset.texts, n) for n in SHOTS}
  spare = {n: np.bincount(user[free[n]], minlength=users) for n in SHOTS}
  possible = [
    n for n in SHOTS if n < np.median(np.minimum(counts, n) + spare[n])
  ]
  if not possible:
    return []
  scored = free[possible[-1]]
  lines = []
  for number in possible:
    prob = predicted(number)
    # One row per person: their pairs are not independent.
    right = _right(prob)
    each = np.array(
      [right[scored & (user == u)].mean() for u in np.unique(user[scored])]
    )
    lines.append(
      {
        "pairs_seen": number,
        "num_users": len(each),
        "num_pairs": int(scored.sum()),
        "accuracy": float(right[scored].mean()),
        "standard_error": float(each.std(ddof=1) / np.sqrt(len(each)))
        if len(each) > 1
        else None,
        "nll": _nll(prob[scored]),
        "groups": {
          name: float(right[scored & (dataset.group == g)].mean())
          for g, name in enumerate(dataset.group_names)
          if np.any(scored & (dataset.group == g))
        },
      }
    )
  return lines


def _user_nll(
  gaps: np.ndarray, dataset: pair_dataset.PairDataset, weights: Sequence[float]
) -> float:
  """−log-likelihood per pair, in nats, of what each user has said.

  A pair with a text that the user has judged in an earlier one does not count.
  """
  counted = people.first_said(dataset.annotator, dataset.texts)
  total = losses.mixture_log_likelihood(
    jnp.asarray(gaps, jnp.float32),
    user=jnp.asarray(dataset.annotator),
    num_users=len(dataset.annotator_names),
    mixture_weights=jnp.asarray(weights, jnp.float32),
    where=jnp.asarray(counted),
  )
  return -float(total) / max(int(np.sum(counted & (dataset.annotator >= 0))), 1)


def by_head(
  rewards: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Each head of a model with several as a model of its own.

  Args:
    rewards: float32 [N, 2, K] per model name.

  Returns:
    float32 [N, 2, 1] per name, "NAME, head k" where K > 1.
  """
  single = {}
  for name, values in rewards.items():
    heads = values.shape[-1]
    for k in range(heads):
      label = name if heads == 1 else f"{name}, head {k}"
      single[label] = values[..., k : k + 1]
  return single


def _probs(gaps: np.ndarray) -> np.ndarray:
  """σ of gaps, float64."""
  return 1 / (1 + np.exp(-gaps.astype(np.float64)))


def _right(probs: np.ndarray) -> np.ndarray:
  """1 for a preference predicted, a half for none, 0 for the opposite."""
  right: np.ndarray = (np.sign(probs - 0.5) + 1) / 2
  return right


def _nll(probs: np.ndarray) -> float:
  return float(-np.mean(np.log(np.maximum(probs, np.finfo(float).tiny))))
