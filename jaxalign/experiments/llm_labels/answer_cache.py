"""Answer cache on disk: a killed run asks an endpoint nothing twice."""

import json
import logging
from types import TracebackType

from etils import epath

from jaxalign.data.llm_labels.prompts import Answer
from jaxalign.runtime.io import filesystem

log = logging.getLogger("jaxalign")


class AnswerCache:
  """A file of one answer per line, read at the start and appended to.

  Attributes:
    answers: by `prompts.question_key`.
  """

  def __init__(self, path: epath.Path):
    """Reads what an earlier run left; a half-written last line is no answer."""
    self.answers: dict[str, Answer] = {}
    torn, broken = False, 0
    if path.exists():
      content = path.read_bytes()
      torn = bool(content) and not content.endswith(b"\n")
      for line in content.splitlines():
        try:
          row = json.loads(line)
          key = row.pop("key")
          self.answers[key] = Answer(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
          broken += 1
    if broken:
      log.warning("%s: %d broken lines are asked again", path, broken)
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
