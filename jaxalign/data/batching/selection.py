"""Some rows of a dataset in place of all of them, without copying a token."""

import dataclasses

import numpy as np

from jaxalign.data.batching.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
  """Rows of a dataset, themselves a dataset of batches.

  Attributes:
    dataset: all rows.
    rows: which of them, in this order, int [N].
  """

  dataset: Dataset
  rows: np.ndarray

  def __post_init__(self) -> None:
    """Raises ValueError where nothing is left."""
    if not len(self.rows):
      raise ValueError(f"none of {len(self.dataset)} rows is selected")

  def __len__(self) -> int:
    """Number of selected rows."""
    return len(self.rows)

  @property
  def source(self) -> np.ndarray:
    """Number of each row's source, int32 [N]."""
    return self.dataset.source[self.rows]

  @property
  def source_names(self) -> tuple[str, ...]:
    """Names of all sources, also of one that lost every row."""
    return self.dataset.source_names

  @property
  def widths(self) -> np.ndarray:
    """Tokens of the longest sequence of each row, int64 [N]."""
    return self.dataset.widths[self.rows]

  def hold(self, rows: np.ndarray) -> None:
    """Makes sure that the ids of some of the selected rows are there."""
    self.dataset.hold(self.rows[rows])

  def collate(
    self, rows: np.ndarray, length: int, pad_id: int
  ) -> dict[str, np.ndarray]:
    """Fresh arrays of some of the selected rows, padded to `length` tokens.

    Args:
      rows: positions in the selection, int [B].
      length: T.
      pad_id: id under the mask.

    Returns:
      What the dataset gives for them.
    """
    return self.dataset.collate(self.rows[rows], length, pad_id)
