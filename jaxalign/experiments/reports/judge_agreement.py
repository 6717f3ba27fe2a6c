"""Agreement with a second judge by strength of preference, with intervals."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import metrics
from jaxalign.data.records.record import Record
from jaxalign.data.stats import summary
from jaxalign.experiments.reward_model import pair_scores
from jaxalign.runtime.plots import figures, html_report
from jaxalign.runtime.plots.panels import Panel

GROUPS = 10
NUM_SAMPLES = 1000  # resamples of people
LABEL = "share that a second judge confirms"

Group = Mapping[str, float]


@functools.partial(jax.jit, static_argnames=("num_people",))
def _over_people(
  agrees: jax.Array,
  member: jax.Array,
  shares: jax.Array,
  people: jax.Array,
  num_people: int,
) -> metrics.Interval:
  """Of the share of each group, [G], from [N, G] rows and the shares [G]."""
  return metrics.clustered_interval(
    lambda total, count: jnp.where(
      count > 0, total / jnp.maximum(count, 1), shares
    ),
    agrees,
    member,
    cluster=people,
    num_clusters=num_people,
    key=jax.random.key(0),
    num_samples=NUM_SAMPLES,
  )


def by_strength(
  strength: np.ndarray,
  judge_prob: np.ndarray,
  people: np.ndarray | None = None,
) -> list[Group]:
  """How often a second judge confirms a label, by tenths of strength.

  Args:
    strength: of each pair, NaN where there is none, [N].
    judge_prob: probability of the label by the judge, NaN where there is none,
      [N]; one half takes no side.
    people: of `pair_scores.clusters_of`, int [N]; None to draw pairs.

  Returns:
    Groups of equally many pairs from the weakest on: `pairs`, their mean
    `strength`, the share that `agrees`, and `low` and `high`, a 95 % interval
    over people with all of their pairs (bootstrap), else over pairs (Wilson's
    score). No group where fewer than two pairs have both.
  """
  known = ~np.isnan(strength) & ~np.isnan(judge_prob) & (judge_prob != 0.5)
  if known.sum() < 2:
    return []
  strength, agrees = strength[known].astype(float), judge_prob[known] > 0.5
  order = np.argsort(strength, kind="stable")
  parts = [part for part in np.array_split(order, GROUPS) if len(part)]
  wins = [float(agrees[part].sum()) for part in parts]
  found = [
    summary.share(won, len(part)) for won, part in zip(wins, parts, strict=True)
  ]
  low, high = [one.low for one in found], [one.high for one in found]
  if people is not None:
    member = np.zeros((len(order), len(parts)), np.float32)
    for number, part in enumerate(parts):
      member[part, number] = 1.0
    names, mine = np.unique(people[known], return_inverse=True)
    low, high = _over_people(
      member * agrees[:, None].astype(np.float32),
      member,
      np.array([one.value for one in found], np.float32),
      mine.astype(np.int32),
      max(len(names), 2),
    )
  return [
    {
      "pairs": len(part),
      "strength": float(strength[part].mean()),
      "agrees": float(agrees[part].mean()),
      "low": float(low[number]),
      "high": float(high[number]),
    }
    for number, part in enumerate(parts)
  ]


def of_records(pairs: Sequence[Record]) -> list[Group]:
  """`by_strength` of pairs that hold a strength and a second judge."""
  column = lambda name: np.array(
    [np.nan if (v := r.column(name)) is None else v for r in pairs], float
  )
  return by_strength(
    column("strength"),
    column("judge_prob"),
    pair_scores.clusters_of(pair_scores.annotators(pairs)),
  )


def panel(groups: Sequence[Group], *, unit: str) -> Panel:
  """The curve, with its intervals as a band."""
  of = lambda key: [group[key] for group in groups]
  return figures.against_strength(
    of("strength"),
    of("agrees"),
    label=LABEL,
    level=0.5,
    unit=unit,
    interval=(of("low"), of("high")),
  )


def sections(found: Mapping[str, Sequence[Group]]) -> list[html_report.Section]:
  """A figure with a panel per split, none without a judged pair."""
  panels = [
    dataclasses.replace(panel(groups, unit="as recorded"), title=name)
    for name, groups in found.items()
    if groups
  ]
  if not panels:
    return []
  return [
    html_report.Figure(
      "Agreement with a second judge by strength",
      panels,
      "Tenths of the pairs that have both `strength` and `judge_prob`, in the "
      "unit of the data. Where the judge contradicts the weakest, labels are "
      "wrong or people differ.",
    )
  ]


def sentence(groups: Sequence[Group]) -> str:
  """What the ends of the curve say."""
  ends = [
    html_report.percent_interval({**one, "value": one["agrees"]})
    for one in (groups[0], groups[-1])
  ]
  return (
    f"a second judge confirms {ends[0]} of the labels of the weakest tenth, "
    f"and {ends[1]} of the strongest"
  )
