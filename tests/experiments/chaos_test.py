"""kill -9 in every phase: the curve is the uninterrupted one, bit for bit."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from absl.testing import absltest

from tests import checkout

PHASES = {  # seconds after the phase is entered that a kill may come
  "training": 0.3,
  "evaluation": 0.2,
  "saving": 0.15,
  "commit": None,  # just before or just after the rename
}


def kills(number: int, seed: int) -> list[tuple[str, float]]:
  """`number` kills of each phase at random moments, in random order."""
  rng = np.random.default_rng(seed)
  plan = [
    (phase, float(i % 2) if span is None else float(rng.uniform(0, span)))
    for phase, span in PHASES.items()
    for i in range(number)
  ]
  return [plan[i] for i in rng.permutation(len(plan))]


class ChaosTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    words = lambda low: " " + " ".join(map(str, rng.integers(low, low + 9, 4)))
    rows = [
      {"prompt": "Q:", "chosen": words(10), "rejected": words(50)}
      for _ in range(48)
    ]
    self.files = self.folder / "pairs.jsonl"
    self.files.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

  def attempt(self, workdir: str, steps: int, phase: str, delay: float) -> int:
    """Runs a victim; its exit status, negative for a signal."""
    done = subprocess.run(
      [
        sys.executable,
        "-m",
        "tests.experiments.victim",
        str(self.folder / workdir),
        str(self.files),
        str(steps),
        phase,
        str(delay),
      ],
      cwd=checkout.ROOT,
      env=os.environ | {"XLA_FLAGS": ""},
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
    )
    self.assertIn(done.returncode, (0, -signal.SIGKILL), done.stderr[-3000:])
    return done.returncode

  def contents(self, workdir: str) -> dict[str, bytes]:
    names = (
      "metrics.jsonl",
      "eval.json",
      "model/model.safetensors",
      "model/config.json",
      "model/jaxalign.json",
    )
    return {n: (self.folder / workdir / n).read_bytes() for n in names}

  def check(self, number: int) -> None:
    steps = 40 + 160 * number
    self.assertEqual(self.attempt("straight", steps, "none", 0.0), 0)
    for phase, delay in kills(number, seed=number):
      # Steps enough are left for every kill to land.
      status = self.attempt("killed", steps, phase, delay)
      self.assertEqual(status, -signal.SIGKILL, (phase, delay))
    self.assertEqual(self.attempt("killed", steps, "none", 0.0), 0)
    straight, killed = self.contents("straight"), self.contents("killed")
    for name, content in straight.items():
      self.assertEqual(killed[name], content, name)

  def test_one_kill_in_each_phase(self):
    self.check(1)

  @pytest.mark.slow
  def test_five_kills_in_each_phase(self):
    self.check(5)


if __name__ == "__main__":
  absltest.main()
