"""Scores of held-out pairs with their intervals and noise floors."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import metrics
from jaxalign.data.records.record import Record
from jaxalign.ops import checks


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """How held-out pairs are scored.

  Attributes:
    batch_size: pairs per forward over all devices.
    num_bins: equal-width bins of the calibration error.
    num_samples: resamples of the bootstrap and of the noise floor.
    beta: reward units per nat of KL, > 0, at which it is measured what one
      pooled reward costs the groups of a mixture.
  """

  batch_size: int = 64
  num_bins: int = 10
  num_samples: int = 1000
  beta: float = 0.05

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      batch_size=self.batch_size,
      num_bins=self.num_bins,
      num_samples=self.num_samples,
    )
    checks.above(0, beta=self.beta)


SCORES = ("accuracy", "nll", "brier", "ece")


@functools.partial(
  jax.jit, static_argnames=("num_bins", "num_samples", "intervals")
)
def _score_gaps(
  gaps: jax.Array,
  members: jax.Array,
  key: jax.Array,
  num_bins: int,
  num_samples: int,
  intervals: bool,
) -> tuple[jax.Array, metrics.Interval | None, metrics.NoiseFloor]:
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
  interval = None
  if intervals:
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


@functools.partial(
  jax.jit, static_argnames=("num_people", "num_bins", "num_samples")
)
def _over_people(
  gaps: jax.Array,
  members: jax.Array,
  people: jax.Array,
  key: jax.Array,
  num_people: int,
  num_bins: int,
  num_samples: int,
) -> metrics.Interval:
  """Intervals of SCORES of S subsets of [N] gaps, people drawn and not pairs.

  Every score is a function of sums over pairs, so of each person's sums.
  """
  nll = -jax.nn.log_sigmoid(gaps)
  each = jnp.stack(
    [
      jnp.ones_like(gaps),
      (jnp.sign(gaps) + 1) / 2,
      nll,
      jnp.square(jax.nn.sigmoid(-gaps)),
    ],
    axis=1,
  )
  terms = metrics.calibration_terms(gaps, num_bins=num_bins)
  rows = jnp.concatenate([each, terms], axis=1)
  rows = jnp.where(members.T[:, :, None], rows[:, None], 0.0)  # [N, S, ...]

  def scores(totals: jax.Array) -> jax.Array:
    count = jnp.maximum(totals[:, :1], 1)
    ece = jnp.sum(jnp.abs(totals[:, 4:]), axis=1, keepdims=True)
    return jnp.concatenate([totals[:, 1:4], ece], axis=1) / count

  return metrics.clustered_interval(
    scores,
    rows,
    cluster=people,
    num_clusters=num_people,
    key=key,
    num_samples=num_samples,
  )


@functools.partial(jax.jit, static_argnames=("num_people", "num_samples"))
def mean_over_people(
  values: jax.Array,
  people: jax.Array,
  key: jax.Array,
  num_people: int,
  num_samples: int,
) -> metrics.Interval:
  """Interval of the mean of [N] values, people drawn with all that is theirs.

  Args:
    values: float [N].
    people: of `clusters_of`, [N].
    key: typed PRNG key.
    num_people: how many there are.
    num_samples: resamples.

  Returns:
    Both ends.
  """
  return metrics.clustered_interval(
    lambda total, count: total / jnp.maximum(count, 1),
    values,
    jnp.ones_like(values),
    cluster=people,
    num_clusters=num_people,
    key=key,
    num_samples=num_samples,
  )


MIN_PEOPLE = 10  # fewer do not say how people differ


def annotators(records: Sequence[Record]) -> np.ndarray:
  """Number of each record's annotator, -1 for none, int [N]."""
  named = sorted({r.annotator for r in records if r.annotator is not None})
  numbers: dict[str | None, int] = {name: k for k, name in enumerate(named)}
  return np.array([numbers.get(record.annotator, -1) for record in records])


def clusters_of(annotator: np.ndarray) -> np.ndarray | None:
  """Who each pair counts as in a bootstrap over people.

  Args:
    annotator: int [N], negative for nobody.

  Returns:
    People numbered from 0, pairs of nobody as a person each, int32 [N]; None
    where fewer than `MIN_PEOPLE` are known, or none with several pairs: then
    pairs are drawn.
  """
  known = annotator >= 0
  names, people = np.unique(annotator[known], return_inverse=True)
  if not MIN_PEOPLE <= len(names) < known.sum():
    return None
  found = np.empty(len(annotator), np.int32)
  found[known] = people
  found[~known] = len(names) + np.arange(len(annotator) - known.sum())
  return found


def summarise(
  gaps: np.ndarray,
  subsets: Mapping[str, np.ndarray],
  config: EvalConfig,
  seed: int,
  people: np.ndarray | None = None,
) -> dict[str, Any]:
  """All scores of subsets of the pairs, with 95 % intervals.

  Args:
    gaps: chosen minus rejected rewards, float32 [N].
    subsets: row numbers by name.
    config: bins and resamples.
    seed: of resampling.
    people: of `clusters_of`; intervals are over them, or over pairs with None.

  Returns:
    Per subset `num_pairs` and per score `value`, `low`, `high`; `ece` also has
    the `noise_floor` a perfectly calibrated model would show at this n: `mean`,
    and the 5 % and 95 % quantiles `low` and `high`. With `people` also
    `num_people`.
  """
  members = np.zeros((len(subsets), len(gaps)), bool)
  for row, indices in zip(members, subsets.values(), strict=True):
    row[indices] = True
  options = {"num_bins": config.num_bins, "num_samples": config.num_samples}
  values, interval, floor = jax.device_get(
    _score_gaps(
      gaps,
      members,
      jax.random.key(seed),
      intervals=people is None,
      **options,
    )
  )
  if people is not None:
    interval = jax.device_get(
      _over_people(
        gaps,
        members,
        people,
        jax.random.key(seed),
        num_people=int(people.max()) + 1,
        **options,
      )
    )
  summary: dict[str, Any] = {}
  for k, (subset, indices) in enumerate(subsets.items()):
    summary[subset] = {"num_pairs": len(indices)}
    if people is not None:
      summary[subset]["num_people"] = len(np.unique(people[indices]))
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
