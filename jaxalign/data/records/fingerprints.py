"""Fingerprints of inputs by content, so that a moved file keeps its own."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from etils import epath

from jaxalign.data.records import sources

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
TOKENIZER = (
  "tokenizer*",
  "vocab*",
  "merges.txt",
  "added_tokens.json",
  "special_tokens_map.json",
  "spiece.model",
  "chat_template*",
)


def of_file(path: epath.PathLike) -> str:
  """The SHA-256 of a file, read in a stream; hexadecimal."""
  with epath.Path(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def of_sources(specs: Sequence[str]) -> str:
  """A fingerprint of what sources hold: files by content, the rest by name.

  Args:
    specs: sources of preferences, prompts or texts, as in a config.

  Returns:
    Hexadecimal; the names and places of files do not enter, their order does.

  Raises:
    ValueError: a glob without files.
  """
  return _together(part for spec in specs for part in _of_source(spec))


def _of_source(spec: str) -> Iterable[str]:
  if spec.startswith("synthetic:"):
    return [spec]
  if spec.startswith("hub:"):
    name, _, parts = spec.removeprefix("hub:").partition(":")
    folder = pathlib.Path(sources.expand_variables(name))
    if not folder.is_dir():
      return [spec]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [parts, *map(of_file, files)]
  return map(of_file, sources.files_read(spec))


def of_folder(path: epath.PathLike, patterns: Sequence[str]) -> str:
  """A fingerprint of the files of a folder that match one of some globs.

  Args:
    path: the folder.
    patterns: globs of file names.

  Returns:
    Hexadecimal, of names and contents; the folder's own place does not enter.
  """
  files = {
    file.name: file
    for pattern in patterns
    for file in epath.Path(path).glob(pattern)
    if file.is_file()
  }
  return _together(
    part
    for name, file in sorted(files.items())
    for part in (os.fspath(name), of_file(file))
  )


def _together(parts: Iterable[str]) -> str:
  return hashlib.sha256("\n".join(parts).encode()).hexdigest()
