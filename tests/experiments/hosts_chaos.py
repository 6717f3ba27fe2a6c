"""Runs of several hosts, one of which is killed, and what must come of them."""

import json
import os
import pathlib
import re
import signal

import numpy as np
from etils import epath

from jaxalign.runtime.io import metric_writer
from tests.experiments import host_runs, host_victim
from tests.experiments.host_runs import Kill

# JAX may be the first to find that process 0 is gone, and aborts.
RESTARTS = (75, -signal.SIGABRT)


def kills(
  phases: dict[str, float | None], hosts: int, number: int, seed: int
) -> list[Kill]:
  """`number` kills of each phase at random moments, in random order.

  Args:
    phases: seconds after a phase is entered that a kill may come; None where
      it comes just before (0) or just after (1), on host 0 alone.
    hosts: that take turns, another one first in each phase.
    number: kills of each phase.
    seed: of moments and order.

  Returns:
    The kills.
  """
  rng = np.random.default_rng(seed)
  plan = [
    Kill(
      0 if span is None else (i + first) % hosts,
      phase,
      float(i % 2) if span is None else float(rng.uniform(0, span)),
    )
    for first, (phase, span) in enumerate(phases.items())
    for i in range(number)
  ]
  return [plan[i] for i in rng.permutation(len(plan))]


class Case(host_runs.Case):
  """A run that is killed again and again.

  Attributes:
    compared: files of a workdir that depend on its inputs alone.
  """

  compared = ("metrics.jsonl", "model/model.safetensors", "eval.json")

  def check(self, processes, plan, straight="straight"):
    """Kills as planned, one per attempt, leave the files of a quiet run.

    Args:
      processes: of every attempt.
      plan: of the kills.
      straight: workdir of the run that nobody disturbs.

    Returns:
      The flags of both runs beside `flags`.
    """
    every = host_victim.EVERY[self.stage]
    flags = (
      # A kill comes within two checkpoints of the one it starts from, and
      # many come within one.
      *self.steps(every * (3 * len(plan) // 2 + 3)),
      f"--config.train.eval_every={every}",
      f"--config.train.checkpoint_every={every}",
    )
    self.finish(straight, processes, *flags)
    saved = 0
    for kill in plan:
      statuses, outputs = self.attempt("killed", processes, *flags, kill=kill)
      resumed = self.resumed(outputs[0])
      self.log(kill, statuses, saved, resumed, straight)
      self.check_ends(kill, statuses, outputs)
      if resumed is not None:
        self.assertEqual(resumed, saved)
      saved = self.saved()
    outputs = self.finish("killed", processes, *flags)
    self.assertEqual(self.resumed(outputs[0]), saved)
    for name in self.compared:
      killed = (self.folder / "killed" / name).read_bytes()
      quiet = (self.folder / straight / name).read_bytes()
      self.assertEqual(killed, quiet, name)
    return flags

  def check_ends(self, kill, statuses, outputs):
    """One was killed, and the others say so and ask to be started again."""
    self.assertEqual(
      statuses[kill.host], -signal.SIGKILL, outputs[kill.host][-3000:]
    )
    for other in {*range(len(statuses))} - {kill.host}:
      self.assertIn(
        statuses[other],
        RESTARTS[:1] if kill.host else RESTARTS,
        outputs[other][-3000:],
      )
      if statuses[other] == RESTARTS[0]:
        lost = f"of process {kill.host} on"
        self.assertIn(
          lost if kill.host else "process 0 is gone", outputs[other]
        )

  @staticmethod
  def steps(number):
    """The flag that says how long a run is."""
    raise NotImplementedError

  @staticmethod
  def resumed(output):
    """The step that an attempt says it starts from, None if it came not far."""
    found = re.search(r"starting at (?:step|iteration) (\d+) of", output)
    return None if found is None else int(found[1])

  def saved(self):
    """The last checkpoint that counts, 0 where there is none."""
    folder = self.folder / "killed/checkpoints"
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return max(steps, default=0)

  def log(self, kill, statuses, before, resumed, straight):
    """One line of what came of a kill, where CHAOS_LOG names a file."""
    if "CHAOS_LOG" not in os.environ:
      return
    rows = lambda workdir: metric_writer.read_rows(
      epath.Path(self.folder / workdir / "metrics.jsonl")
    )
    found, quiet = rows("killed"), rows(straight)
    saved = self.saved()
    row = {
      "stage": self.stage,
      "hosts": len(statuses),
      "killed": kill.host,
      "phase": kill.phase,
      "delay_s": round(kill.delay, 3),
      "statuses": statuses,
      "last_checkpoint": before,
      "resumed_from": resumed,
      "saved": saved,
      "again": max(found[-1]["step"] - saved, 0) if found else 0,
      "wrong_rows": sum(a != b for a, b in zip(found, quiet, strict=False)),
    }
    with pathlib.Path(os.environ["CHAOS_LOG"]).open("a") as file:
      file.write(f"{json.dumps(row)}\n")
