r"""One process of a run on many hosts, which may kill itself in a phase.

    VICTIM_PHASE=saving VICTIM_DELAY=0.1 \
        python -m tests.experiments.host_victim \
        --config=configs/rm_bt_crowd.py:smoke --workdir=DIR --coordinator=...

Takes the flags of `train_reward`. The phases are those of `victim`, and
"reading" (records are tokenised, lengths exchanged) and "loading" (a batch is
made). All but reading are entered late enough that a checkpoint was saved
before, where one is saved every ten steps.
"""

import os

from jaxalign.data import batches, tokens
from jaxalign.experiments import train_reward
from jaxalign.experiments.rewards import scoring
from jaxalign.runtime import loop
from tests.experiments import victim


def main() -> None:
  """Arms the phase, then runs the stage."""
  phase = os.environ.get("VICTIM_PHASE", "none")
  delay = float(os.environ.get("VICTIM_DELAY", "0"))
  if phase == "reading":
    victim.enter(tokens, "encode_pairs", delay)
  elif phase == "loading":
    victim.enter(batches.Batches, "__getitem__", delay, call=15)
  elif phase == "training":
    victim.enter(loop.StepGuard, "exchange", delay, call=15)
  elif phase == "evaluation":
    victim.enter(scoring, "rewards_of", delay, call=2)
  else:
    victim.arm_checkpoints(phase, delay, call=2)
  train_reward.main()


if __name__ == "__main__":
  main()
