r"""Files that one record enters: how far a reader of a training run walks.

python -m tests.entered_files [--list] [STAGE CONFIG]

A file counts as entered once a function of it is called; importing it is not
enough. Two numbers for a run of a stage, by default a plain Bradley-Terry model
with evaluation: all files from the command line to the report, and those
between the first record and the end of the first step.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests import checkout

CONFIG = "configs/rm_bt_crowd.py"
BEGIN = ("data/records/reader.py", "__iter__")
END = ("runtime/io/step_guard.py", "exchange")


class Entry(NamedTuple):
  """A file that was entered.

  Attributes:
    path: below jaxalign/.
    function: that was called first.
  """

  path: str
  function: str


class Recorder:
  """A profile function that notes which files of the package are entered.

  Attributes:
    whole: of all calls, in the order of the first one.
    step: of those between the first record and the end of the first step.
  """

  def __init__(self) -> None:
    self.whole: dict[str, Entry] = {}
    self.step: dict[str, Entry] = {}
    self._state = "before"
    self._known: dict[str, str | None] = {}

  def __call__(self, frame: Any, event: str, argument: Any) -> None:
    """Takes a call; see `sys.setprofile`."""
    del argument
    code = frame.f_code
    if event != "call" or code.co_name == "<module>":
      return
    path = self._path(code.co_filename)
    if path is None:
      return
    entry = Entry(path, code.co_qualname)
    if self._state == "before" and (path, code.co_name) == BEGIN:
      self._state = "within"
    if self._state == "within" and (path, code.co_name) == END:
      self._state = "after"
    self.whole.setdefault(path, entry)
    if self._state == "within":
      self.step.setdefault(path, entry)

  def _path(self, name: str) -> str | None:
    if name not in self._known:
      path = pathlib.Path(name)
      inside = path.is_relative_to(checkout.LIBRARY)
      self._known[name] = (
        path.relative_to(checkout.LIBRARY).as_posix() if inside else None
      )
    return self._known[name]


def entered(stage: str, config: str, workdir: str) -> Recorder:
  """Runs a stage and says which files it entered.

  Args:
    stage: its name.
    config: FILE or FILE:VARIANT.
    workdir: an empty folder.

  Returns:
    What was entered.
  """
  module = importlib.import_module(f"jaxalign.experiments.{stage}")
  recorder = Recorder()
  sys.argv = [stage, f"--config={config}", f"--workdir={workdir}"]
  threading.setprofile(recorder)
  sys.setprofile(recorder)
  try:
    module.main()
  except SystemExit as end:
    if end.code:
      raise
  finally:
    sys.setprofile(None)
    threading.setprofile(None)
  return recorder


def table(entries: dict[str, Entry]) -> Iterator[str]:
  """A line for each file: its length, and the function entered first."""
  for path, entry in entries.items():
    number = (checkout.LIBRARY / path).read_text().count("\n")
    yield f"{number:5} {path:50} {entry.function}"


def main() -> None:
  """Prints the two numbers."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("stage", nargs="?", default="train_reward")
  parser.add_argument(
    "config", nargs="?", default="configs/rm_bt_crowd.py:smoke"
  )
  parser.add_argument("--list", action="store_true", help="name the files")
  given = parser.parse_args()
  with tempfile.TemporaryDirectory() as workdir:
    found = entered(given.stage, given.config, workdir)
  for name, entries in (("whole run", found.whole), ("one step", found.step)):
    lines = list(table(entries))
    total = sum(int(line.split()[0]) for line in lines)
    print(f"{name}: {len(lines)} files, {total:,} lines")
    if given.list:
      print(*lines, sep="\n")


if __name__ == "__main__":
  main()
