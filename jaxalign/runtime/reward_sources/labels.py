"""Label shares of reward sources: what a crowd would call an answer.

A source that predicts how people label a response, such as DPRM, has one reward
for it, its expected utility, and may give the distribution as well. It does so
by an attribute `labels` and a method `label_probs`; sources without them stay
as they are.
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
  """

  rewards: np.ndarray
  label_probs: np.ndarray | None


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


def labels_of(source: Any) -> Labels | None:
  """The labels that a reward source predicts, None if it predicts none."""
  return source.labels if isinstance(source, Labelled) else None


def score(
  source: Any,
  prompts: Sequence[Text],
  responses: Sequence[Text],
  columns: Columns | None = None,
) -> Scored:
  """Rewards of B responses with their label shares where there are any.

  Args:
    source: a `base.RewardSource`.
    prompts: as of the source.
    responses: as of the source.
    columns: as of the source.

  Returns:
    Both, in one pass where the source has a method `scored`.

  Raises:
    RewardError: as the source.
    ValueError: the shares are no distributions over the source's labels.
  """
  named = labels_of(source)
  if named is None:
    return Scored(source(prompts, responses, columns), None)
  if isinstance(source, _Both):
    return source.scored(prompts, responses, columns)
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


def shares(found: Scored) -> np.ndarray:
  """The label shares, [B, d]; ValueError where there are none."""
  if found.label_probs is None:
    raise ValueError("this reward source predicts no labels")
  return found.label_probs


class SideBySide:
  """Rewards and label shares of a source as the columns of one array."""

  def __init__(self, source: Any) -> None:
    """Wraps a source with labels or without."""
    self._source = source
    self._number = len(source.names)

  def __call__(
    self,
    prompts: Sequence[Text],
    responses: Sequence[Text],
    columns: Columns | None = None,
  ) -> np.ndarray:
    """float32 [B, K + d], of K alone without labels."""
    found = score(self._source, prompts, responses, columns)
    if found.label_probs is None:
      return found.rewards
    return np.concatenate([found.rewards, found.label_probs], axis=1)

  def apart(self, both: np.ndarray) -> Scored:
    """Rewards and label shares from rows of such an array."""
    rewards = both[:, : self._number]
    if labels_of(self._source) is None:
      return Scored(rewards, None)
    return Scored(rewards, both[:, self._number :])


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
