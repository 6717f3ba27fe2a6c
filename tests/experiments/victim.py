r"""A training run that kills itself, as kill -9 would, at a chosen moment.

    echo '["WORKDIR", "FILES", "STEPS", "PHASE", "DELAY"]' | \
        python -m tests.experiments.victim

PHASE is "training", "evaluation", "saving", "commit" or "none"; DELAY is
seconds after the phase was entered, or for "commit" 0 before and 1 after the
rename that makes a checkpoint count.
"""

import itertools
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable

import jax
from etils import epath

from jaxalign.experiments import train_reward
from jaxalign.experiments.reward_model import scoring
from jaxalign.runtime.io import checkpoint, step_guard
from tests.experiments import train_reward_test


def die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def starting(
  function: Callable, delay: float, *, after: bool = False, call: int = 1
) -> Callable:
  """The function; a call of it starts the clock that ends the process.

  Args:
    function: what a phase enters.
    delay: seconds that are left.
    after: whether the clock starts when it returns.
    call: which call starts it.

  Returns:
    The function with a clock.
  """
  calls = itertools.count(1)

  def wrapped(*args, **kwargs):
    mine = next(calls) == call
    if mine and not after:
      threading.Timer(delay, die).start()
    result = function(*args, **kwargs)
    if mine and after:
      threading.Timer(delay, die).start()
    return result

  return wrapped


def arm(phase: str, delay: float) -> None:
  """Wraps what the phase enters, so that it starts the clock."""
  if phase == "training":
    enter(step_guard.StepGuard, "exchange", delay)
  elif phase == "evaluation":
    enter(scoring, "rewards_of", delay)
  else:
    arm_checkpoints(phase, delay)


def enter(owner: object, name: str, delay: float, **options) -> None:
  """Puts the clock into a function of a class or a module."""
  setattr(owner, name, starting(owner.__dict__[name], delay, **options))


def arm_checkpoints(phase: str, delay: float, call: int = 1) -> None:
  """The phases that any run with checkpoints has."""
  if phase == "saving":
    enter(checkpoint.Checkpoints, "save", delay, after=True, call=call)
  elif phase == "commit":
    rename, calls = os.rename, itertools.count(1)

    def last_rename(source, target, **options):
      commits = (
        epath.Path(target).parent.name == "checkpoints" and next(calls) == call
      )
      if commits and not delay:
        die()
      rename(source, target, **options)
      if commits:
        die()

    os.rename = last_rename


def compile_once(files: str) -> None:
  """All victims of a test share what was compiled, in a folder beside them."""
  compile_into(os.path.join(os.path.dirname(files), "compiled"))


def compile_into(cache: str) -> None:
  """Keeps all that is compiled in a folder, and takes it from there."""
  jax.config.update("jax_compilation_cache_dir", cache)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def serve(run: Callable[[str, str, int, str, float], None]) -> None:
  """Runs what is asked for on standard input, each time in a child process.

  The children begin where the imports end, which is half of what a short run
  takes. Nothing has started JAX's threads by then, so that forking is safe.

  Args:
    run: of workdir, files, steps, phase and delay. A line holds these as JSON,
      its answer is the exit status of the child, negative for a signal.
  """
  warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
  for line in sys.stdin:
    child = os.fork()
    if not child:
      status = 1
      try:
        workdir, files, steps, phase, delay = json.loads(line)
        run(workdir, files, int(steps), phase, float(delay))
        status = 0
      finally:
        if status:
          traceback.print_exc()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout.write(f"{status}\n")
    sys.stdout.flush()


def run(workdir: str, files: str, steps: int, phase: str, delay: float) -> None:
  compile_once(files)
  arm(phase, delay)
  config = train_reward_test.smoke_config(
    data__train_files=(files,),
    data__eval_files=(files,),
    data__buckets=(64,),
    data__max_length=64,
    train__num_steps=steps,
    train__eval_every=10,
    train__checkpoint_every=10,
    eval__num_samples=5,
  )
  train_reward.run(config, epath.Path(workdir), profile=False)


if __name__ == "__main__":
  serve(run)
