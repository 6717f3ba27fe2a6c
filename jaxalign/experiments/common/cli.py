"""The command line that every stage shares."""

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from absl import flags
from absl import logging as absl_logging
from etils import epath

from jaxalign.experiments.common import command_line, model_card, resume
from jaxalign.runtime import compilation_cache
from jaxalign.runtime.distributed import heartbeat, multihost, preemption
from jaxalign.runtime.io import filesystem, hub, workdir_lock

# Log lines on standard error: what happened, and when, for people to read.


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


T = TypeVar("T")

log = logging.getLogger("jaxalign")


def define_flags(
  *, workdir_required: bool = True, leaves_model: bool = False
) -> None:
  """Defines --config, --workdir and the flags of a run on many hosts.

  Args:
    workdir_required: whether a run needs one.
    leaves_model: whether a run leaves `model/`, which --push_to uploads.
  """
  command_line.define_config()
  flags.DEFINE_string(
    "workdir", None, "folder for everything the run writes, made if absent."
  )
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST or HOST:PORT of process 0; set it to run on many hosts. 'auto' finds "
    "all processes by itself on Cloud TPU and under SLURM.",
  )
  flags.DEFINE_integer("num_processes", None, "Processes of the run.")
  flags.DEFINE_integer("process_id", None, "This process, from 0.")
  flags.DEFINE_integer(
    "host_timeout", 300, "Seconds to wait for all processes to appear."
  )
  flags.DEFINE_float(
    "host_silence",
    60.0,
    "Seconds without a sign of a process after which the others end.",
    lower_bound=1.0,
    upper_bound=100.0,
  )
  flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder where compiled programs are kept for the next run, or 'off'; the "
    "default is $JAXALIGN_COMPILATION_CACHE, else a folder of your caches.",
  )
  if leaves_model:
    flags.DEFINE_string(
      "push_to",
      None,
      "OWNER/NAME on the Hugging Face hub that gets model/ and a model card at "
      "the end, or OWNER/NAME-K each model K of several; a repository that is "
      "made is private.",
    )
  flags.mark_flag_as_required("config")
  if workdir_required:
    flags.mark_flag_as_required("workdir")


def join_hosts(
  *,
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  timeout_s: int,
) -> None:
  """Joins the run's other processes, if a coordinator is named.

  Args:
    coordinator: HOST or HOST:PORT, "auto" to have JAX find it, None for one
      process.
    num_processes: processes of the run.
    process_id: this one, from 0.
    timeout_s: seconds to wait for all of them.

  Raises:
    ValueError: a number without a HOST:PORT to meet at.
  """
  numbers = num_processes, process_id
  if coordinator in (None, "auto") and numbers != (None, None):
    raise ValueError(
      f"--num_processes={num_processes} and --process_id={process_id} need "
      f"--coordinator=HOST:PORT, got {coordinator!r}"
    )
  if coordinator is None:
    return
  multihost.initialize(
    coordinator=None if coordinator == "auto" else coordinator,
    num_processes=num_processes,
    process_id=process_id,
    timeout_s=timeout_s,
  )


def main(
  kind: type[T],
  run: Callable[[T, epath.Path], None],
  *,
  resumes: bool = False,
  check: Callable[[T, epath.Path], Any] | None = None,
  **options: Any,
) -> None:
  """Parses the flags, resolves the config and runs the stage.

  Args:
    kind: the stage's config dataclass.
    run: `(config, workdir)`; gets further keyword options evaluated late.
    resumes: whether the stage goes on from what an earlier attempt left.
    check: `(config, workdir)`, raises before anything is written; None for
      nothing beside `resume.begin`.
    **options: name -> callable without arguments, called after parsing.
  """

  def start(argv: list[str]) -> None:
    if len(argv) > 1:
      raise ValueError(f"unknown argument {argv[1]!r}; options begin with --")
    values = flags.FLAGS
    join_hosts(
      coordinator=values.coordinator,
      num_processes=values.num_processes,
      process_id=values.process_id,
      timeout_s=values.host_timeout,
    )
    set_up_logging(is_main=multihost.is_main())
    push_to = values["push_to"].value if "push_to" in values else None
    push_to = push_to if multihost.is_main() else None
    if push_to is not None:
      hub.check_upload(push_to)
    config = command_line.read_config(kind)
    compilation_cache.enable(values.compilation_cache)
    workdir = filesystem.open_workdir(values.workdir)
    log.info(
      "devices: %d x %s, processes: %d",
      jax.device_count(),
      jax.devices()[0].device_kind,
      jax.process_count(),
    )
    with (
      heartbeat.FailFast(values.host_silence),
      preemption.leaving_at_once(),
      filesystem.full_disk_named(workdir),
      workdir_lock.held(workdir, is_main=multihost.is_main()),
    ):
      if check is not None:
        check(config, workdir)
      if multihost.is_main():
        resume.begin(config, workdir, resumes=resumes)
      multihost.barrier("workdir")
      run(config, workdir, **{k: option() for k, option in options.items()})
      if push_to is not None:
        for address in model_card.push(workdir, push_to):
          log.info("pushed: %s", address)

  command_line.launch(start, kind_of=lambda _: kind)
