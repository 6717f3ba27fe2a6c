"""Runs that are killed by the operating system, and what must come of them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy as np
from absl.testing import absltest

from tests import checkout


def kills(
  phases: dict[str, float | None], number: int, seed: int
) -> list[tuple[str, float]]:
  """`number` kills of each phase at random moments, in random order.

  Args:
    phases: seconds after a phase is entered that a kill may come; None where
      it comes just before (0) or just after (1).
    number: kills of each.
    seed: of moments and order.

  Returns:
    Phase and delay of each kill.
  """
  rng = np.random.default_rng(seed)
  plan = [
    (phase, float(i % 2) if span is None else float(rng.uniform(0, span)))
    for phase, span in phases.items()
    for i in range(number)
  ]
  return [plan[i] for i in rng.permutation(len(plan))]


class Case(absltest.TestCase):
  """A run of which each attempt is a process of its own.

  Attributes:
    victim: module that serves attempts, see `victim.serve`.
    compared: files of a workdir that depend on its inputs alone.
    folder: of all workdirs of a test.
    files: argument of the victim, where its data is.
  """

  victim: str
  compared: tuple[str, ...]

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    self.files = self.folder / "pairs.jsonl"
    errors = self.enter_context((self.folder / "errors").open("w"))
    self.server = self.enter_context(
      subprocess.Popen(
        [sys.executable, "-m", self.victim],
        cwd=checkout.ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
      )
    )
    self.addCleanup(self.server.kill)

  def place(self, workdir: str) -> str:
    """Where a workdir lies."""
    return str(self.folder / workdir)

  def content(self, workdir: str, name: str) -> bytes:
    """A file that an attempt has left."""
    return (self.folder / workdir / name).read_bytes()

  def attempt(self, workdir: str, steps: int, phase: str, delay: float) -> int:
    """Runs a victim; its exit status, negative for a signal."""
    order = (self.place(workdir), self.files, steps, phase, delay)
    self.server.stdin.write(json.dumps([*map(str, order)]) + "\n")
    self.server.stdin.flush()
    answer = self.server.stdout.readline()
    errors = (self.folder / "errors").read_text()[-3000:]
    self.assertIn(answer, ("0\n", f"{-signal.SIGKILL}\n"), errors)
    return int(answer)

  def check(self, plan: list[tuple[str, float]], steps: int) -> None:
    """A run that was killed as planned leaves the files of one that was not.

    Args:
      plan: of the kills.
      steps: of a run, enough for every kill to land.
    """
    self.assertEqual(self.attempt("straight", steps, "none", 0.0), 0)
    for phase, delay in plan:
      status = self.attempt("killed", steps, phase, delay)
      self.assertEqual(status, -signal.SIGKILL, (phase, delay))
    self.assertEqual(self.attempt("killed", steps, "none", 0.0), 0)
    for name in self.compared:
      killed = self.content("killed", name)
      self.assertEqual(killed, self.content("straight", name), name)
