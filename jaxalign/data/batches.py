"""Batches as a pure function of (seed, step, process): resuming is counting."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from jaxalign.data.tokens import PairDataset

PREFETCH_THREADS = 2


@dataclasses.dataclass(frozen=True)
class ArraySpec:
  """Shape and dtype of an array that is not there yet."""

  shape: tuple[int, ...]
  dtype: np.dtype


def pair_shapes(batch_size: int, length: int) -> dict[str, ArraySpec]:
  """Shapes and dtypes of a batch of `batch_size` pairs of `length` tokens."""
  rows = lambda dtype: ArraySpec((batch_size,), np.dtype(dtype))
  tokens = lambda dtype: ArraySpec((batch_size, 2, length), np.dtype(dtype))
  return {
    "tokens": tokens(np.int32),
    "mask": tokens(np.bool_),
    "where": rows(np.bool_),
    "chosen_prob": rows(np.float32),
    "margin": rows(np.float32),
    "source": rows(np.int32),
    "group": rows(np.int32),
    "row": rows(np.int32),
    "index": rows(np.int32),
  }


@dataclasses.dataclass(frozen=True, eq=False)
class _Epoch:
  """Pairs per batch, -1 for padding, int64 [steps, B]; bucket per batch."""

  pairs: np.ndarray
  length: np.ndarray


class PairBatches:
  """Padded batches of one process, indexed by step.

  Pairs are grouped by length, so that a batch is padded to its bucket and every
  bucket compiles once. With `shuffle` an epoch is a permutation of the pairs
  from (seed, epoch): what does not fill a batch of its bucket moves up to the
  next larger one, the batches come in random order, and the N mod B pairs at
  the end of the permutation are left out, other ones each epoch. Without
  `shuffle` an epoch holds every pair once, in the order of the dataset within
  each bucket, shortest bucket first; the last batch of a bucket is filled up
  with copies of its last pair whose `where` is False and `index` -1.

  `batches[step]` is the batch of any step >= 0, in any epoch: a dict with
    tokens [B, 2, T] int32 and mask [B, 2, T] bool, chosen response first;
    where [B] bool, False on rows that fill up;
    chosen_prob, margin [B] float32; source, group [B] int32;
    row [B] int32, position in the batch over all processes;
    index [B] int32, position in the dataset.
  B is this process's share, a contiguous block of `batch_size` rows. All arrays
  are fresh: `jax.device_put` may share memory with them.
  """

  def __init__(
    self,
    dataset: PairDataset,
    *,
    batch_size: int,
    buckets: Sequence[int],
    pad_id: int,
    seed: int,
    shuffle: bool,
    process_index: int = 0,
    process_count: int = 1,
  ) -> None:
    """Checks that everything fits, then builds nothing yet.

    Args:
      dataset: pairs of tokens.
      batch_size: pairs per step over all processes.
      buckets: padded lengths in tokens; the largest holds every pair.
      pad_id: id under the mask.
      seed: of the order; without effect when not shuffled.
      shuffle: see the class.
      process_index: this process.
      process_count: all processes.

    Raises:
      ValueError: batch and processes, or pairs and buckets, do not fit.
    """
    lengths = dataset.lengths.max(axis=1)
    buckets = sorted(set(buckets))
    if batch_size < 1 or batch_size % process_count:
      raise ValueError(
        "batch_size must be positive and divisible by the number of "
        f"processes, got {batch_size} and {process_count}"
      )
    if not 0 <= process_index < process_count:
      raise ValueError(
        f"process_index must be in [0, {process_count}), got {process_index}"
      )
    if not buckets or buckets[0] < 1 or buckets[-1] < lengths.max():
      raise ValueError(
        "the largest of buckets must hold the longest pair, "
        f"{lengths.max()} tokens, got {tuple(buckets)}"
      )
    if shuffle and len(dataset) < batch_size:
      raise ValueError(
        f"batch_size must be <= the number of pairs, got {batch_size} and "
        f"{len(dataset)}"
      )
    self.dataset = dataset
    self.batch_size = batch_size
    self.buckets = tuple(buckets)
    self.pad_id = pad_id
    self.seed = seed
    self.shuffle = shuffle
    self.process_index = process_index
    self.process_count = process_count
    self._bucket_of = np.searchsorted(self.buckets, lengths)
    self._lock = threading.Lock()
    self._epochs: dict[int, _Epoch] = {}

  def __len__(self) -> int:
    """Steps per epoch."""
    if self.shuffle:
      return len(self.dataset) // self.batch_size
    counts = np.bincount(self._bucket_of, minlength=len(self.buckets))
    return int((-(-counts // self.batch_size)).sum())

  def __repr__(self) -> str:
    return (
      f"PairBatches(pairs={len(self.dataset)}, batch_size={self.batch_size}, "
      f"buckets={self.buckets}, seed={self.seed}, shuffle={self.shuffle}, "
      f"process={self.process_index}/{self.process_count})"
    )

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    """The batches of the first epoch."""
    return (self[step] for step in range(len(self)))

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of `step`, this process's rows."""
    if step < 0:
      raise IndexError(f"step must be >= 0, got {step}")
    epoch, at = divmod(int(step), len(self))
    plan = self._epoch(epoch)
    share = self.batch_size // self.process_count
    rows = np.arange(share) + share * self.process_index
    return self._batch(plan.pairs[at], rows, int(plan.length[at]))

  def _epoch(self, epoch: int) -> _Epoch:
    """The plan of an epoch; the last two are kept for threads at the seam."""
    with self._lock:
      if epoch not in self._epochs:
        for old in [e for e in self._epochs if e < epoch - 1 or e > epoch]:
          del self._epochs[old]
        plan = self._shuffled(epoch) if self.shuffle else self._in_order()
        self._epochs[epoch] = plan
      return self._epochs[epoch]

  def _shuffled(self, epoch: int) -> _Epoch:
    rng = np.random.default_rng([self.seed, epoch])
    order = rng.permutation(len(self.dataset))
    order = order[: len(self) * self.batch_size]
    bucket_of = self._bucket_of[order]
    pairs, lengths = [], []
    carried = order[:0]
    for bucket, length in enumerate(self.buckets):
      ready = np.concatenate([carried, order[bucket_of == bucket]])
      full = len(ready) // self.batch_size * self.batch_size
      pairs.append(ready[:full].reshape(-1, self.batch_size))
      lengths.append(np.full(len(pairs[-1]), length))
      carried = ready[full:]
    mixed = rng.permutation(len(self))
    return _Epoch(np.concatenate(pairs)[mixed], np.concatenate(lengths)[mixed])

  def _in_order(self) -> _Epoch:
    pairs, lengths = [], []
    for bucket, length in enumerate(self.buckets):
      ready = np.flatnonzero(self._bucket_of == bucket)
      missing = -len(ready) % self.batch_size
      ready = np.concatenate([ready, np.full(missing, -1)])
      pairs.append(ready.reshape(-1, self.batch_size))
      lengths.append(np.full(len(pairs[-1]), length))
    return _Epoch(np.concatenate(pairs), np.concatenate(lengths))

  def _batch(
    self, pairs: np.ndarray, rows: np.ndarray, length: int
  ) -> dict[str, np.ndarray]:
    dataset = self.dataset
    where = pairs[rows] >= 0
    # Copies of a real pair, so that no row is without a token to attend to.
    chosen = np.where(where, pairs[rows], pairs.max())
    tokens, mask = _pad(dataset, chosen, length, self.pad_id)
    return {
      "tokens": tokens,
      "mask": mask,
      "where": where,
      "chosen_prob": dataset.chosen_prob[chosen],
      "margin": dataset.margin[chosen],
      "source": dataset.source[chosen],
      "group": dataset.group[chosen],
      "row": rows.astype(np.int32),
      "index": pairs[rows].astype(np.int32),
    }


