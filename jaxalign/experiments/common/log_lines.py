"""Log lines on standard error: what happened, and when, for people to read."""

import logging
import sys

from absl import logging as absl_logging

log = logging.getLogger("jaxalign")


class _Format(logging.Formatter):
  """`12:34:56 sentence`; a warning or an error says that it is one."""

  def format(self, record: logging.LogRecord) -> str:
    """The line of one record, with the traceback if it has one."""
    said = super().format(record)
    if record.levelno >= logging.WARNING:
      said = f"{record.levelname.lower()}: {said}"
    return f"{self.formatTime(record, '%H:%M:%S')} {said}"


class _StandardError(logging.Handler):
  """Writes to `sys.stderr` as it is now: a bar in view moves out of the way."""

  def emit(self, record: logging.LogRecord) -> None:
    """Writes one record."""
    sys.stderr.write(f"{self.format(record)}\n")
    sys.stderr.flush()


def set_up_logging(*, is_main: bool) -> None:
  """Logs this library's lines on one process, and what went wrong on all.

  Libraries speak of errors alone: their warnings are about code, which whoever
  runs a stage did not write.

  Args:
    is_main: whether this process tells how the run goes.
  """
  handler = _StandardError()
  handler.setFormatter(_Format())
  log.handlers[:] = [handler]
  log.propagate = False
  log.setLevel(logging.INFO if is_main else logging.WARNING)
  absl_logging.get_absl_handler().setFormatter(_Format())
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("transformers").setLevel(logging.ERROR)
