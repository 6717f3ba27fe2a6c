"""Label shares of answers: how many of a crowd would call them what.

The table that DPRM reports of its policies: the mean share of each label over
answers, by a source that predicts labels or knows them.
"""

from typing import Any

import jax
import numpy as np

from jaxalign import metrics
from jaxalign.experiments.reward_model import pair_scores
from jaxalign.runtime.reward_sources.labels import Labels

SEED = 0  # of resampling


def by_prompt(probs: np.ndarray, number: int) -> np.ndarray:
  """Mean shares of the answers to each prompt, float64 [P, d].

  Args:
    probs: of P · G answers, those of a prompt one after another, [..., d].
    number: P.
  """
  rows = probs.astype(np.float64).reshape(number, -1, probs.shape[-1])
  mean: np.ndarray = rows.mean(axis=1)
  return mean


def summarise(
  shares: np.ndarray,
  labels: Labels,
  *,
  people: np.ndarray | None = None,
  num_resamples: int = 1000,
  seed: int = SEED,
) -> dict[str, Any]:
  """Mean share of each label, with its interval over prompts.

  Args:
    shares: of each prompt, [P, d].
    labels: names and values.
    people: who asked each prompt, of `pair_scores.clusters_of`; None for
      intervals over prompts.
    num_resamples: of the bootstrap.
    seed: of resampling.

  Returns:
    JSON values: `names`; `shares`, a `value` with the ends `low` and `high` of
    its 95 % interval and the standard deviation `std` over prompts for each
    label; `worth`, the same of the value that the shares imply; `num_prompts`.
  """
  values = np.asarray(labels.values, np.float64)
  columns = np.concatenate([shares, (shares @ values)[:, None]], axis=1)
  low, high = _interval(columns, people, num_resamples, seed)
  rows = [
    {"value": float(mean), "low": float(a), "high": float(b), "std": float(std)}
    for mean, a, b, std in zip(
      columns.mean(axis=0), low, high, columns.std(axis=0), strict=True
    )
  ]
  return {
    "names": list(labels.names),
    "shares": rows[:-1],
    "worth": rows[-1],
    "num_prompts": len(shares),
  }


def _interval(
  columns: np.ndarray,
  people: np.ndarray | None,
  num_resamples: int,
  seed: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Both ends of the mean of [P, C] columns, [C] each."""
  key = jax.random.key(seed)
  values = columns.astype(np.float32)
  if people is None:
    found = metrics.bootstrap_interval(
      lambda rows: rows.mean(axis=0), values, key=key, num_samples=num_resamples
    )
    return np.asarray(found.low), np.asarray(found.high)
  each = [
    pair_scores.mean_over_people(
      column,
      people,
      jax.random.clone(key),
      num_people=int(people.max()) + 1,
      num_samples=num_resamples,
    )
    for column in values.T
  ]
  return (
    np.array([one.low for one in each]),
    np.array([one.high for one in each]),
  )


def in_words(summary: dict[str, Any]) -> str:
  """The shares in one sentence."""
  said = "; ".join(
    f"{name} {100 * share['value']:.1f} % "
    f"[{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
    for name, share in zip(summary["names"], summary["shares"], strict=True)
  )
  return f"labels over {summary['num_prompts']:,} prompts: {said}"
