"""Prompts with their responses as token ids: one flat array, also on disk."""

import array
import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np
import tokenizers

from jaxalign.data.record import Record
from jaxalign.data.tokenizer import Tokenizer

CHUNK = 2048  # records tokenised at once, which bounds memory


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
  """S tokenised sequences, one per response, in the order of the records.

  Attributes:
    values: ids of all sequences one after another, int32 [total].
    offsets: sequence s is values[offsets[s] : offsets[s + 1]], int64 [S + 1].
    prompt_lengths: leading tokens that are marker or prompt, int32 [S].
    max_length: the bound the sequences were cut to, in tokens.
    counts: what was cut, name -> records.
  """

  values: np.ndarray
  offsets: np.ndarray
  prompt_lengths: np.ndarray
  max_length: int
  counts: Mapping[str, int]

  def __len__(self) -> int:
    """Number of sequences."""
    return len(self.prompt_lengths)

  def __getitem__(self, number: int) -> np.ndarray:
    """Ids of one sequence, int32 [tokens]."""
    return self.values[self.offsets[number] : self.offsets[number + 1]]

  @property
  def lengths(self) -> np.ndarray:
    """Tokens per sequence, int64 [S]."""
    return np.diff(self.offsets)

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
    start = self.offsets[numbers][..., None]
    position = start + np.arange(length)
    mask = position < self.offsets[numbers + 1][..., None]
    values = self.values[np.minimum(position, len(self.values) - 1)]
    return np.where(mask, values, np.int32(pad_id)), mask


class _Values:
  """Ids as they come, in memory or in a file that no name points to."""

  def __init__(self, on_disk: bool) -> None:
    self.buffer = array.array("i")
    self.file: IO[bytes] | None = None
    if on_disk:
      # Deleted by the system with the last map of it, also after a kill.
      self.file = tempfile.TemporaryFile()  # noqa: SIM115

  def __enter__(self) -> "_Values":
    return self

  def __exit__(self, *error: object) -> None:
    if self.file is not None:
      self.file.close()  # the map of it stays

  def flush(self) -> None:
    """Moves what is in memory to the file, if there is one."""
    if self.file is not None:
      self.buffer.tofile(self.file)
      del self.buffer[:]

  def finish(self) -> np.ndarray:
    """All ids, int32 [total], mapped from the file if there is one."""
    if self.file is None:
      return np.frombuffer(self.buffer, np.int32).copy()
    self.file.flush()
    return np.asarray(np.memmap(self.file, np.int32, "r"))


def encode(
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  on_disk: bool = False,
) -> Sequences:
  """Tokenises every response of every record as [bos] prompt response [eos].

  Prompt and response are tokenised as one text and cut afterwards, so what is
  cut changes no token of what stays. A record longer than `max_length` loses
  tokens from the left of its prompt (bos stays), the same number for all its
  responses; a response that is too long even without its prompt loses its
  beginning, never its end.

  Args:
    records: read once, `CHUNK` at a time.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.
    on_disk: keep the ids in a temporary file instead of memory.

  Returns:
    The sequences.

  Raises:
    ValueError: a bound that leaves no room for a token; no record.
  """
  markers = (tokenizer.bos_id is not None) + (tokenizer.eos_id is not None)
  if max_length <= markers:
    raise ValueError(f"max_length must be > {markers}, got {max_length}")
  lengths, prompt_lengths = array.array("i"), array.array("i")
  counts = {"truncated_prompts": 0, "truncated_responses": 0}
  with _Values(on_disk) as values:
    for start, chunk in _chunks(records):
      for texts in _tokenise(chunk, tokenizer, start):
        kept, cut_prompt, cut_response = _cut(texts, max_length - markers)
        counts["truncated_prompts"] += cut_prompt
        counts["truncated_responses"] += cut_response
        for ids, prompt_length in kept:
          if tokenizer.bos_id is not None:
            values.buffer.append(tokenizer.bos_id)
            prompt_length += 1
          values.buffer.extend(ids)
          if tokenizer.eos_id is not None:
            values.buffer.append(tokenizer.eos_id)
          lengths.append(len(ids) + markers)
          prompt_lengths.append(prompt_length)
      values.flush()
    if not lengths:
      raise ValueError("records must hold one or more, got none")
    return Sequences(
      values=values.finish(),
      offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
      prompt_lengths=np.frombuffer(prompt_lengths, np.int32).copy(),
      max_length=max_length,
      counts=counts,
    )


def _chunks(records: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
  """`CHUNK` records at a time, with the number of the first."""
  rest, start = iter(records), 0
  while chunk := list(itertools.islice(rest, CHUNK)):
    yield start, chunk
    start += len(chunk)


def _tokenise(
  records: Sequence[Record], tokenizer: Tokenizer, start: int
) -> Iterator[list[tuple[list[int], int]]]:
  """Per record and response: ids without outer markers, and prompt tokens."""
  texts, cuts = [], []
  for i, record in enumerate(records, start):
    for response in record.responses:
      try:
        text, cut = tokenizer.sequence_text(record.prompt, response)
      except Exception as error:  # a chat template may raise anything
        error.add_note(f"in record {i}, id {record.id}")
        raise
      texts.append(text)
      cuts.append(cut)
  encodings = zip(tokenizer.encode_batch(texts), cuts, texts, strict=True)
  for record in records:
    found = []
    for encoding, cut, text in itertools.islice(
      encodings, len(record.responses)
    ):
      ids = encoding.ids
      first = _first_token(encoding, cut, len(text))
      if ids and ids[0] == tokenizer.bos_id:  # written by a chat template
        ids, first = ids[1:], max(first - 1, 0)
      if ids and ids[-1] == tokenizer.eos_id:
        ids = ids[:-1]
      found.append((ids, min(first, len(ids))))
    yield found


def _first_token(
  encoding: tokenizers.Encoding, cut: int, num_chars: int
) -> int:
  """The first token that holds a character at or behind `cut`."""
  for position in range(cut, num_chars):
    token = encoding.char_to_token(position)
    if token is not None:
      return token
  return len(encoding.ids)


def _cut(
  texts: list[tuple[list[int], int]], room: int
) -> tuple[list[tuple[list[int], int]], bool, bool]:
  """All within `room` tokens, and whether prompt or response lost any.

  One cut for all: what a model compares must not differ in the prompt.
  """
  excess = max(len(ids) for ids, _ in texts) - room
  if excess <= 0:
    return texts, False, False
  kept, cut_response = [], False
  for ids, prompt_length in texts:
    drop = min(excess, prompt_length)
    if len(ids) - drop > room:
      drop = len(ids) - room
      cut_response = True
    kept.append((ids[drop:], max(prompt_length - drop, 0)))
  return kept, True, cut_response
