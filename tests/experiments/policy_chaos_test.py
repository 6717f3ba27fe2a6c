"""kill -9 in every phase of a policy run: same curve, bit for bit."""

import pytest
from absl.testing import absltest

from tests.experiments import chaos, policy_victim

PHASES = {  # seconds after the phase is entered that a kill may come
  "sampling": 0.02,
  "scoring": policy_victim.SCORING_S,
  "learning": 0.1,
  "evaluation": 0.05,
  "saving": 0.15,
  "commit": None,  # just before or just after the rename
}


class PolicyChaosTest(chaos.Case):
  victim = "tests.experiments.policy_victim"
  compared = (
    "metrics.jsonl",
    "eval.json",
    "model/model.safetensors",
    "model/jaxalign.json",
  )

  def check_kills(self, number: int) -> None:
    # A kill comes within four iterations of the checkpoint it starts from.
    plan = chaos.kills(PHASES, number, seed=number)
    self.check(plan, 4 * (len(plan) + 1))

  def test_one_kill_in_each_phase(self):
    self.check_kills(1)

  @pytest.mark.slow
  def test_five_kills_in_each_phase(self):
    self.check_kills(5)


if __name__ == "__main__":
  absltest.main()
