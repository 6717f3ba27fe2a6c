"""Encoding of records as token ids, with markers, within a length bound.

Long texts are clipped by characters first: a tokenizer needs up to 400 bytes
and 10 microseconds for each, and of a text of ten million all but the last
thousand tokens are thrown away.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import tokenizers

from jaxalign.data.records import refusals
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer, is_chat


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
  for texts in _tokenise(records, tokenizer, max_length, start):
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
  for texts in _tokenise(records, tokenizer, max_length, start):
    yield _cut([_ended(text, tokenizer) for text in texts], max_length)


def _tokenise(
  records: Sequence[Record], tokenizer: Tokenizer, max_length: int, start: int
) -> Iterator[list[_Ids]]:
  """What each response of each record is to the tokenizer."""
  texts, cuts, chats, places = [], [], [], []
  for i, record in enumerate(records, start):
    place = record.place(i)
    with refusals.located(place):
      whole = [
        tokenizer.sequence_text(record.prompt, response)
        for response in record.responses
      ]
      kept = clip(whole, tokenizer, max_length)
    texts += [text for text, _ in kept]
    cuts += [cut for _, cut in kept]
    chats += [is_chat(record.prompt, text) for text in record.responses]
    places += [place] * len(kept)
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


# Characters that are looked at for each token that may stay: at first, and
# where those are fewer tokens. No common vocabulary has a longer token.
PER_TOKEN = (8, 128)
# Characters that are encoded at once.
AT_ONCE = 2**19
# Tokens beyond those that may stay: the cut may change the first of a text, as
# it may fall inside a word.
SLACK = 64
# Characters of the prompt that stay before a response that fills all the room.
MARGIN = 16


def clip(
  texts: Sequence[tuple[str, int]], tokenizer: Tokenizer, max_length: int
) -> list[tuple[str, int]]:
  """The responses of one record behind its prompt, without a far beginning.

  What stays after the cut to `max_length` tokens that follows has the ids that
  it would have in the whole text, unless one word is longer than `SLACK` tokens
  or a token longer than `PER_TOKEN` characters. Such a text may lose more than
  it has to, never its end.

  Args:
    texts: text and number of its first characters that are prompt, of each
      response; see `Tokenizer.sequence_text`.
    tokenizer: of the texts.
    max_length: bound on a sequence in tokens.

  Returns:
    The same; of a long prompt the same part is gone for all responses, with bos
    kept where a chat template has written one.
  """
  need = max_length + SLACK
  if all(len(text) <= PER_TOKEN[0] * need for text, _ in texts):
    return list(texts)
  needed = [_needed(text, tokenizer, need) for text, _ in texts]
  pairs = list(zip(texts, needed, strict=True))
  # As many characters of the prompt for all: what a model compares must not
  # differ in it.
  start = max(len(text) - chars for (text, _), chars in pairs)
  start = max(min(start, *(cut - MARGIN for _, cut in texts)), 0)
  bos = tokenizer.fast.bos_token or ""
  return [
    _without(
      text, cut, start if len(text) - cut <= chars else len(text) - chars, bos
    )
    for (text, cut), chars in pairs
  ]


def pieces(text: str) -> Iterator[str]:
  """A text in parts to be encoded one by one: of nearly every text, itself."""
  for start in range(0, max(len(text), 1), AT_ONCE):
    yield text[start : start + AT_ONCE]


def _needed(text: str, tokenizer: Tokenizer, need: int) -> int:
  """Characters at the end of a text that are `need` tokens or more."""
  for each in PER_TOKEN:
    chars = each * need
    if len(text) <= chars:
      return len(text)
    if len(tokenizer.encode(text[-chars:])) >= need:
      break
  return chars


def _without(text: str, cut: int, start: int, bos: str) -> tuple[str, int]:
  """A text and its cut from the character `start`, behind its bos."""
  if start <= len(bos):
    return text, cut
  first = bos if text.startswith(bos) else ""
  return first + text[start:], len(first) + max(cut - start, 0)
