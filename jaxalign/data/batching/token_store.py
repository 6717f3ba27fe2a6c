"""Token store: prompts and responses as one flat array, also on disk."""

import array
import dataclasses
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, TypeVar

import numpy as np

from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding
from jaxalign.data.tokenization.encoding import Tokenise, answered, tokenised
from jaxalign.data.tokenization.tokenizer import Tokenizer

T = TypeVar("T")

# Records tokenised at once, and their characters, which bound memory: a token
# takes about a hundred bytes until its id is all that is left.
CHUNK, CHARACTERS = 2048, encoding.AT_ONCE
COUNTS = ("truncated_prompts", "truncated_responses")


@dataclasses.dataclass(eq=False)
class Sequences:
  """S tokenised sequences, one per response, in the order of the records.

  Attributes:
    values: ids of all sequences one after another, int32 [total].
    starts: sequence s begins at values[starts[s]], int64 [S].
    lengths: tokens per sequence, int32 [S].
    prompt_lengths: leading tokens that are marker or prompt, int32 [S].
    max_length: the bound the sequences were cut to, in tokens.
    counts: what was cut, name -> records.
  """

  values: np.ndarray
  starts: np.ndarray
  lengths: np.ndarray
  prompt_lengths: np.ndarray
  max_length: int
  counts: Mapping[str, int]

  def __len__(self) -> int:
    """Number of sequences."""
    return len(self.prompt_lengths)

  def __getitem__(self, number: int) -> np.ndarray:
    """Ids of one sequence, int32 [tokens]."""
    start = self.starts[number]
    return self.values[start : start + self.lengths[number]]

  def hold(self, numbers: np.ndarray) -> None:
    """Makes sure that some sequences are there, as here all always are.

    Args:
      numbers: which sequences, int [...].
    """

  def first(self, number: int) -> "Sequences":
    """The first sequences alone, of the same ids."""
    return dataclasses.replace(
      self,
      starts=self.starts[:number],
      lengths=self.lengths[:number],
      prompt_lengths=self.prompt_lengths[:number],
    )

  def padded(
    self, numbers: np.ndarray, length: int, pad_id: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Some sequences, padded on the right.

    Args:
      numbers: which sequences, int [...].
      length: T; longer sequences are not expected.
      pad_id: id under the mask.

    Returns:
      Tokens int32 [..., T] and mask bool [..., T], both fresh.
    """
    position = np.arange(length)
    mask = position < self.lengths[numbers][..., None]
    position = self.starts[numbers][..., None] + position
    values = self.values[np.minimum(position, len(self.values) - 1)]
    return np.where(mask, values, np.int32(pad_id)), mask


class Values:
  """Ids as they come, in memory or in a file that no name points to."""

  def __init__(self, on_disk: bool) -> None:
    self.buffer = array.array("i")
    self.file: IO[bytes] | None = None
    if on_disk:
      # Deleted by the system with the last map of it, also after a kill.
      self.file = tempfile.TemporaryFile()  # noqa: SIM115
      weakref.finalize(self, self.file.close)  # the map of it stays

  def flush(self) -> None:
    """Moves what is in memory to the file, if there is one."""
    if self.file is not None:
      self.buffer.tofile(self.file)
      del self.buffer[:]

  def finish(self) -> np.ndarray:
    """All ids, int32 [total], mapped from the file if there is one."""
    if self.file is None or not self.file.tell():
      return np.frombuffer(self.buffer, np.int32).copy()
    self.file.flush()
    return np.asarray(np.memmap(self.file, np.int32, "r"))


def encode(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  on_disk: bool = False,
  tokenise: Tokenise | None = None,
) -> Sequences:
  """Tokenises every response of every record behind its prompt.

  Prompt and response are tokenised as one text, with the markers that the
  tokenizer or its chat template gives it, and cut afterwards, so what is cut
  changes no token of what stays. A record longer than `max_length` loses tokens
  from the left of its prompt (bos stays), the same number for all its
  responses; a response that is too long even without its prompt loses its
  beginning, never its end.

  Args:
    records: read once, some at a time.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.
    on_disk: keep the ids in a temporary file instead of memory.
    tokenise: what records become in place of all that; None for `tokenised`.

  Returns:
    The sequences.

  Raises:
    ValueError: a bound that leaves no room for a token; no record; one that
      the tokenizer or its chat template refuses, beginning with its place.
  """
  tokenise = checked(tokenise, tokenizer, max_length)
  lengths, prompt_lengths = array.array("i"), array.array("i")
  counts = dict.fromkeys(COUNTS, 0)
  values = Values(on_disk)
  for start, chunk in chunks(records):
    for record in tokenise(chunk, tokenizer, max_length, start):
      counts["truncated_prompts"] += record.truncated_prompts
      counts["truncated_responses"] += record.truncated_responses
      for ids in record.ids:
        values.buffer.extend(ids)
        lengths.append(len(ids))
      prompt_lengths.extend(record.prompt_lengths)
    values.flush()
  if not lengths:
    raise ValueError("records must hold one or more, got none")
  ends = np.cumsum(lengths, dtype=np.int64)
  return Sequences(
    values=values.finish(),
    starts=np.concatenate([[0], ends[:-1]]),
    lengths=np.frombuffer(lengths, np.int32).copy(),
    prompt_lengths=np.frombuffer(prompt_lengths, np.int32).copy(),
    max_length=max_length,
    counts=counts,
  )


def checked(
  tokenise: Tokenise | None, tokenizer: Tokenizer, max_length: int
) -> Tokenise:
  """`tokenise`, or for None `tokenised`, if there is room for a token.

  Args:
    tokenise: another way than that of `encode`; it checks for itself.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.

  Raises:
    ValueError: there is no room.
  """
  if tokenise not in (None, answered):
    return tokenise
  markers = sum(map(len, tokenizer.markers))
  if max_length <= markers:
    raise ValueError(f"max_length must be > {markers}, got {max_length}")
  return tokenised if tokenise is None else tokenise


def chunks(records: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
  """Records that are tokenised at once, with the number of the first."""
  start = 0
  for chunk in grouped(records, characters):
    yield start, chunk
    start += len(chunk)


def characters(record: Record) -> int:
  """Of all responses, each behind the prompt."""
  prompt = len(text_of(record.prompt))
  return sum(prompt + len(text_of(response)) for response in record.responses)


def grouped(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
  """Items together, `CHUNK` at most and `CHARACTERS` of all but a single one.

  Args:
    items: to be put together, in their order.
    size: characters of one.

  Yields:
    One group after the other.
  """
  group: list[T] = []
  total = 0
  for item in items:
    more = size(item)
    if len(group) == CHUNK or (group and total + more > CHARACTERS):
      yield group
      group, total = [], 0
    group.append(item)
    total += more
  if group:
    yield group
