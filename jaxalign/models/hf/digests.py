"""SHA-256 digests of safetensors files, each inside the file it is of.

They stand in the header's metadata, which every reader skips, and go with it
when another program writes the file anew: there is no list to get out of step.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent import futures
from typing import Any, BinaryIO

KEY = "sha256"
UNKNOWN = "0" * 64  # in the place of one that is not known yet
VARIABLE = "JAXALIGN_CHECK_DIGESTS"
_METADATA = re.compile(rb'"__metadata__":(\{[^}]*\})')
_AT_A_TIME = 4  # files that are read together; hashing releases the interpreter

Path = str | os.PathLike[str]


def stamp(path: Path) -> None:
  """Puts a file's digest in the place of `UNKNOWN` in its metadata.

  Args:
    path: a file that was saved with `UNKNOWN` under `KEY`.
  """
  with open(path, "r+b") as file:
    header = _header(file)
    metadata = header["__metadata__"] | {KEY: _of(file, header)}
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    file.seek(0)
    head = file.read(8 + length)
    found = _METADATA.search(head)
    # In order, as the library writes it in another one each time.
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    file.seek(found.start(1))
    file.write(text.encode())


def check(paths: Iterable[Path]) -> None:
  """Refuses files that are not as they were written.

  Those without a digest are not checked, and none is where the environment
  variable `JAXALIGN_CHECK_DIGESTS` is 0.

  Args:
    paths: complete safetensors files.

  Raises:
    ValueError: a digest differs, with the file.
  """
  if os.environ.get(VARIABLE) == "0":
    return
  with futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
    list(pool.map(_check, paths))


def _check(path: Path) -> None:
  with open(path, "rb") as file:
    header = _header(file)
    wanted = header.get("__metadata__", {}).get(KEY)
    if wanted is not None and wanted != _of(file, header):
      raise ValueError(
        f"{path} is damaged: its SHA-256 is not the one that was written with "
        f"it; save or fetch it again, or read it as it is with {VARIABLE}=0"
      )


def _header(file: BinaryIO) -> dict[str, Any]:
  """What stands before the tensors, of which the file is then read on."""
  length = int.from_bytes(file.read(8), "little")
  return dict(json.loads(file.read(length)))


def _of(file: BinaryIO, header: dict[str, Any]) -> str:
  """The digest of names, types, shapes and places, and of all that follows."""
  places = {k: v for k, v in header.items() if k != "__metadata__"}
  start = hashlib.sha256(json.dumps(places, sort_keys=True).encode())
  return hashlib.file_digest(file, lambda: start).hexdigest()
