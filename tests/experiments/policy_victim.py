r"""A policy run that kills itself, as kill -9 would, at a chosen moment.

    echo '["WORKDIR", "FILES", "STEPS", "PHASE", "DELAY"]' | \
        python -m tests.experiments.policy_victim

PHASE is "sampling", "scoring", "learning", "evaluation", "saving", "commit" or
"none"; DELAY is seconds after the phase was entered, late enough that a
checkpoint was saved before where one is saved every other iteration, or for
"commit" 0 before and 1 after the rename that makes a checkpoint count. FILES
stands beside what victims share, and need not exist.
"""

import dataclasses
import time
from collections.abc import Callable

from etils import epath

from jaxalign.experiments import train_policy
from jaxalign.experiments.policy import evaluation, reward_source
from tests.experiments import train_policy_test, victim

SCORING_S = 0.05  # that scoring takes at least, for a kill to find it at work
# The third iteration, behind an evaluation, or the second time.
CALLS = {"sampling": 4, "scoring": 4, "learning": 3}


@dataclasses.dataclass(frozen=True)
class Slow:
  """A source that takes its time; all hosts enter it, one of them asks."""

  names: tuple[str, ...]
  mixture_weights: tuple[float, ...] | None
  score: Callable

  def __call__(self, prompts, responses, columns=None):
    return self.score(prompts, responses, columns)


def arm(phase: str, delay: float) -> None:
  """Wraps what the phase enters, so that it starts the clock."""
  call = CALLS.get(phase, 2)
  clock = lambda function: victim.starting(function, delay, call=call)

  def with_clock(owner, name, change):
    made = getattr(owner, name)
    setattr(
      owner, name, lambda *args, **options: change(made(*args, **options))
    )

  def slowed(source):
    def score(prompts, responses, columns):
      time.sleep(SCORING_S)
      return source(prompts, responses, columns)

    return Slow(source.names, source.mixture_weights, clock(score))

  if phase == "sampling":
    change = lambda stage: stage._replace(sample=clock(stage.sample))
    with_clock(train_policy, "build", change)
  elif phase == "learning":
    change = lambda stage: stage._replace(learn=clock(stage.learn))
    with_clock(train_policy, "build", change)
  elif phase == "scoring":
    with_clock(reward_source, "open_source", slowed)
  elif phase == "evaluation":
    with_clock(evaluation, "make_measure", clock)
  else:
    victim.arm_checkpoints(phase, delay, call=call)


def run(workdir: str, files: str, steps: int, phase: str, delay: float) -> None:
  victim.compile_once(files)
  arm(phase, delay)
  # All that an iteration hands to the next is in use.
  config = train_policy_test.smoke_config(
    **train_policy_test.SHARED,
    kl__controller="adaptive",
    kl__target=0.5,
    kl__horizon=100.0,
    reward__scale="standardise",
    welfare__kind="exponentiated",
    welfare__step_size=0.3,
    train__num_iterations=steps,
    train__eval_every=2,
    train__checkpoint_every=2,
  )
  train_policy.run(config, epath.Path(workdir))


if __name__ == "__main__":
  victim.serve(run)
