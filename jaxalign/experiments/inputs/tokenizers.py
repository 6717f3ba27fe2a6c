"""The `tokenizer` key of every `data` section."""

from typing import Protocol

from jaxalign.data import tokens
from jaxalign.runtime import folders


class Section(Protocol):
  """A `data` section: "byte", a folder that holds a tokenizer, or None."""

  @property
  def tokenizer(self) -> str | None:
    """None for the one of the model's folder."""


def open_tokenizer(data: Section, folder: str | None) -> tokens.Tokenizer:
  """The tokenizer of a config, else of the model's folder.

  Args:
    data: the `data` section.
    folder: `model.init_from`.

  Returns:
    The tokenizer.

  Raises:
    ValueError: neither is given.
  """
  spec = folder if data.tokenizer is None else data.tokenizer
  if spec is None:
    raise ValueError(
      "data.tokenizer must be set for a model that starts from scratch: "
      "'byte' or a folder"
    )
  return tokens.load_tokenizer(folders.resolved(spec, weights=False))
