"""Last lines of a stage: what came out, where it lies, what to run next."""

import contextlib
import contextvars
import logging
import os
import shlex
from collections.abc import Iterator, Sequence

from etils import epath

from jaxalign.runtime.distributed import multihost

log = logging.getLogger("jaxalign")

MAX_FINDINGS = 3

_step = contextvars.ContextVar("step", default=False)


@contextlib.contextmanager
def as_a_step() -> Iterator[None]:
  """Within the block nothing is said of what to run next: it is known."""
  token = _step.set(True)
  try:
    yield
  finally:
    _step.reset(token)


def say(
  findings: Sequence[str] = (),
  *,
  then: str | None = None,
  **files: str | os.PathLike[str],
) -> None:
  """Logs the last lines, on the main process.

  Args:
    findings: sentences, each with its baseline beside it; the first
      `MAX_FINDINGS` are said, the report has them all.
    then: the command to run next, of `command`.
    **files: path by what it is, such as `report` or `model`.
  """
  if not multihost.is_main():
    return
  for finding in findings[:MAX_FINDINGS]:
    log.info("%s", finding)
  if len(findings) > MAX_FINDINGS:
    log.info("and %d more on the page", len(findings) - MAX_FINDINGS)
  for name, path in files.items():
    log.info("%s: %s", name, os.fspath(path))
  if then is not None and not _step.get():
    log.info("next: %s", then)


def results(workdir: epath.Path) -> dict[str, epath.Path]:
  """Where a training stage leaves its model and its report."""
  return {"model": workdir / "model", "report": workdir / "report.html"}


def command(stage: str, config: str, *flags: str) -> str:
  """A command that runs a stage, quoted so that a shell takes it.

  Args:
    stage: name of its module.
    config: name of its file in `configs/`.
    *flags: further ones; `--workdir` is left to whoever runs it.
  """
  words = (
    *("python", "-m", f"jaxalign.experiments.{stage}"),
    f"--config=configs/{config}.py",
    *flags,
  )
  return " ".join(map(_quoted, words)) + " --workdir=..."


def _quoted(word: str) -> str:
  """A word as a shell takes it; a tuple of texts as the docs write it."""
  name, _, value = word.partition("=")
  if "'" in value and not {*value} & {*'"$`\\!'}:
    return f'{name}="{value}"'
  return shlex.quote(word)
