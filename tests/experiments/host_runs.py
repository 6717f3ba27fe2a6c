"""Runs of several hosts, each a process that begins where the imports end."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from tests import checkout
from tests.experiments import host_victim
from tests.runtime.distributed import multihost_test

SILENCE_S = 8


@dataclasses.dataclass(frozen=True)
class Kill:
  """What ends an attempt.

  Attributes:
    host: which process dies.
    phase: in which.
    delay: seconds after it was entered, see `host_victim.Order`.
  """

  host: int
  phase: str
  delay: float


class Case(absltest.TestCase):
  """A run of which each attempt is one process per host.

  Attributes:
    stage: what runs.
    flags: of its command line.
    devices: of all processes together.
    folder: of all workdirs of a test.
  """

  stage: str
  flags: tuple[str, ...]
  devices: int

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    self.servers: list[subprocess.Popen[str]] = []

  def serve(self, processes):
    """Makes sure that each of some hosts has a server of attempts."""
    for number in range(len(self.servers), processes):
      server = subprocess.Popen(
        [sys.executable, "-m", "tests.experiments.host_victim"],
        cwd=checkout.ROOT,
        env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self.enter_context((self.folder / f"server{number}").open("w")),
        text=True,
      )
      self.enter_context(server)
      self.addCleanup(server.kill)
      self.servers.append(server)

  def attempt(self, workdir, processes, *flags, kill=None):
    """One attempt at a run.

    Args:
      workdir: its name.
      processes: hosts.
      *flags: beside those that all attempts have.
      kill: who dies when, or None for nobody.

    Returns:
      Exit status of each process, negative for a signal, and what it printed.
    """
    self.serve(processes)
    port = multihost_test.free_port()
    logs = [str(self.folder / f"log{n}") for n in range(processes)]
    for number in range(processes):
      arguments = [
        f"--workdir={self.folder / workdir}",
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={processes}",
        f"--process_id={number}",
        f"--host_silence={SILENCE_S}",
        *self.flags,
        *flags,
      ]
      dies = kill is not None and kill.host == number
      order = host_victim.Order(
        stage=self.stage,
        arguments=arguments,
        devices=self.devices // processes,
        cache=str(self.folder / f"compiled{processes}"),
        log=logs[number],
        **(dict(phase=kill.phase, delay=kill.delay) if dies else {}),
      )
      line = json.dumps(dataclasses.asdict(order))
      self.servers[number].stdin.write(f"{line}\n")
      self.servers[number].stdin.flush()
    statuses = [
      int(server.stdout.readline()) for server in self.servers[:processes]
    ]
    return statuses, [pathlib.Path(log).read_text() for log in logs]

  def finish(self, workdir, processes, *flags):
    """An attempt that nobody disturbs; what each process printed."""
    statuses, outputs = self.attempt(workdir, processes, *flags)
    self.assertEqual(
      statuses, [0] * processes, "\n".join(o[-3000:] for o in outputs)
    )
    return outputs
