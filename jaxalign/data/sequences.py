"""Prompts with their responses as token ids: one flat array, also on disk."""

import array
import dataclasses
import itertools
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import numpy as np
import tokenizers

from jaxalign.data import refusals
from jaxalign.data.record import Record
from jaxalign.data.tokenizer import Tokenizer, is_chat

CHUNK = 2048  # records tokenised at once, which bounds memory
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


class _Ids(NamedTuple):
  """One response behind its prompt, uncut.

  Attributes:
    first: markers in front, which no cut takes.
    rest: all other ids.
    prompt_length: leading ones of `rest` that are prompt.
  """

  first: list[int]
  rest: list[int]
  prompt_length: int


class Tokenised(NamedTuple):
  """One record's responses behind its prompt, markers included.

  Attributes:
    ids: of each response.
    prompt_lengths: leading tokens of each that are marker or prompt.
    truncated_prompts: whether the prompt lost tokens.
    truncated_responses: whether a response did.
  """

  ids: list[list[int]]
  prompt_lengths: list[int]
  truncated_prompts: bool
  truncated_responses: bool


# Records tokenised together, the tokenizer, the bound on a sequence in tokens,
# and the number of the first record, for errors.
Tokenise = Callable[
  [Sequence[Record], Tokenizer, int, int], Iterator[Tokenised]
]


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
    records: read once, `CHUNK` at a time.
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


def tokenised(
  records: Sequence[Record], tokenizer: Tokenizer, max_length: int, start: int
) -> Iterator[Tokenised]:
  """Some records as a reward model reads them.

  Args:
    records: tokenised together.
    tokenizer: from `load_tokenizer`.
    max_length: bound on a sequence, markers included, in tokens.
    start: number of the first record, for errors.

  Yields:
    What became of each.
  """
  for texts in _tokenise(records, tokenizer, start):
    yield _cut([_read_part(text, tokenizer) for text in texts], max_length)


def answered(
  records: Sequence[Record], tokenizer: Tokenizer, max_length: int, start: int
) -> Iterator[Tokenised]:
  """Some records as a language model learns to answer: each answer ends.

  Args:
    records: tokenised together.
    tokenizer: from `load_tokenizer`; its eos goes behind an answer that neither
      it nor the chat template ends.
    max_length: bound on a sequence, markers included, in tokens.
    start: number of the first record, for errors.

  Yields:
    What became of each.
  """
  for texts in _tokenise(records, tokenizer, start):
    yield _cut([_ended(text, tokenizer) for text in texts], max_length)


def chunks(records: Iterable[Record]) -> Iterator[tuple[int, list[Record]]]:
  """`CHUNK` records at a time, with the number of the first."""
  rest, start = iter(records), 0
  while chunk := list(itertools.islice(rest, CHUNK)):
    yield start, chunk
    start += len(chunk)


def _tokenise(
  records: Sequence[Record], tokenizer: Tokenizer, start: int
) -> Iterator[list[_Ids]]:
  """What each response of each record is to the tokenizer."""
  texts, cuts, chats, places = [], [], [], []
  for i, record in enumerate(records, start):
    place = record.place(i)
    for response in record.responses:
      with refusals.located(place):
        text, cut = tokenizer.sequence_text(record.prompt, response)
      texts.append(text)
      cuts.append(cut)
      chats.append(is_chat(record.prompt, response))
      places.append(place)
  with refusals.located_among(texts, places, tokenizer):
    encoded = tokenizer.encode_texts(texts, chats)
  encodings = zip(encoded, cuts, texts, chats, strict=True)
  for record in records:
    found = []
    for encoding, cut, text, chat in itertools.islice(
      encodings, len(record.responses)
    ):
      ids = encoding.ids
      first, last = map(len, tokenizer.markers)
      if chat:  # whose markers are part of the text
        first, last = int(ids[:1] == [tokenizer.bos_id]), 0
      if not ids:  # a model reads one token at least
        ids = [_any_marker(tokenizer)]
      answer = _first_token(encoding, cut, len(text), len(ids) - last)
      found.append(_Ids(ids[:first], ids[first:], max(answer - first, 0)))
    yield found


def _any_marker(tokenizer: Tokenizer) -> int:
  for marker in (tokenizer.bos_id, tokenizer.eos_id):
    if marker is not None:
      return marker
  return tokenizer.pad_id


def _first_token(
  encoding: tokenizers.Encoding, cut: int, num_chars: int, end: int
) -> int:
  """The first token that holds a character at or behind `cut`, else `end`."""
  for position in range(cut, num_chars):
    token = encoding.char_to_token(position)
    if token is not None:
      return token
  return end


def _read_part(text: _Ids, tokenizer: Tokenizer) -> _Ids:
  """Up to the token at which transformers reads the reward."""
  rest = text.rest
  end = len(rest)
  while end > 0 and rest[end - 1] == tokenizer.unread_id:
    end -= 1
  if end == len(rest) or not (end or text.first):
    return text
  return text._replace(
    rest=rest[:end], prompt_length=min(text.prompt_length, end)
  )


def _ended(text: _Ids, tokenizer: Tokenizer) -> _Ids:
  """With eos behind an answer that has no end."""
  answer = text.rest[text.prompt_length :]
  if tokenizer.eos_id is None or not {*tokenizer.ends}.isdisjoint(answer):
    return text
  return text._replace(rest=[*text.rest, tokenizer.eos_id])


def _cut(texts: list[_Ids], max_length: int) -> Tokenised:
  """All within `max_length` tokens.

  One cut for all: what a model compares must not differ in the prompt.
  """
  room = max_length - max(len(text.first) for text in texts)
  excess = max(len(text.rest) for text in texts) - room
  ids, prompt_lengths, cut_response = [], [], False
  for first, rest, prompt_length in texts:
    drop = min(max(excess, 0), prompt_length)
    if len(rest) - drop > room:
      drop = len(rest) - room
      cut_response = True
    ids.append([*first, *rest[drop:]])
    prompt_lengths.append(len(first) + max(prompt_length - drop, 0))
  return Tokenised(ids, prompt_lengths, excess > 0, cut_response)
