"""A training run that kills itself, as kill -9 would, at a chosen moment.

    python -m tests.experiments.victim WORKDIR FILES STEPS PHASE DELAY

PHASE is "training", "evaluation", "saving", "commit" or "none"; DELAY is
seconds after the phase was entered, or for "commit" 0 before and 1 after the
rename that makes a checkpoint count.
"""

import os
import signal
import sys
import threading

import jax
from etils import epath

from jaxalign.experiments import scoring, train_reward
from jaxalign.runtime import checkpoint, loop
from tests.experiments import train_reward_test


def die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def arm(phase: str, delay: float) -> None:
  """Wraps what the phase enters, so that it starts the clock."""

  def starting(owner, name, *, after: bool):
    inner = owner.__dict__[name]

    def wrapped(*args, **kwargs):
      if not after:
        threading.Timer(delay, die).start()
      result = inner(*args, **kwargs)
      if after:
        threading.Timer(delay, die).start()
      return result

    setattr(owner, name, wrapped)

  if phase == "training":
    starting(loop.StepGuard, "exchange", after=False)
  elif phase == "evaluation":
    starting(scoring, "rewards_of", after=False)
  elif phase == "saving":
    starting(checkpoint.Checkpoints, "save", after=True)
  elif phase == "commit":
    rename = os.rename

    def last_rename(source, target, **options):
      commits = epath.Path(target).parent.name == "checkpoints"
      if commits and not delay:
        die()
      rename(source, target, **options)
      if commits:
        die()

    os.rename = last_rename


def main() -> None:
  workdir, files, steps, phase, delay = sys.argv[1:]
  cache = os.path.join(os.path.dirname(files), "compiled")
  jax.config.update("jax_compilation_cache_dir", cache)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  arm(phase, float(delay))
  config = train_reward_test.smoke_config(
    data__train_files=(files,),
    data__eval_files=(files,),
    data__buckets=(64,),
    data__max_length=64,
    train__num_steps=int(steps),
    train__eval_every=10,
    train__checkpoint_every=10,
    eval__num_samples=5,
  )
  train_reward.run(config, epath.Path(workdir), profile=False)


if __name__ == "__main__":
  main()
