r"""Hardware check: correctness, speed and resume on new devices.

python -m jaxalign.experiments.hardware_check \
    --config=configs/rm_bt_crowd.py:smoke --workdir=runs/hardware_check

Compares a training step with the same step on this machine's CPU and times it
(`--probe` stops there), then runs the reward stage straight through and once
more with a kill and a SIGTERM, each in a process of its own. It writes
hardware_check.md, a page to paste elsewhere. On many hosts it runs on all of
them with the flags of any stage; other flags than its own go to the stages.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags
from etils import epath

from jaxalign.experiments import train_reward
from jaxalign.experiments.common import cli, command_line
from jaxalign.experiments.reports import hardware_check as page
from jaxalign.experiments.reward_model import device_probe
from jaxalign.runtime.io import filesystem, metric_writer

POLL_S = 0.05
PROBE = "--probe"


class Ended(NamedTuple):
  """A stage that has ended.

  Attributes:
    status: its exit status, negative for the signal that ended it.
    seconds: from its start.
    signalled: whether the signal was sent before it ended.
  """

  status: int
  seconds: float
  signalled: bool


def run_stage(
  stage: str,
  arguments: Sequence[str],
  *,
  until: Callable[[], bool] | None = None,
  send: signal.Signals = signal.SIGKILL,
) -> Ended:
  """Runs a stage in a process of its own.

  Args:
    stage: module of jaxalign.experiments.
    arguments: its flags.
    until: when to signal it; None leaves it alone.
    send: the signal.

  Returns:
    How it ended.
  """
  start = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, "-m", f"jaxalign.experiments.{stage}", *arguments]
  )
  signalled = False
  try:
    if until is not None:
      while process.poll() is None and not until():
        time.sleep(POLL_S)
      if process.poll() is None:
        process.send_signal(send)
        signalled = True
    status = process.wait()
  finally:
    if process.poll() is None:  # this process was interrupted
      process.kill()
  return Ended(status, time.monotonic() - start, signalled)


def saved_steps(workdir: epath.Path) -> list[int]:
  """Steps with a complete checkpoint, in order."""
  folder = workdir / "checkpoints"
  if not folder.exists():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def same_curve(straight: epath.Path, killed: epath.Path) -> dict[str, Any]:
  """Two runs' metrics, row by row.

  Args:
    straight: workdir of the uninterrupted run.
    killed: workdir of the other.

  Returns:
    `rows` of the first, how many of them are `equal` in the second, and whether
    the second has `more`.
  """
  ours, theirs = (
    metric_writer.read_rows(workdir / "metrics.jsonl")
    for workdir in (straight, killed)
  )
  return {
    "rows": len(ours),
    "equal": sum(a == b for a, b in zip(ours, theirs, strict=False)),
    "more": len(theirs) > len(ours),
  }


def kill_and_resume(
  workdir: epath.Path, arguments: Sequence[str], *, steps: int, every: int
) -> dict[str, Any]:
  """Trains twice, the second time with a kill and a notice in between.

  Args:
    workdir: gets straight/ and killed/.
    arguments: flags of the reward stage but --workdir.
    steps: of each run.
    every: steps between checkpoints.

  Returns:
    Exit statuses and seconds of the four processes, `killed_at`, the last step
    saved when the kill came, `noticed_at`, the last step saved when the notice
    of SIGTERM had been followed, and how the curves compare.
  """
  straight, killed = workdir / "straight", workdir / "killed"
  arguments = [
    *arguments,
    f"--config.train.num_steps={steps}",
    f"--config.train.checkpoint_every={every}",
  ]
  runs = {
    "straight": run_stage("train_reward", [*arguments, f"--workdir={straight}"])
  }
  again = [*arguments, f"--workdir={killed}"]
  runs["killed"] = run_stage(
    "train_reward", again, until=lambda: bool(saved_steps(killed))
  )
  saved = saved_steps(killed)
  killed_at = saved[-1] if saved else 0
  runs["noticed"] = run_stage(
    "train_reward",
    again,
    until=lambda: max(saved_steps(killed), default=0) > killed_at,
    send=signal.SIGTERM,
  )
  noticed_at = max(saved_steps(killed), default=0)
  runs["resumed"] = run_stage("train_reward", again)
  result = {name: ended._asdict() for name, ended in runs.items()}
  result["steps"] = steps
  result["killed_at"], result["noticed_at"] = killed_at, noticed_at
  if runs["straight"].status == runs["resumed"].status == 0:
    result["curve"] = same_curve(straight, killed)
  return result


def run(
  workdir: epath.Path, arguments: Sequence[str], *, steps: int, every: int
) -> bool:
  """Measures, and writes hardware_check.md and hardware_check.json.

  Args:
    workdir: where, on a file system or in a store that all hosts share.
    arguments: flags for the stages but --workdir.
    steps: of the training runs.
    every: steps between their checkpoints.

  Returns:
    Whether everything passed, as far as this host can tell.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as folder:
    rank_file = pathlib.Path(folder) / "rank"
    probed = run_stage(
      "hardware_check",
      [
        PROBE,
        *arguments,
        f"--workdir={workdir}",
        f"--rank_file={rank_file}",
      ],
    )
    rank = int(rank_file.read_text()) if rank_file.exists() else 0
  trained = None
  if probed.status == 0:
    trained = kill_and_resume(workdir, arguments, steps=steps, every=every)
  if rank != 0:
    return trained is not None and all(
      check(trained).passed for check in (page.resumed, page.noticed)
    )
  text, passed = page.page(
    workdir / "probe.json" if probed.status == 0 else None,
    trained,
    command=" ".join(arguments),
  )
  filesystem.write_atomically(workdir / "hardware_check.md", text.encode())
  sys.stdout.write(f"\n{text}\n")
  return passed


def probe() -> None:
  """Runs the device probe alone, with the flags of a stage."""
  cli.define_flags()
  flags.DEFINE_string("rank_file", None, "Gets this process's number.")
  cli.main(
    train_reward.Config,
    device_probe.run,
    rank_file=lambda: flags.FLAGS.rank_file,
  )


def main() -> None:
  """Runs the check from the command line; exit status 1 if something failed."""
  if PROBE in sys.argv[1:]:
    sys.argv.remove(PROBE)
    probe()
    return
  flags.DEFINE_string("workdir", None, "folder for everything it writes.")
  flags.DEFINE_integer("steps", 200, "Steps of the training runs.", 2)
  flags.DEFINE_integer("every", 20, "Steps between their checkpoints.", 1)
  flags.mark_flag_as_required("workdir")

  def start(argv: list[str]) -> int:
    values = flags.FLAGS
    if values.every >= values.steps:
      raise ValueError(
        f"--every={values.every} must be less than --steps={values.steps}"
      )
    # Where one process has the devices no other may, so none is used here.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    passed = run(
      filesystem.open_workdir(values.workdir),
      argv[1:],
      steps=values.steps,
      every=values.every,
    )
    return 0 if passed else 1

  command_line.launch(start, known_only=True)


if __name__ == "__main__":
  main()
