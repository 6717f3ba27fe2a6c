"""Sequence packing: several short sequences in one row of tokens."""

import bisect
import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.ops import checks

LAYOUTS = ("best_fit", "best_fit_split", "wrapped")


class Piece(NamedTuple):
  """Tokens [start, stop) of one sequence, next to others in a row."""

  sequence: int
  start: int
  stop: int


Row = list[Piece]


class Packed(NamedTuple):
  """Rows of packed sequences, [N, T] each.

  Attributes:
    tokens: ids, int32.
    segment_ids: 1, 2, ... for the pieces of a row from left to right and 0 for
      padding, int32; tokens see only their own segment.
    positions: place in the piece, from 0, int32; 0 for padding.
  """

  tokens: np.ndarray
  segment_ids: np.ndarray
  positions: np.ndarray


def pack(
  lengths: Sequence[int], capacity: int, *, layout: str = "best_fit"
) -> list[Row]:
  """Which sequence goes into which row.

    best_fit        longest first, each into the fullest row that still holds
                    it; none is cut, so one beyond `capacity` is an error
    best_fit_split  the same after cutting every sequence at multiples of
                    `capacity`
    wrapped         one after another, cut wherever a row is full: no padding
                    but in the last row

  Args:
    lengths: tokens per sequence; empty ones are left out.
    capacity: tokens per row.
    layout: one of the three.

  Returns:
    Pieces per row, from left to right. Every token is in exactly one piece.

  Raises:
    ValueError: an unknown layout, a capacity below 1, or a sequence that is
      too long for "best_fit".
  """
  checks.one_of(LAYOUTS, layout=layout)
  if capacity < 1:
    raise ValueError(f"capacity must be >= 1, got {capacity}")
  if layout == "wrapped":
    return _wrapped(lengths, capacity)
  pieces = []
  for sequence, length in enumerate(lengths):
    if layout == "best_fit" and length > capacity:
      raise ValueError(
        f"sequence {sequence} has {length} tokens, allowed {capacity}; "
        "layout='best_fit_split' cuts it"
      )
    pieces += [
      Piece(sequence, start, min(start + capacity, length))
      for start in range(0, length, capacity)
    ]
  return _best_fit(pieces, capacity)


def _best_fit(pieces: list[Piece], capacity: int) -> list[Row]:
  """Best-fit decreasing; of rows that are equally full, the first."""
  rows: list[Row] = []
  spaces: list[int] = []  # sorted, those that some row has left
  rows_with: dict[int, list[int]] = {}
  for piece in sorted(pieces, key=lambda p: p.start - p.stop):
    length = piece.stop - piece.start
    at = bisect.bisect_left(spaces, length)
    if at == len(spaces):
      room, row = capacity, len(rows)
      rows.append([])
    else:
      room = spaces[at]
      row = heapq.heappop(rows_with[room])
      if not rows_with[room]:
        del spaces[at]
    rows[row].append(piece)
    left = room - length
    if left:
      if not rows_with.setdefault(left, []):
        bisect.insort(spaces, left)
      heapq.heappush(rows_with[left], row)
  return rows


def _wrapped(lengths: Sequence[int], capacity: int) -> list[Row]:
  rows: list[Row] = []
  room = 0
  for sequence, length in enumerate(lengths):
    start = 0
    while start < length:
      if not room:
        rows.append([])
        room = capacity
      stop = min(length, start + room)
      rows[-1].append(Piece(sequence, start, stop))
      room -= stop - start
      start = stop
  return rows


def lay_out(
  rows: Sequence[Row],
  values: np.ndarray,
  starts: np.ndarray,
  *,
  capacity: int,
  pad_id: int,
) -> Packed:
  """The arrays of some rows.

  Args:
    rows: from `pack`.
    values: ids of all sequences one after another, int32 [total].
    starts: where each sequence begins in `values`.
    capacity: tokens per row, T.
    pad_id: id behind the last piece of a row.

  Returns:
    N = len(rows) rows.
  """
  tokens = np.full((len(rows), capacity), pad_id, np.int32)
  segment_ids = np.zeros((len(rows), capacity), np.int32)
  positions = np.zeros((len(rows), capacity), np.int32)
  for n, row in enumerate(rows):
    at = 0
    for segment, (sequence, start, stop) in enumerate(row, start=1):
      to = slice(at, at + stop - start)
      first = starts[sequence]
      tokens[n, to] = values[first + start : first + stop]
      segment_ids[n, to] = segment
      positions[n, to] = np.arange(stop - start)
      at = to.stop
  return Packed(tokens, segment_ids, positions)
