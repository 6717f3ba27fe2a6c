"""Batch loader: batches as a pure function of (seed, step, process).

`Selection` is a dataset of some rows of another, without copying a token.
"""

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from jaxalign.data.batching import epoch_plan
from jaxalign.data.batching.dataset import Dataset
from jaxalign.ops import checks

PREFETCH_THREADS = 2
MIXINGS = ("proportional", "stratified", "sequential")


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
    "prompt_lengths": ArraySpec((batch_size, 2), np.dtype(np.int32)),
    "chosen_prob": rows(np.float32),
    "margin": rows(np.float32),
    "source": rows(np.int32),
    "group": rows(np.int32),
    "annotator": rows(np.int32),
    "where": rows(np.bool_),
    "row": rows(np.int32),
    "index": rows(np.int32),
  }


def label_shapes(batch_size: int, num_labels: int) -> dict[str, ArraySpec]:
  """What a batch of pairs holds beside `pair_shapes` if it has labels."""
  sides = (batch_size, 2)
  return {
    "labels": ArraySpec((*sides, num_labels), np.dtype(np.float32)),
    "labelled": ArraySpec(sides, np.dtype(np.bool_)),
  }


def view_shapes(batch_size: int, length: int) -> dict[str, ArraySpec]:
  """What a batch of pairs holds beside `pair_shapes` if it has two views."""
  sides, pairs = (batch_size, 2), pair_shapes(batch_size, length)
  return {
    "view_tokens": pairs["tokens"],
    "view_mask": pairs["mask"],
    "view_prompt_lengths": ArraySpec(sides, np.dtype(np.int32)),
  }


def policy_shapes(batch_size: int, length: int) -> dict[str, ArraySpec]:
  """Shapes and dtypes of a batch of pairs that a policy is trained on."""
  return pair_shapes(batch_size, length) | {
    "response": ArraySpec((batch_size, 2, length), np.dtype(np.bool_)),
    "ref_log_probs": ArraySpec((batch_size, 2), np.dtype(np.float32)),
  }


