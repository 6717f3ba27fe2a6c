"""Answer cache on disk: a killed run asks an endpoint nothing twice."""

import json
import logging
from types import TracebackType

from etils import epath

from jaxalign.data.llm_labels.prompts import Answer
from jaxalign.runtime.io import filesystem

log = logging.getLogger("jaxalign")


def read(path: epath.Path) -> tuple[dict[str, Answer], bool]:
  """The answers of a file, by key, and whether its last line is half-written.

  Args:
    path: of one answer per line; it need not exist.

  Returns:
    The answers, which a broken line is none of.
  """
  answers: dict[str, Answer] = {}
  if not path.exists():
    return answers, False
  content, broken = path.read_bytes(), 0
  for line in content.splitlines():
    try:
      row = json.loads(line)
      key = row.pop("key")
      answers[key] = Answer(**row)
    except (ValueError, TypeError, KeyError, AttributeError):
      broken += 1
  if broken:
    log.warning("%s: %d broken lines are asked again", path, broken)
  return answers, bool(content) and not content.endswith(b"\n")


class AnswerCache:
  """A file of one answer per line, read at the start and appended to.

  Attributes:
    answers: by `prompts.question_key`.
  """

  def __init__(self, path: epath.Path):
    """Reads what an earlier run left; a half-written last line is no answer."""
    self.answers, torn = read(path)
    self._file = filesystem.AppendedFile(path)
    if torn:
      self._file.write(b"\n")

  def __enter__(self) -> "AnswerCache":
    """The cache itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Flushes and closes the file, whatever happened."""
    self._file.close()

  def remember(self, key: str, answer: Answer) -> None:
    """Keeps an answer, on the disk before it returns."""
    row = {"key": key} | answer._asdict()
    self._file.write(f"{json.dumps(row)}\n".encode())
    self.answers[key] = answer
