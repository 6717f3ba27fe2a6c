"""Comparing two ways to compute one thing: sequences, layouts, verdicts."""

from typing import NamedTuple

import numpy as np

from jaxalign.models.config import DecoderConfig


class Check(NamedTuple):
  """One comparison: passed if `measured` is at most `limit`."""

  name: str
  measured: float
  limit: float

  @property
  def passed(self) -> bool:
    """Whether it holds; NaN does not."""
    return self.measured <= self.limit


def layouts(
  config: DecoderConfig, rows: int, length: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The same random sequences in several layouts of padding.

  Args:
    config: of the model.
    rows: sequences.
    length: the longest, in tokens.
    seed: of the tokens and lengths.

  Returns:
    Name -> (tokens int32 [B, T], mask bool [B, T]), "right" first; no token is
    the padding token, for torch would not read a score there.
  """
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32)
  pad = 0 if config.pad_id is None else config.pad_id
  ids = np.where(ids == pad, (pad + 1) % config.vocab_size, ids)
  lengths = rng.integers(1, length + 1, rows)
  lengths[0] = length
  spare = {
    "right": np.zeros(rows, int),
    "left": length - lengths,
    "both": (length - lengths) // 2,
    "wide": length - lengths + 3,
  }
  made = {}
  for name, starts in spare.items():
    width = length + (5 if name == "wide" else 0)
    if width > config.max_positions:
      continue
    line = np.full((rows, width), pad, np.int32)
    mask = np.zeros((rows, width), bool)
    for row, (start, size) in enumerate(zip(starts, lengths, strict=True)):
      line[row, start : start + size] = ids[row, :size]
      mask[row, start : start + size] = True
    made[name] = line, mask
  return made


def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
  """The largest difference of two arrays of any shape.

  Sizes that differ are infinitely far apart, and NaN stays NaN.
  """
  if a.size != b.size:
    return float("inf")
  return float(np.max(np.abs(a.reshape(-1) - b.reshape(-1))))


def relative_gap(a: np.ndarray, reference: np.ndarray) -> float:
  """The largest difference as a share of the largest value of a reference.

  float32 rounds in proportion to what it adds up: logits of 30 differ by more
  than logits of 1, and no more is wrong with them.

  Args:
    a: values of any shape.
    reference: as many.

  Returns:
    max |a - reference| / max |reference|; 0 where both are 0 everywhere, NaN
    where one of them holds NaN.
  """
  gap = largest_gap(a, reference)
  if gap == 0.0:
    return 0.0
  scale = float(np.max(np.abs(reference)))
  return gap / scale if scale else float("inf")
