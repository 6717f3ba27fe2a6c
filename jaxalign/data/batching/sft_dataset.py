"""SFT dataset: prompts with one response each, packed into rows."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from jaxalign.data.batching import packing, sharded_tokens
from jaxalign.data.batching.token_store import Sequences
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding
from jaxalign.data.tokenization.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class PackedDataset:
  """N rows of T tokens, each of one or more texts.

  Attributes:
    sequences: the texts.
    rows: which pieces of them make up each row.
    length: T.
    source: 0 for every row, int32 [N]: a row may hold texts of several sources.
    source_names: one name, "packed".
  """

  sequences: Sequences
  rows: list[packing.Row]
  length: int
  source: np.ndarray
  source_names: tuple[str, ...] = ("packed",)

  def __len__(self) -> int:
    """Number of rows."""
    return len(self.rows)

  @property
  def widths(self) -> np.ndarray:
    """T for every row, int64 [N]."""
    return np.full(len(self.rows), self.length)

  def hold(self, rows: np.ndarray) -> None:
    """Makes sure that the ids of some rows are there, int [...]."""
    pieces = [piece for row in rows.ravel() for piece in self.rows[row]]
    self.sequences.hold(np.array([sequence for sequence, _, _ in pieces], int))

  def collate(
    self, rows: np.ndarray, length: int, pad_id: int
  ) -> dict[str, np.ndarray]:
    """Some rows as fresh arrays.

    Args:
      rows: which rows, int [B].
      length: tokens per row, at least T.
      pad_id: id of padding.

    Returns:
      tokens, segment_ids, positions [B, length] int32 as in `packing.Packed`;
      mask [B, length] bool, False on padding; loss_mask [B, length] bool, True
      on the tokens of a response and the eos behind it.
    """
    chosen = [self.rows[row] for row in rows]
    packed = packing.lay_out(
      chosen,
      self.sequences.values,
      self.sequences.starts,
      capacity=length,
      pad_id=pad_id,
    )
    return {
      **packed._asdict(),
      "mask": packed.segment_ids > 0,
      "loss_mask": self._answers(chosen, length),
    }

  def _answers(self, rows: list[packing.Row], length: int) -> np.ndarray:
    answers = np.zeros((len(rows), length), bool)
    for n, row in enumerate(rows):
      at = 0
      for sequence, start, stop in row:
        prompt = int(self.sequences.prompt_lengths[sequence])
        end = at + stop - start
        answers[n, at + max(prompt - start, 0) : end] = True
        at = end
    return answers


def pack_records(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  length: int,
  layout: str = "best_fit",
  on_disk: bool = False,
  processes: sharded_tokens.Processes | None = None,
) -> PackedDataset:
  """Tokenises every record's first response behind its prompt, and packs.

  Args:
    records: read once, or again and again by several processes; the first
      response is the preferred one.
    tokenizer: from `load_tokenizer`.
    length: tokens per row; longer texts lose tokens as in `token_store.encode`.
    layout: of `packing.pack`.
    on_disk: keep the ids in a temporary file.
    processes: who shares the work; ids come in with `PackedDataset.hold` then.

  Returns:
    The rows.
  """
  first = _FirstResponses(records)
  found = sharded_tokens.encode_some(
    first,
    first,
    tokenizer,
    processes,
    max_length=length,
    on_disk=on_disk,
    tokenise=encoding.answered,
  )
  rows = packing.pack(found.lengths.tolist(), length, layout=layout)
  return PackedDataset(found, rows, length, np.zeros(len(rows), np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class _FirstResponses:
  """Each record with its first response alone."""

  records: Iterable[Record]

  def __iter__(self) -> Iterator[Record]:
    for record in self.records:
      yield Record(
        record.prompt,
        record.responses[:1],
        id=record.id,
        where=record.where,
      )
