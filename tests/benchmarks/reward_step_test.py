"""Tests of `reward_step`: its batch is what the built step takes."""

import jax
import numpy as np
from absl.testing import absltest

from jaxalign.experiments import train_reward
from jaxalign.runtime.distributed import mesh as meshes
from tests.benchmarks import reward_step


class RewardStepTest(absltest.TestCase):
  def test_batch_is_what_the_step_takes(self):
    mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
    built = train_reward.build(reward_step.config(1), mesh)
    rows = reward_step.rows(built.batch)
    self.assertEqual(set(rows), set(built.batch))
    for name, column in built.batch.items():
      self.assertEqual(rows[name].shape, column.shape, name)
      self.assertEqual(rows[name].dtype, column.dtype, name)
    self.assertTrue(np.all(rows["mask"]))
    self.assertLen(np.unique(rows["row"]), reward_step.PAIRS)


if __name__ == "__main__":
  absltest.main()
