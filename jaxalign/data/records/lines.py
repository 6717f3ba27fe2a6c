"""Lines of text files, and the JSON in them."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from etils import epath


class Lines:
  """Decoded lines of a file, plain or gzip, that know their number.

  A line that is not UTF-8 raises and the next call goes on behind it, so that
  bad lines can be skipped.

  Attributes:
    path: the file, on a disk or in an object store.
    number: of the last line, from 1.
    raw: bytes of the last line.
    file: what is read, unpacked.
    stored: the file itself.
  """

  def __init__(self, path: str) -> None:
    self.path = path
    self.number = 0
    self.raw = b""
    self.stored: IO[bytes] = epath.Path(path).open("rb")
    self.file = self.stored
    if path.endswith(".gz"):
      self.file = cast(IO[bytes], gzip.GzipFile(fileobj=self.stored))

  def __enter__(self) -> "Lines":
    return self

  def __exit__(self, *error: object) -> None:
    self.file.close()
    self.stored.close()  # which a gzip file leaves open

  def __iter__(self) -> Iterator[str]:
    return self

  def __next__(self) -> str:
    try:
      line = self.file.readline()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise BrokenFile(
        f"{self.path}:{self.number + 1}: broken gzip file: {error}"
      ) from None
    if not line:
      raise StopIteration
    self.number += 1
    self.raw = line
    try:
      # A byte order mark begins files written by spreadsheets.
      return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      raise ValueError(
        f"not UTF-8 at byte {error.start + 1} of the line"
      ) from None


class BrokenFile(ValueError):
  """Nothing behind this point of a file can be read, so nothing is skipped."""


def parse_json(text: str) -> Any:
  """JSON without what a general parser lets pass.

  Raises:
    ValueError: malformed, nested too deeply, a key twice, NaN or infinity.
  """
  try:
    return _DECODER.decode(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"malformed JSON at column {error.colno}: {error.msg}"
    ) from None
  except RecursionError:
    raise ValueError("malformed JSON: nested too deeply") from None


def _no_constant(name: str) -> None:
  raise ValueError(f"numbers must be finite, got {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  row = dict(pairs)
  if len(row) < len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"key {twice!r} appears twice in one object")
  return row


_DECODER = json.JSONDecoder(
  parse_constant=_no_constant, object_pairs_hook=_unique
)
