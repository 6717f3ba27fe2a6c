"""Held-out pairs by whose label is taken: as recorded, a second judge's, both.

Where labels are noisy, a model that follows their noise scores well on them. A
second judge's labels, and those that both agree on, tell the two apart.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxalign.data.records.record import Record

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


def summarise(
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
