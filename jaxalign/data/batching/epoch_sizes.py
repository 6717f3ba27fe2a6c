"""How many steps an epoch has, or the numbers that do not fit."""

import numpy as np

from jaxalign.data.batching.dataset import Dataset


def epoch_size(
  dataset: Dataset,
  bucket_of: np.ndarray,
  batch_size: int,
  *,
  mixing: str | None,
  rows_per_source: int | None,
) -> tuple[int, int]:
  """Steps of an epoch, and rows of each source where they are stratified.

  Args:
    dataset: the rows.
    bucket_of: bucket per row, int [N].
    batch_size: B.
    mixing: how sources share an epoch; None where rows come in their order.
    rows_per_source: of a stratified epoch; None takes the largest source's.

  Returns:
    Steps, and rows of each source or 0.

  Raises:
    ValueError: batch, rows and sources do not fit; a source has no row.
  """
  if mixing is None:
    counts = np.bincount(bucket_of)
    return int((-(-counts // batch_size)).sum()), 0
  if mixing == "proportional":
    if len(dataset) < batch_size:
      raise ValueError(
        f"batch_size must be <= the number of pairs, got {batch_size} and "
        f"{len(dataset)}"
      )
    return len(dataset) // batch_size, 0
  names = dataset.source_names
  counts = np.bincount(dataset.source, minlength=len(names))
  if not counts.all():
    raise ValueError(f"source {names[counts.argmin()]!r} has no rows")
  if mixing == "sequential":
    if counts.min() < batch_size:
      raise ValueError(
        f"batch_size must be <= the pairs of every source, got {batch_size}, "
        f"and {counts.min()} of {names[counts.argmin()]!r}"
      )
    return int((counts // batch_size).sum()), 0
  if batch_size % len(names):
    raise ValueError(
      "batch_size must be divisible by the number of sources with "
      f"mixing='stratified', got {batch_size} and {len(names)}"
    )
  share = batch_size // len(names)
  rows = int(counts.max()) if rows_per_source is None else rows_per_source
  if rows < share:
    raise ValueError(
      f"pairs_per_source must be >= {share}, a source's share of a batch, got "
      f"{rows}"
    )
  return rows // share, rows
