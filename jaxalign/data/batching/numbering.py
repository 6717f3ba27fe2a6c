"""Integer ids for the names of sources, groups and annotators."""

import array
from collections.abc import Sequence

import numpy as np


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
