"""User errors: one line and exit status 2, as opposed to library defects."""

import linecache
import os
import pathlib
import sys
import traceback

EXIT_STATUS = 2
_PACKAGE = os.fspath(pathlib.Path(__file__).parents[1]) + os.sep


def is_users(error: BaseException) -> bool:
  """Whether an error is the user's: its text says all that is needed.

  So it is with what a machine refuses (OSError), and with what a `raise`
  statement of this package refuses. What any other line raises was not
  expected: a defect, or code of the user's own, which its traceback locates.
  """
  if isinstance(error, OSError):
    return True
  if not isinstance(error, Exception) or error.__traceback__ is None:
    return False
  last = traceback.extract_tb(error.__traceback__)[-1]
  line = linecache.getline(last.filename, last.lineno or 0)
  return last.filename.startswith(_PACKAGE) and (
    line.lstrip().startswith("raise ")
  )


def one_line(error: BaseException) -> str:
  """The text of an error without line breaks; its kind where it has none."""
  text = str(error)
  if isinstance(error, OSError) and error.strerror and error.filename:
    # Without the number that Python puts first.
    text = f"{os.fspath(error.filename)}: {error.strerror}"
  words = text.split()
  return " ".join(words) if words else type(error).__name__


def report(error: Exception, *, verbose: bool) -> int:
  """Writes a user error to stderr.

  Args:
    error: what ended the run.
    verbose: write the traceback before the line.

  Returns:
    The exit status.
  """
  if verbose:
    traceback.print_exception(error)
  sys.stderr.write(f"error: {one_line(error)}\n")
  return EXIT_STATUS