def _pad(
  dataset: PairDataset, pairs: np.ndarray, length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens and mask [B, 2, T] of some pairs, padded on the right."""
  sequences = 2 * pairs[:, None] + np.arange(2)
  start = dataset.offsets[sequences][..., None]
  end = dataset.offsets[sequences + 1][..., None]
  position = start + np.arange(length)
  mask = position < end
  values = dataset.values[np.minimum(position, len(dataset.values) - 1)]
  return np.where(mask, values, np.int32(pad_id)), mask


def batch_iterator(
  batches: PairBatches, *, start_step: int, num_steps: int, prefetch: int
) -> Iterator[dict[str, Any]]:
  """`num_steps` batches from `start_step` on, made ahead by threads.

  Args:
    batches: the source.
    start_step: first step, e.g. the one a checkpoint was saved at.
    num_steps: how many batches.
    prefetch: batches made ahead of the consumer; 0 makes them on demand.

  Returns:
    An iterator over batches.

  Raises:
    ValueError: a negative number.
  """
  given = dict(start_step=start_step, num_steps=num_steps, prefetch=prefetch)
  for name, value in given.items():
    if value < 0:
      raise ValueError(f"{name} must be >= 0, got {value}")
  if num_steps == 0:
    return iter(())  # grain would read an empty range for ever
  steps = grain.MapDataset.range(start_step, start_step + num_steps)
  options = grain.ReadOptions(
    num_threads=min(prefetch, PREFETCH_THREADS), prefetch_buffer_size=prefetch
  )
  return iter(steps.map(batches.__getitem__).to_iter_dataset(options))
