"""Records that a tokenizer or its chat template refuses, with file and line.

A record is well formed before it meets a tokenizer, and may still be of no use
to it: a chat template takes no system turn, a vocabulary without an unknown
token lacks a letter. Such a record is as bad as one that cannot be read.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer

_RARE = "\U0010fffd"  # a private character that no vocabulary has


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
  """Turns whatever is raised inside into a ValueError that says where.

  Args:
    place: FILE:LINE, the start of the error.

  Raises:
    ValueError: anything was raised, as a chat template may raise anything.
  """
  try:
    yield
  except Exception as error:
    raise ValueError(f"{place}: {_reason(error)}") from error


@contextlib.contextmanager
def located_among(
  texts: Sequence[str], places: Sequence[str], tokenizer: Tokenizer
) -> Iterator[None]:
  """The same where many texts are encoded at once: finds the one it was.

  Args:
    texts: what is encoded.
    places: where each is from.
    tokenizer: that encodes.

  Raises:
    ValueError: the tokenizer refuses a text.
  """
  try:
    yield
  except Exception:
    for text, place in zip(texts, places, strict=True):
      with located(place):
        tokenizer.encode(text)
    raise


def refuses(tokenizer: Tokenizer, *, least: int) -> Callable[[Record], None]:
  """A check of records, for a reader that skips bad ones.

  Args:
    tokenizer: what they will be encoded with.
    least: responses that each must have; 0 looks at the prompt alone.

  Returns:
    A function that raises ValueError, beginning with the record's place, for
    one that could not be encoded.
  """

  def check(record: Record) -> None:
    place = record.place()
    if len(record.responses) < least:
      raise ValueError(
        f"{place}: {least} responses are needed, got {len(record.responses)}"
      )
    with located(place):
      if not least:
        texts = [tokenizer.prompt_text(record.prompt)]
      else:
        texts = [
          tokenizer.sequence_text(record.prompt, response)[0]
          for response in record.responses
        ]
      if _has_unknowns(tokenizer):
        for text in texts:
          tokenizer.encode(text)

  return check


def refuses_if_skipping(
  on_bad_record: str, tokenizer: Tokenizer, *, least: int
) -> Callable[[Record], None] | None:
  """`refuses` where bad records are skipped.

  Where one is an error, encoding it says the same, and no chat is rendered
  twice.

  Args:
    on_bad_record: "error" or "skip".
    tokenizer: as of `refuses`.
    least: likewise.

  Returns:
    The check, or None.
  """
  return refuses(tokenizer, least=least) if on_bad_record == "skip" else None


@functools.lru_cache(maxsize=8)
def _has_unknowns(tokenizer: Tokenizer) -> bool:
  """Whether there are characters that the tokenizer raises for."""
  try:
    tokenizer.encode(_RARE)
  except Exception:  # noqa: BLE001, of whatever kind
    return True
  return False


def _reason(error: Exception) -> str:
  return str(error) or type(error).__name__
