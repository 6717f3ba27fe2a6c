"""Integer ids for the names of sources, groups and annotators."""

import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.data.records.record import Record


class Numbering:
  """Assigns integers to labels as they come; names are sorted at the end.

  Attributes:
    what: what the labels name, for errors.
  """

  def __init__(self, what: str, names: Sequence[str] | None = None) -> None:
    """Starts without labels.

    Args:
      what: what the labels name.
      names: fixes the numbering; default: the labels that occur, sorted.
    """
    self.what = what
    self._fixed = None if names is None else tuple(names)
    self._index = {name: i for i, name in enumerate(self._fixed or ())}
    self._numbers = array.array("i")

  def add(self, label: str | None) -> None:
    """Takes the next label; None has no number.

    Raises:
      ValueError: a label outside the fixed names.
    """
    if label is None:
      self._numbers.append(-1)
      return
    if label not in self._index:
      if self._fixed is not None:
        raise ValueError(
          f"{self.what} must be one of {', '.join(self._fixed)}, got {label!r}"
        )
      self._index[label] = len(self._index)
    self._numbers.append(self._index[label])

  def finish(self) -> tuple[np.ndarray, tuple[str, ...]]:
    """An index into the names per label, -1 for None, int32 [N]; the names."""
    numbers = np.frombuffer(self._numbers, np.int32).copy()
    if self._fixed is not None:
      return numbers, self._fixed
    names = tuple(sorted(self._index))
    rank = {name: i for i, name in enumerate(names)}
    # One entry more, so that -1 stays -1.
    ranks = np.array([*(rank[name] for name in self._index), -1], np.int32)
    return ranks[numbers], names


class Origins:
  """Sources and groups of records as numbers, taken as the records pass by."""

  def __init__(
    self,
    source_names: Sequence[str] | None,
    group_names: Sequence[str] | None,
  ) -> None:
    """Starts without records; names fix the numbering, see `Numbering`."""
    self._source = Numbering("source", source_names)
    self._group = Numbering("group", group_names)

  def add(self, record: Record) -> None:
    """Takes the next record; one without a source is of source "unnamed"."""
    self._source.add("unnamed" if record.source is None else record.source)
    self._group.add(record.group)

  def columns(self) -> dict[str, Any]:
    """`source` and `group`, int32 [N], with `source_names`, `group_names`."""
    source, sources = self._source.finish()
    group, groups = self._group.finish()
    return {
      "source": source,
      "group": group,
      "source_names": sources,
      "group_names": groups,
    }
