"""Checkpoints in a store that Orbax cannot write to, as in one that it can."""

import os
import tempfile
from unittest import mock

import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import checkpoint, filesystem
from tests import object_store
from tests.runtime.io import checkpoint_test


class MirrorTest(checkpoint_test.CheckpointsTest):
  """The same in s3://, where an index says which checkpoints there are."""

  def setUp(self):
    super().setUp()
    self.store = object_store.install()
    self.folder = epath.Path("s3://bucket/run/checkpoints")

  def steps(self):
    names = self.store.find("s3://bucket/run/checkpoints")
    return {name.split("/checkpoints/")[1].split("/")[0] for name in names}

  def test_orbax_cannot_write_there_itself(self):
    # It gets as far as its first save. Once it gets further, nothing need be
    # copied.
    self.addCleanup(os.chdir, os.getcwd())
    os.chdir(tempfile.mkdtemp())  # what it writes is below s3: in there
    with (
      self.assertRaisesRegex(ValueError, "Checkpoint path should be absolute"),
      ocp.CheckpointManager(self.folder) as manager,
    ):
      manager.save(1, args=ocp.args.StandardSave({"a": jnp.ones(2)}))
      manager.wait_until_finished()

  def test_keeps_the_last_and_the_best(self):
    super().test_keeps_the_last_and_the_best()
    self.assertEqual(self.steps(), {"2", "4", "5", checkpoint.INDEX})

  def test_a_step_is_there_when_save_returns(self):
    with self.open() as saved:
      saved.save(1, checkpoint_test.state(1), None)
      with self.open() as other:
        self.assertEqual(other.latest(), 1)

  def test_half_written_step_is_ignored_and_replaced(self):
    killed = self.open()
    killed.save(1, checkpoint_test.state(1), None)
    with (
      mock.patch.object(filesystem, "write_atomically", side_effect=OSError),
      self.assertRaises(OSError),
    ):
      killed.save(2, checkpoint_test.state(5), None)
    killed._mirror.close()
    self.assertEqual(self.steps(), {"1", "2", checkpoint.INDEX})
    with self.open() as saved:
      self.assertEqual(saved.latest(), 1)
      saved.save(2, checkpoint_test.state(2), None)
      self.assert_trees_equal(
        saved.restore(2, checkpoint_test.laid_out(self.mesh)),
        checkpoint_test.state(2),
      )
    with self.open() as saved:
      self.assertEqual(saved.latest(), 2)
      self.assert_trees_equal(
        saved.restore(2, checkpoint_test.laid_out(self.mesh)),
        checkpoint_test.state(2),
      )

  def test_what_was_half_removed_goes_next_time(self):
    with self.open(keep_last=1, keep_best=0) as saved:
      saved.save(1, checkpoint_test.state(1), None)
      with (
        mock.patch.object(type(self.folder), "rmtree", side_effect=OSError),
        self.assertRaises(OSError),
      ):
        saved.save(2, checkpoint_test.state(2), None)
    self.assertEqual(self.steps(), {"1", "2", checkpoint.INDEX})
    with self.open(keep_last=1, keep_best=0) as saved:
      self.assertEqual(saved.latest(), 2)
      saved.save(3, checkpoint_test.state(3), None)
    self.assertEqual(self.steps(), {"3", checkpoint.INDEX})

  def test_nothing_stays_on_the_disk(self):
    with self.open() as saved:
      saved.save(1, checkpoint_test.state(1), None)
      local = saved._mirror.local
      self.assertTrue(local.exists())
    self.assertFalse(local.exists())


if __name__ == "__main__":
  absltest.main()
