"""Any host killed in any phase: all end, say why, and the curve goes on."""

import json
import os
import pathlib
import signal

import numpy as np
import pytest
from absl.testing import absltest

from tests.experiments import many_hosts_test

PHASES = {  # seconds after the phase is entered that a kill may come
  "reading": 0.3,
  "loading": 0.05,
  "training": 0.3,
  "evaluation": 0.2,
  "saving": 0.15,
  "commit": None,  # host 0 alone renames, just before or after
}
# JAX may be the first to find that process 0 is gone, and aborts.
RESTARTS = (75, -signal.SIGABRT)


def plan(hosts, rounds, seed):
  """Each phase on each host, `rounds` times, in random order."""
  rng = np.random.default_rng(seed)
  kills = [
    (host, phase, float(i % 2) if span is None else float(rng.uniform(0, span)))
    for i in range(rounds)
    for phase, span in PHASES.items()
    for host in (range(hosts) if span is not None else (0,))
  ]
  return [kills[i] for i in rng.permutation(len(kills))]


class HostsChaosTest(many_hosts_test.Case):
  module = "tests.experiments.host_victim"

  @pytest.mark.slow
  def test_two_hosts_killed_in_every_phase(self):
    self.check(2, plan(2, 1, seed=1))

  @pytest.mark.slow
  def test_four_hosts_killed_in_every_phase(self):
    self.check(4, plan(4, 1, seed=2))

  def check(self, processes, kills):
    """Kills as planned, one per attempt, until the run is done.

    Args:
      processes: of every attempt.
      kills: host, phase and delay of each.
    """
    workdir = self.folder / f"killed{processes}"
    straight = self.folder / f"straight{processes}"
    flags = (
      # A kill comes within two checkpoints of the one it starts from.
      f"--config.train.num_steps={20 * (len(kills) + 1)}",
      "--config.train.eval_every=10",
      "--config.train.checkpoint_every=10",
    )
    self.end(self.start(straight, processes, *flags))
    for host, phase, delay in kills:
      victim = {"VICTIM_PHASE": phase, "VICTIM_DELAY": str(delay)}
      run = self.start(workdir, processes, *flags, environment={host: victim})
      outputs = [process.communicate(timeout=900)[0] for process in run]
      statuses = [process.returncode for process in run]
      self.log(workdir, host, phase, delay, statuses)
      self.assertEqual(statuses[host], -signal.SIGKILL, outputs[host][-3000:])
      for other in {*range(processes)} - {host}:
        self.assertIn(statuses[other], RESTARTS[:1] if host else RESTARTS)
        if statuses[other] == RESTARTS[0]:
          reason = f"of process {host} on" if host else "process 0 is gone"
          self.assertIn(reason, outputs[other])
    self.end(self.start(workdir, processes, *flags))
    self.assert_same(workdir, straight)

  def log(self, workdir, host, phase, delay, statuses):
    """One line of what came of a kill, where CHAOS_LOG names a file."""
    if "CHAOS_LOG" not in os.environ:
      return
    saved = sorted(
      int(path.name)
      for path in (workdir / "checkpoints").glob("*")
      if path.name.isdigit()
    )
    with pathlib.Path(os.environ["CHAOS_LOG"]).open("a") as file:
      row = {
        "hosts": len(statuses),
        "killed": host,
        "phase": phase,
        "delay_s": round(delay, 3),
        "statuses": statuses,
        "saved": saved[-1:],
      }
      file.write(f"{json.dumps(row)}\n")


if __name__ == "__main__":
  absltest.main()
