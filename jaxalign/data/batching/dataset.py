"""Token dataset protocol: what the batch loader needs of rows of tokens."""

from typing import Protocol

import numpy as np


class Dataset(Protocol):
  """Rows that can be put into a batch: pairs, rankings, packed texts.

  Attributes:
    source: number of each row's source, int32 [N].
    source_names: their names.
  """

  source: np.ndarray
  source_names: tuple[str, ...]

  def __len__(self) -> int:
    """Number of rows, N."""

  @property
  def widths(self) -> np.ndarray:
    """Tokens of the longest sequence of each row, int64 [N]."""

  def hold(self, rows: np.ndarray) -> None:
    """Called with the rows that will be collated, where not all will be."""

  def collate(
    self, rows: np.ndarray, length: int, pad_id: int
  ) -> dict[str, np.ndarray]:
    """Fresh arrays of some rows, padded to `length` tokens."""
