"""JSON files of a model folder: an object, or an error with the file."""

import json
import pathlib
from typing import Any

from etils import epath


def read_object(file: pathlib.Path | epath.Path) -> dict[str, Any]:
  """Content of a file that holds a JSON object.

  Args:
    file: such as config.json.

  Returns:
    Its fields.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is empty, cut short, not UTF-8, or holds something else.
  """
  if not file.is_file():
    raise FileNotFoundError(f"{file} is missing")
  text = file.read_bytes()
  if not text.strip():
    raise ValueError(f"{file}: is empty; fetch or save the folder again")
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f"{file}: not JSON ({error}); it may have been cut short, fetch or save "
      "the folder again"
    ) from error
  if not isinstance(content, dict):
    raise ValueError(
      f"{file}: must hold an object, got a {type(content).__name__}"
    )
  return content
