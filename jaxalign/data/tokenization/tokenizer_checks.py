"""Tokenizer checks: damaged files end in one line, and no byte is missing."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import tokenizers
import transformers

FILES = (
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "config.json",
  "generation_config.json",
)
# Of the tokenizers made here, which know every byte; in angle brackets, with or
# without the noncharacter that no text holds.
OWN_MARKERS = ["pad", "bos", "eos"]
AROUND_MARKERS = "<>\ufdd0"


def check_files(folder: str) -> None:
  """Checks that each JSON file of a folder holds an object.

  Args:
    folder: with the files of a tokenizer.

  Raises:
    ValueError: one is empty, cut short or holds something else.
  """
  for name in FILES:
    path = os.path.join(folder, name)
    if os.path.isfile(path):
      json_object(path)


def json_object(path: str) -> dict[str, Any]:
  """The object in a JSON file.

  Args:
    path: of a file that is there.

  Returns:
    Its content.

  Raises:
    ValueError: it is empty, cut short or holds something else.
  """
  with open(path, "rb") as file:
    text = file.read()
  if not text.strip():
    raise ValueError(f"{path}: is empty; fetch or save the folder again")
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f"{path}: not JSON ({error}); it may have been cut short, fetch or "
      "save the folder again"
    ) from error
  if not isinstance(content, dict):
    raise ValueError(
      f"{path}: must hold an object, got a {type(content).__name__}"
    )
  return content


@contextlib.contextmanager
def named(folder: str) -> Iterator[None]:
  """Turns what the libraries raise on damage into one line with the folder.

  Args:
    folder: with the files of a tokenizer.

  Raises:
    ValueError: whatever was raised inside.
  """
  try:
    yield
  except Exception as error:  # of tokenizers, a bare Exception
    if str(error).startswith(folder):
      raise  # says what is wrong already
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise ValueError(
      f"{folder}: its tokenizer.json or tokenizer_config.json is damaged or of "
      f"another version ({reason})"
    ) from error


def check_bytes(
  fast: transformers.PreTrainedTokenizerFast, folder: str
) -> None:
  """Checks that a tokenizer made here still knows every byte.

  One that is missing would silently be left out of every text. Those of
  others may lack bytes by design, and are read as transformers reads them.

  Args:
    fast: the tokenizer.
    folder: where it lies, for the error.

  Raises:
    ValueError: a byte has no token, or shares another's.
  """
  backend = fast.backend_tokenizer
  markers = (fast.pad_token, fast.bos_token, fast.eos_token)
  bare = [(marker or "").strip(AROUND_MARKERS) for marker in markers]
  if bare != OWN_MARKERS or "ByteLevel" not in repr(backend.pre_tokenizer):
    return
  owners: dict[int, str] = {}
  for token in sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()):
    number = backend.token_to_id(token)
    if number is None or number in owners:
      fault = "has no token" if number is None else f"shares id {number}"
      raise ValueError(
        f"{os.path.join(folder, 'tokenizer.json')}: the byte written as "
        f"{token!r} {fault}, so that texts would lose it; fetch or save the "
        "folder again"
      )
    owners[number] = token
