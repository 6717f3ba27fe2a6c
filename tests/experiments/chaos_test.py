"""kill -9 in every phase: the curve is the uninterrupted one, bit for bit."""

import json

import numpy as np
import pytest
from absl.testing import absltest

from tests.experiments import chaos

PHASES = {  # seconds after the phase is entered that a kill may come
  "training": 0.3,
  "evaluation": 0.2,
  "saving": 0.15,
  "commit": None,  # just before or just after the rename
}


class Case(chaos.Case):
  """Attempts at a run on a few rows."""

  victim = "tests.experiments.victim"
  compared = (
    "metrics.jsonl",
    "eval.json",
    "model/model.safetensors",
    "model/config.json",
    "model/jaxalign.json",
  )

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    words = lambda low: " " + " ".join(map(str, rng.integers(low, low + 9, 4)))
    rows = [
      {"prompt": "Q:", "chosen": words(10), "rejected": words(50)}
      for _ in range(48)
    ]
    self.files.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


class ChaosTest(Case):
  def check_kills(self, number: int) -> None:
    self.check(chaos.kills(PHASES, number, seed=number), 40 + 160 * number)

  def test_one_kill_in_each_phase(self):
    self.check_kills(1)

  @pytest.mark.slow
  def test_five_kills_in_each_phase(self):
    self.check_kills(5)


if __name__ == "__main__":
  absltest.main()
