"""Scores of held-out pairs with their intervals and noise floors."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import metrics
from jaxalign.data.records.record import Record


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How held-out pairs are scored.

  Attributes:
    batch_size: pairs per forward over all devices.
    num_bins: equal-width bins of the calibration error.
    num_samples: resamples of the bootstrap and of the noise floor.
  """

  batch_size: int = 64
  num_bins: int = 10
  num_samples: int = 1000

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")


SCORES = ("accuracy", "nll", "brier", "ece")


@functools.partial(jax.jit, static_argnames=("num_bins", "num_samples"))
def _score_gaps(
  gaps: jax.Array,
  members: jax.Array,
  key: jax.Array,
  num_bins: int,
  num_samples: int,
) -> tuple[jax.Array, metrics.Interval, metrics.NoiseFloor]:
  """SCORES of S subsets of [N] gaps, their intervals, the ECE noise floors.

  All subsets ride on one resampling of the pairs, so one program serves them.
  """

  def scores(gaps: jax.Array, where: jax.Array) -> jax.Array:
    sums = (
      metrics.preference_accuracy(gaps, jnp.zeros_like(gaps), where=where),
      metrics.negative_log_likelihood(gaps, where=where),
      metrics.brier_score(gaps, where=where),
    )
    ece = metrics.expected_calibration_error(
      gaps, num_bins=num_bins, where=where
    )
    means = [total / jnp.maximum(count, 1) for total, count in sums]
    return jnp.stack([*means, ece])

  # Rows of `members` are drawn with their pairs, so they lead.
  of_all = jax.vmap(scores, (None, 1))
  boot_key, floor_key = jax.random.split(key)
  interval = metrics.bootstrap_interval(
    of_all, gaps, members.T, key=boot_key, num_samples=num_samples
  )
  floor = jax.lax.map(
    lambda one: metrics.calibration_noise_floor(
      gaps, key=one[1], num_bins=num_bins, num_samples=num_samples, where=one[0]
    ),
    (members, jax.random.split(floor_key, len(members))),
  )
  return of_all(gaps, members.T), interval, floor


def summarise(
  gaps: np.ndarray,
  subsets: Mapping[str, np.ndarray],
  config: EvalConfig,
  seed: int,
) -> dict[str, Any]:
  """All scores of subsets of the pairs, with 95 % intervals.

  Args:
    gaps: chosen minus rejected rewards, float32 [N].
    subsets: row numbers by name.
    config: bins and resamples.
    seed: of resampling.

  Returns:
    Per subset `num_pairs` and per score `value`, `low`, `high`; `ece` also has
    the `noise_floor` a perfectly calibrated model would show at this n: `mean`,
    and the 5 % and 95 % quantiles `low` and `high`.
  """
  members = np.zeros((len(subsets), len(gaps)), bool)
  for row, indices in zip(members, subsets.values(), strict=True):
    row[indices] = True
  values, interval, floor = jax.device_get(
    _score_gaps(
      gaps,
      members,
      jax.random.key(seed),
      num_bins=config.num_bins,
      num_samples=config.num_samples,
    )
  )
  summary: dict[str, Any] = {}
  for k, (subset, indices) in enumerate(subsets.items()):
    summary[subset] = {"num_pairs": len(indices)}
    for i, name in enumerate(SCORES):
      summary[subset][name] = {
        "value": float(values[k, i]),
        "low": float(interval.low[k, i]),
        "high": float(interval.high[k, i]),
      }
    summary[subset]["ece"]["noise_floor"] = {
      name: float(value[k]) for name, value in floor._asdict().items()
    }
  return summary


# By whose label pairs are scored. Where labels are noisy, a model that follows
# their noise scores well on them; a second judge's labels, and those that both
# agree on, tell the two apart.

RECORDED, JUDGE, AGREED = "labels:recorded", "labels:judge", "labels:agreed"


class LabelSets(NamedTuple):
  """Which pairs have a second judge, and what it says.

  Attributes:
    recorded: row numbers of the judged pairs, under the name RECORDED.
    judged: the same under JUDGE; under AGREED those whose recorded label the
      judge shares.
    sign: 1 or -1, what turns a gap chosen − rejected into one in favour of the
      judge's choice, float32 [N].
  """

  recorded: dict[str, np.ndarray]
  judged: dict[str, np.ndarray]
  sign: np.ndarray


def label_sets(records: Iterable[Record]) -> LabelSets:
  """The label sets of some pairs; without a second judge there are none.

  Args:
    records: pairs; a judge at exactly one half, like none, is left out.

  Returns:
    The sets, empty ones left out.
  """
  probs = np.array(
    [0.5 if r.judge_prob is None else r.judge_prob for r in records]
  )
  rows, agreed = np.flatnonzero(probs != 0.5), np.flatnonzero(probs > 0.5)
  filled = lambda sets: {name: rows for name, rows in sets.items() if len(rows)}
  return LabelSets(
    filled({RECORDED: rows}),
    filled({JUDGE: rows, AGREED: agreed}),
    np.where(probs < 0.5, -1, 1).astype(np.float32),
  )


def summarise_sets(
  summary: Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, Any]],
  gaps: np.ndarray,
  subsets: Mapping[str, np.ndarray],
  sets: LabelSets,
) -> dict[str, Any]:
  """Scores of subsets of the pairs and of every label set.

  Args:
    summary: `(gaps, subsets) -> scores by subset`.
    gaps: chosen minus rejected rewards, float32 [N].
    subsets: row numbers by name, scored by the recorded labels.
    sets: of the same pairs.

  Returns:
    Scores by the name of the subset or label set.
  """
  found = summary(gaps, {**subsets, **sets.recorded})
  if sets.judged:
    found |= summary(gaps * sets.sign, sets.judged)
  return found
