r"""Processes of runs on many hosts, any of which may kill itself in a phase.

    echo '{"stage": "train_policy", "arguments": ["--config=..."],
           "devices": 1, "cache": "DIR", "log": "FILE",
           "phase": "learning", "delay": 0.1}' | tr -d '\n' | \
        python -m tests.experiments.host_victim

Each line of standard input, an `Order` as JSON, is one process of one run, in a
child that begins where the imports end; its answer is the child's exit status,
negative for a signal. The phases are those of `victim` and `policy_victim`, and
"reading" (records are tokenised, lengths exchanged) and "loading" (a batch is
made, which takes `LOADING_S` then). All but reading are entered late enough
that a checkpoint was saved before, where one is saved every `EVERY` steps.
"""

import dataclasses
import json
import os
import sys
import time
import traceback
import warnings

import jax

from jaxalign.data.batching import loader, sharded_tokens
from jaxalign.experiments import train_policy, train_reward
from jaxalign.experiments.reward_model import scoring
from jaxalign.runtime.io import step_guard
from tests.experiments import policy_victim, victim

# Steps from one checkpoint, and evaluation, to the next.
EVERY = {"train_reward": 4, "train_policy": 2}
LOADING_S = 0.05
STAGES = {"train_reward": train_reward, "train_policy": train_policy}


@dataclasses.dataclass(frozen=True)
class Order:
  """One process of a run.

  Attributes:
    stage: its module.
    arguments: of the command line.
    devices: that the process has.
    cache: folder of what was compiled.
    log: file that gets what it prints.
    phase: in which it kills itself, or "none".
    delay: seconds after the phase was entered; for "commit" 0 before and 1
      after the rename that makes a checkpoint count.
  """

  stage: str
  arguments: list[str]
  devices: int
  cache: str
  log: str
  phase: str = "none"
  delay: float = 0.0


def arm(order: Order) -> None:
  """Wraps what the phase enters, so that it starts the clock."""
  phase, delay, every = order.phase, order.delay, EVERY[order.stage]
  if phase == "reading":
    victim.enter(sharded_tokens, "encode_some", delay)
  elif phase == "loading":
    make = loader.Batches.__dict__["__getitem__"]

    def slowly(source, step):
      time.sleep(LOADING_S)
      return make(source, step)

    # Two batches or three are made ahead of the step.
    late = victim.starting(slowly, delay, call=every + 4)
    loader.Batches.__getitem__ = late
  elif order.stage == "train_policy":
    policy_victim.arm(phase, delay)
  elif phase == "training":
    victim.enter(step_guard.StepGuard, "exchange", delay, call=every + 2)
  elif phase == "evaluation":
    victim.enter(scoring, "rewards_of", delay, call=2)
  else:
    victim.arm_checkpoints(phase, delay, call=2)


def run(order: Order) -> None:
  """What a child does."""
  file = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
  for stream in (1, 2):
    os.dup2(file, stream)
  jax.config.update("jax_num_cpu_devices", order.devices)
  victim.compile_into(order.cache)
  arm(order)
  sys.argv = [order.stage, *order.arguments]
  STAGES[order.stage].main()


def main() -> None:
  """Serves orders until standard input ends."""
  warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
  for line in sys.stdin:
    child = os.fork()
    if not child:
      status = 1
      try:
        run(Order(**json.loads(line)))
        status = 0
      except SystemExit as end:
        status = end.code or 0
      finally:
        if status:
          traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout.write(f"{status}\n")
    sys.stdout.flush()


if __name__ == "__main__":
  main()
