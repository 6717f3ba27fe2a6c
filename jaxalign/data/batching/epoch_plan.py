"""Seeded epoch plan: which rows form which batch, and in which order.

`epoch_size` counts the steps of an epoch, or names the numbers that do not fit.
"""

import dataclasses

import numpy as np

from jaxalign.data.batching.dataset import Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Epoch:
  """Rows per batch, -1 for padding, int64 [steps, B]; bucket per batch."""

  rows: np.ndarray
  bucket: np.ndarray

  def mixed(self, rng: np.random.Generator) -> "Epoch":
    """The same batches, shuffled."""
    order = rng.permutation(len(self.rows))
    return Epoch(self.rows[order], self.bucket[order])


def in_order(bucket_of: np.ndarray, batch_size: int) -> Epoch:
  """Every row once, in order within its bucket, shortest bucket first.

  Args:
    bucket_of: bucket per row, int [N].
    batch_size: B.

  Returns:
    The batches; the last of a bucket is filled up with -1.
  """
  rows, buckets = [], []
  for bucket in range(bucket_of.max() + 1):
    ready = np.flatnonzero(bucket_of == bucket)
    ready = np.pad(ready, (0, -len(ready) % batch_size), constant_values=-1)
    rows.append(ready.reshape(-1, batch_size))
    buckets.append(np.full(len(rows[-1]), bucket))
  return Epoch(np.concatenate(rows), np.concatenate(buckets))


def proportional(
  bucket_of: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Epoch:
  """One permutation of all rows: sources appear in proportion to their size.

  What does not fill a batch of its bucket moves up to the next larger one; the
  N mod B rows at the end of the permutation are left out.

  Args:
    bucket_of: bucket per row, int [N].
    batch_size: B.
    rng: of this epoch.

  Returns:
    N // B batches in random order.
  """
  return _by_bucket(np.arange(len(bucket_of)), bucket_of, batch_size, rng)


def sequential(
  bucket_of: np.ndarray,
  source: np.ndarray,
  batch_size: int,
  rng: np.random.Generator,
) -> Epoch:
  """One source after another, each as in `proportional`.

  Args:
    bucket_of: bucket per row, int [N].
    source: of each row, int [N].
    batch_size: B.
    rng: of this epoch.

  Returns:
    N_k // B batches of source k = 0, then of k = 1, ...
  """
  parts = [
    _by_bucket(np.flatnonzero(source == k), bucket_of, batch_size, rng)
    for k in range(source.max() + 1)
  ]
  return Epoch(
    np.concatenate([part.rows for part in parts]),
    np.concatenate([part.bucket for part in parts]),
  )


def stratified(
  bucket_of: np.ndarray,
  source: np.ndarray,
  batch_size: int,
  rows_per_source: int,
  rng: np.random.Generator,
) -> Epoch:
  """The same number of rows of every source in every batch.

  Each source is resampled to `rows_per_source` rows without replacement, or,
  if it is smaller, as often as it goes plus a part without replacement.
  Batches take the sources' rows by length, so that a batch is of one length.

  Args:
    bucket_of: bucket per row, int [N].
    source: of each row, int [N], every one of 0..K-1 at least once.
    batch_size: B, divisible by K.
    rows_per_source: rows of each source in an epoch, at least B / K.
    rng: of this epoch.

  Returns:
    K rows_per_source // B batches in random order; row i of a batch is of
    source i mod K.
  """
  num_sources = int(source.max()) + 1
  share = batch_size // num_sources
  steps = rows_per_source // share
  drawn = []
  for k in range(num_sources):
    own = np.flatnonzero(source == k)
    times = -(-rows_per_source // len(own))
    # Whole passes first: the cut falls into the last one.
    passes = [rng.permutation(own) for _ in range(times)]
    rows = np.concatenate(passes)[: steps * share]
    rows = rows[np.argsort(bucket_of[rows], kind="stable")]
    drawn.append(rows.reshape(steps, share))
  rows = np.stack(drawn, axis=-1).reshape(steps, batch_size)
  return Epoch(rows, bucket_of[rows].max(axis=1)).mixed(rng)


def _by_bucket(
  members: np.ndarray,
  bucket_of: np.ndarray,
  batch_size: int,
  rng: np.random.Generator,
) -> Epoch:
  used = len(members) // batch_size * batch_size
  order = rng.permutation(members)[:used]
  rows, buckets = [], []
  carried = order[:0]
  for bucket in range(bucket_of.max() + 1):
    ready = np.concatenate([carried, order[bucket_of[order] == bucket]])
    full = len(ready) // batch_size * batch_size
    rows.append(ready[:full].reshape(-1, batch_size))
    buckets.append(np.full(len(rows[-1]), bucket))
    carried = ready[full:]
  return Epoch(np.concatenate(rows), np.concatenate(buckets)).mixed(rng)


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
