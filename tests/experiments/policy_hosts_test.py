"""A policy run on two hosts is the run on one, also where a host is killed."""

import numpy as np
import pytest
import safetensors.numpy
from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import metric_writer
from tests.experiments import host_runs, hosts_chaos, policy_victim

PHASES = {  # seconds after the phase is entered that a kill may come
  "reading": 0.1,
  "loading": 0.05,
  "sampling": 0.1,
  "scoring": policy_victim.SCORING_S,
  "learning": 0.2,
  "evaluation": 0.1,
  "saving": 0.15,
  "commit": None,  # host 0 alone renames, just before or after
}


class PolicyHostsTest(hosts_chaos.Case):
  stage = "train_policy"
  devices = 2
  # All that an iteration hands to the next is in use, and of two hosts each
  # holds half of every parameter.
  flags = (
    "--config=configs/policy_maxmin_crowd.py:smoke",
    "--config.mesh.data=1",
    "--config.mesh.fsdp=2",
    "--config.sampling.max_new_tokens=4",
    "--config.policy.epochs=2",
    "--config.policy.minibatches=2",
    "--config.kl.controller=adaptive",
    "--config.kl.target=0.5",
    "--config.kl.horizon=100.0",
    "--config.reward.scale=standardise",
    "--config.welfare.kind=exponentiated",
    "--config.welfare.step_size=0.3",
  )

  @staticmethod
  def steps(number):
    return (f"--config.train.num_iterations={number}",)

  def test_a_host_is_killed_while_it_learns_and_one_process_agrees(self):
    flags = self.check(2, [host_runs.Kill(1, "learning", 0.05)])
    self.finish("alone", 1, *flags)
    found = {}
    for name in ("alone", "killed"):
      workdir = self.folder / name
      rows = metric_writer.read_rows(epath.Path(workdir / "metrics.jsonl"))
      weights = safetensors.numpy.load_file(workdir / "model/model.safetensors")
      found[name] = rows, weights
    (alone, params), (together, others) = found["alone"], found["killed"]
    self.assertEqual(len(alone), len(together))
    for one, two in zip(alone, together, strict=True):
      self.assertEqual(one.keys(), two.keys())
      for name, value in one.items():
        np.testing.assert_allclose(
          two[name], value, rtol=1e-4, atol=1e-5, err_msg=name
        )
    for name, value in params.items():
      np.testing.assert_allclose(others[name], value, atol=1e-5, err_msg=name)

  @pytest.mark.slow
  def test_five_kills_in_each_phase(self):
    self.check(2, hosts_chaos.kills(PHASES, 2, 5, seed=5))


if __name__ == "__main__":
  absltest.main()