class Batches:
  """Padded batches of one process, indexed by step.

  Rows are grouped by length, so that a batch is padded to its bucket and every
  bucket compiles once. With `shuffle` an epoch is drawn from (seed, epoch):

    proportional  one permutation of all rows; the N mod B rows at its end are
                  left out, other ones each epoch
    stratified    B / K rows of each of the K sources in every batch; an epoch
                  resamples each source to `pairs_per_source` rows
    sequential    one source after another, in the order of their names

  Without `shuffle` an epoch holds every row once, in the order of the dataset
  within each bucket, shortest bucket first; the last batch of a bucket is
  filled up with copies of its last row whose `where` is False and `index` -1.

  `batches[step]` is the batch of any step >= 0, in any epoch: a dict with the
  arrays of `dataset.collate` and
    where [B] bool, False on rows that fill up;
    row [B] int32, position in the batch over all processes;
    index [B] int32, position in the dataset.
  B is this process's share, a contiguous block of `batch_size` rows. All arrays
  are fresh: `jax.device_put` may share memory with them.
  """

  def __init__(
    self,
    dataset: Dataset,
    *,
    batch_size: int,
    buckets: Sequence[int],
    pad_id: int,
    seed: int,
    shuffle: bool,
    mixing: str = "proportional",
    pairs_per_source: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
  ) -> None:
    """Checks that everything fits, then builds nothing yet.

    Args:
      dataset: rows of tokens.
      batch_size: rows per step over all processes.
      buckets: padded lengths in tokens; the largest holds every row.
      pad_id: id under the mask.
      seed: of the order; without effect when not shuffled.
      shuffle: see the class.
      mixing: how sources share a shuffled epoch, see the class.
      pairs_per_source: rows of each source in a stratified epoch; None takes
        those of the largest source.
      process_index: this process.
      process_count: all processes.

    Raises:
      ValueError: batch and processes, rows and buckets, or batch and sources
        do not fit; a source has no row.
    """
    checks.one_of(MIXINGS, mixing=mixing)
    widths = dataset.widths
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
    if not buckets or buckets[0] < 1 or buckets[-1] < widths.max():
      raise ValueError(
        "the largest of buckets must hold the longest pair, "
        f"{widths.max()} tokens, got {tuple(buckets)}"
      )
    if pairs_per_source is not None and mixing != "stratified":
      raise ValueError(
        f"pairs_per_source must be None with mixing={mixing!r}, got "
        f"{pairs_per_source}"
      )
    self.dataset = dataset
    self.batch_size = batch_size
    self.buckets = tuple(buckets)
    self.pad_id = pad_id
    self.seed = seed
    self.shuffle = shuffle
    self.mixing = mixing
    self.pairs_per_source = pairs_per_source
    self.process_index = process_index
    self.process_count = process_count
    share = batch_size // process_count
    self._places = np.arange(share) + share * process_index
    self._bucket_of = np.searchsorted(self.buckets, widths)
    self._steps, self._rows_per_source = epoch_plan.epoch_size(
      dataset,
      self._bucket_of,
      batch_size,
      mixing=mixing if shuffle else None,
      rows_per_source=pairs_per_source,
    )
    self._lock = threading.Lock()
    self._epochs: dict[int, epoch_plan.Epoch] = {}

  @property
  def members(self) -> tuple["Batches", ...]:
    """The one source of rows, as in sources that join several."""
    return (self,)

  def over(self, dataset: Dataset, buckets: Sequence[int]) -> "Batches":
    """Batches of other rows, drawn as these are."""
    return Batches(
      dataset,
      batch_size=self.batch_size,
      buckets=buckets,
      pad_id=self.pad_id,
      seed=self.seed,
      shuffle=self.shuffle,
      mixing=self.mixing,
      pairs_per_source=self.pairs_per_source,
      process_index=self.process_index,
      process_count=self.process_count,
    )

  def __len__(self) -> int:
    """Steps per epoch."""
    return self._steps

  def __repr__(self) -> str:
    return (
      f"Batches(rows={len(self.dataset)}, batch_size={self.batch_size}, "
      f"buckets={self.buckets}, seed={self.seed}, shuffle={self.shuffle}, "
      f"mixing={self.mixing}, "
      f"process={self.process_index}/{self.process_count})"
    )

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    """The batches of the first epoch."""
    return (self[step] for step in range(len(self)))

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    """The batch of `step`, this process's rows."""
    if step < 0:
      raise IndexError(f"step must be >= 0, got {step}")
    rows, real = self._own_rows(step)
    epoch, at = divmod(int(step), len(self))
    length = self.buckets[self._epoch(epoch).bucket[at]]
    return {
      **self.dataset.collate(real, length, self.pad_id),
      "where": rows >= 0,
      "row": self._places.astype(np.int32),
      "index": rows.astype(np.int32),
    }

  def _own_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """This process's rows of a step, -1 and a real row where there is none."""
    epoch, at = divmod(int(step), len(self))
    whole = self._epoch(epoch).rows[at]
    rows = whole[self._places]
    # Copies of a real row, so that no row is without a token to attend to.
    return rows, np.where(rows >= 0, rows, whole.max())

  def hold(self, steps: Iterable[int]) -> None:
    """Brings in what this process shows in some steps, where not all is there.

    Args:
      steps: which; their batches can be had from now on.
    """
    if self.process_count > 1:
      shown = np.zeros(len(self.dataset), np.bool_)
      for step in steps:
        shown[self._own_rows(step)[1]] = True
      self.dataset.hold(np.flatnonzero(shown))

  def shown(self, epoch: int) -> np.ndarray:
    """Which rows this process shows in an epoch, bool [N]."""
    rows = self._epoch(epoch).rows[:, self._places]
    shown = np.zeros(len(self.dataset), np.bool_)
    shown[rows[rows >= 0]] = True
    return shown

  def batch_lengths(self, epoch: int) -> np.ndarray:
    """Tokens that each batch of an epoch is padded to, int [steps]."""
    return np.asarray(self.buckets)[self._epoch(epoch).bucket]

  def _epoch(self, epoch: int) -> epoch_plan.Epoch:
    """The plan of an epoch; the last two are kept for threads at the seam."""
    with self._lock:
      if epoch not in self._epochs:
        for old in [e for e in self._epochs if e < epoch - 1 or e > epoch]:
          del self._epochs[old]
        self._epochs[epoch] = self._plan(epoch)
      return self._epochs[epoch]

  def _plan(self, epoch: int) -> epoch_plan.Epoch:
    if not self.shuffle:
      return epoch_plan.in_order(self._bucket_of, self.batch_size)
    rng = np.random.default_rng([self.seed, epoch])
    if self.mixing == "proportional":
      return epoch_plan.proportional(self._bucket_of, self.batch_size, rng)
    given = self._bucket_of, self.dataset.source, self.batch_size
    if self.mixing == "sequential":
      return epoch_plan.sequential(*given, rng)
    return epoch_plan.stratified(*given, self._rows_per_source, rng)


def batch_iterator(
  batches: Any, *, start_step: int, num_steps: int, prefetch: int
) -> Iterator[dict[str, Any]]:
  """`num_steps` batches from `start_step` on, made ahead by threads.

  Args:
    batches: the source, `Batches` or another with a batch per step.
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
    return iter(())  # grain would read an empty range forever
  batches.hold(range(start_step, start_step + num_steps))
  steps = grain.MapDataset.range(start_step, start_step + num_steps)
  options = grain.ReadOptions(
    num_threads=min(prefetch, PREFETCH_THREADS), prefetch_buffer_size=prefetch
  )
  return iter(steps.map(batches.__getitem__).to_iter_dataset(options))


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
