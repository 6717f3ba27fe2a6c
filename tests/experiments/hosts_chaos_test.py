"""Any host killed in any phase: all end, say why, and the curve goes on."""

import pytest
from absl.testing import absltest

from tests.experiments import hosts_chaos

PHASES = {  # seconds after the phase is entered that a kill may come
  "reading": 0.3,
  "loading": 0.05,
  "training": 0.3,
  "evaluation": 0.2,
  "saving": 0.15,
  "commit": None,  # host 0 alone renames, just before or after
}


class HostsChaosTest(hosts_chaos.Case):
  stage = "train_reward"
  devices = 4
  flags = (
    "--config=configs/rm_bt_crowd.py:smoke",
    "--config.train.num_reference=8",
    "--config.data.buckets=(128,)",
    "--config.eval.num_samples=5",
    "--config.mesh.data=2",
    "--config.mesh.fsdp=2",
  )

  @staticmethod
  def steps(number):
    return (f"--config.train.num_steps={number}",)

  @pytest.mark.slow
  def test_two_hosts_killed_twice_in_every_phase(self):
    self.check(2, hosts_chaos.kills(PHASES, 2, 2, seed=1))

  @pytest.mark.slow
  def test_four_hosts_killed_four_times_in_every_phase(self):
    self.check(4, hosts_chaos.kills(PHASES, 4, 4, seed=2))


if __name__ == "__main__":
  absltest.main()
