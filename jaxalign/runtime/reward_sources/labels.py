"""Label shares of reward sources: what a crowd would call an answer.

A source that predicts how people label a response, such as DPRM, has one reward
for it, its expected utility, and may give the distribution as well. It does so
by an attribute `labels` and a method `label_probs`; sources without them stay
as they are. A model of personal rewards says by `num_factors` that it knows in
what people differ, and `scored` then gives the factors of each response.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxalign.data.records.chat import Text
from jaxalign.runtime.reward_sources.function_calls import Columns


class Labels(NamedTuple):
  """Labels that a response can get.

  Attributes:
    names: of the d labels.
    values: what each is worth, d numbers, in the unit of the source's reward.
  """

  names: tuple[str, ...]
  values: tuple[float, ...]


class Scored(NamedTuple):
  """What a source says of B responses.

  Attributes:
    rewards: float32 [B, K].
    label_probs: share of each label, float32 [B, d]; None where the source
      predicts no labels.
    factors: what one unit of each of a person's R numbers adds to the reward,
      in its unit, float32 [B, R]; None where people are alike to the source.
  """

  rewards: np.ndarray
  label_probs: np.ndarray | None
  factors: np.ndarray | None = None


@runtime_checkable
class Labelled(Protocol):
  """What a reward source has besides where it predicts labels."""

  labels: Labels | None

  def label_probs(
    self,
    prompts: Sequence[Text],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """Shares of the labels of B responses, float32 [B, d]."""


@runtime_checkable
class _Both(Protocol):
  """A labelled source that gives rewards and shares in one pass."""

  def scored(
    self,
    prompts: Sequence[Text],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> Scored:
    """Both, of B responses."""


@runtime_checkable
class _Personal(Protocol):
  """What a reward source has besides where people may differ to it."""

  num_factors: int


def labels_of(source: Any) -> Labels | None:
  """The labels that a reward source predicts, None if it predicts none."""
  return source.labels if isinstance(source, Labelled) else None


def num_factors(source: Any) -> int:
  """R, in how many ways people differ to a reward source; 0 for none."""
  return source.num_factors if isinstance(source, _Personal) else 0


def score(
  source: Any,
  prompts: Sequence[Text],
  responses: Sequence[Text],
  columns: Columns | None = None,
) -> Scored:
  """Rewards of B responses, with label shares or factors where there are any.

  Args:
    source: a `base.RewardSource`.
    prompts: as of the source.
    responses: as of the source.
    columns: as of the source.

  Returns:
    All, in one pass where the source has a method `scored`.

  Raises:
    RewardError: as the source.
    ValueError: the shares are no distributions over the source's labels.
  """
  named = labels_of(source)
  told = named is not None or num_factors(source) > 0
  if told and isinstance(source, _Both):
    return source.scored(prompts, responses, columns)
  if named is None:
    return Scored(source(prompts, responses, columns), None)
  probs = source.label_probs(prompts, responses, columns)
  return Scored(
    source(prompts, responses, columns),
    checked_probs(probs, num_texts=len(responses), names=named.names),
  )


def checked_probs(
  probs: Any, *, num_texts: int, names: Sequence[str]
) -> np.ndarray:
  """Shares as float32 [B, d]; ValueError for what is no distribution."""
  found = np.asarray(probs, np.float32)
  if found.shape != (num_texts, len(names)):
    raise ValueError(
      f"label_probs must be [{num_texts}, {len(names)}] for {num_texts} texts "
      f"and the labels {'; '.join(names)}, got shape {found.shape}"
    )
  off = np.abs(found.sum(axis=1, dtype=np.float64) - 1) > 1e-3
  bad = np.flatnonzero(off | ~np.all(found >= 0, axis=1))
  if len(bad):
    raise ValueError(
      f"label_probs must be >= 0 and sum to 1, got {found[bad[0]].tolist()} of "
      f"text {bad[0]}, and {len(bad)} such rows in all"
    )
  return found


def raw_gaps(
  found: Scored, units: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray | None]:
  """Gaps of pairs in raw rewards, by which a preference is probable.

  Args:
    found: of 2 n responses, the first of each pair before the second.
    units: of the source, see `base.RewardSource`; None for 1 each.

  Returns:
    Of the rewards, float64 [n, K], and of the factors, [n, R], or None.
  """
  scale = np.ones(1) if units is None else np.asarray(units, np.float64)
  raw = lambda x: (x[0::2] - x[1::2]).astype(np.float64) * scale
  return (
    raw(found.rewards),
    None if found.factors is None else raw(found.factors),
  )


def shares(found: Scored) -> np.ndarray:
  """The label shares, [B, d]; ValueError where there are none."""
  if found.label_probs is None:
    raise ValueError("this reward source predicts no labels")
  return found.label_probs


class SideBySide:
  """Rewards, and label shares or factors, as the columns of one array."""

  def __init__(self, source: Any) -> None:
    """Wraps a source with or without labels and factors."""
    self._source = source
    self._number = len(source.names)

  def __call__(
    self,
    prompts: Sequence[Text],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """float32 [B, K + d + R], of K alone without labels and factors."""
    parts = score(self._source, prompts, responses, columns)
    return np.concatenate([x for x in parts if x is not None], axis=1)

  def apart(self, both: np.ndarray) -> Scored:
    """Rewards, label shares and factors from rows of such an array."""
    end = both.shape[1] - num_factors(self._source)
    rewards, probs = both[:, : self._number], both[:, self._number : end]
    labelled = labels_of(self._source) is not None
    return Scored(
      rewards,
      probs if labelled else None,
      both[:, end:] if end < both.shape[1] else None,
    )


def rescaled(
  named: Labels | None, mean: Sequence[float], std: Sequence[float]
) -> Labels | None:
  """Labels whose values follow a reward measured in deviations from a mean.

  Args:
    named: of a source of one output, or None.
    mean: of that output.
    std: of that output.

  Returns:
    (value − mean) / std of each label; None without labels.
  """
  if named is None:
    return None
  values = tuple((float(v) - mean[0]) / std[0] for v in named.values)
  return Labels(named.names, values)
