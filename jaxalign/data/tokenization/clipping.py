"""Clipping of long texts by characters, before a tokenizer sees them.

A tokenizer needs up to 400 bytes and 10 microseconds for each character, and of
a text of ten million all but the last thousand tokens are thrown away. What can
be seen to be thrown away is not given to it.
"""

from collections.abc import Iterator, Sequence

from jaxalign.data.tokenization.tokenizer import Tokenizer

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
