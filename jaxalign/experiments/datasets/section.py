"""The `tokenizer` key of every `data` section."""

import logging
import os
from typing import Protocol

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.runtime.io import filesystem

log = logging.getLogger("jaxalign")


class Section(Protocol):
  """A `data` section: "byte", a folder that holds a tokenizer, or None."""

  @property
  def tokenizer(self) -> str | None:
    """None for the one of the model's folder."""


def open_tokenizer(data: Section, folder: str | None) -> Tokenizer:
  """The tokenizer of a config, else of the model's folder.

  Args:
    data: the `data` section.
    folder: `model.init_from`.

  Returns:
    The tokenizer. "byte" gives way to one that the folder holds: to other
    weights than new ones its ids would mean nothing.

  Raises:
    ValueError: neither is given.
  """
  spec = folder if data.tokenizer is None else data.tokenizer
  if spec is None:
    raise ValueError(
      "data.tokenizer must be set for a model that starts from scratch: "
      "'byte' or a folder"
    )
  if spec == "byte" and folder is not None and _holds_one(folder):
    log.info("data.tokenizer 'byte' gives way to the tokenizer of %s", folder)
    spec = folder
  return tokenizer_files.load_tokenizer(
    filesystem.resolved(spec, weights=False)
  )


def _holds_one(folder: str) -> bool:
  """Whether a model's folder has a tokenizer of its own."""
  path = filesystem.resolved(folder, weights=False)
  return any(
    os.path.isfile(os.path.join(path, name))
    for name in ("tokenizer.json", "vocab.json")
  )
