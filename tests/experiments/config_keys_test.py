"""Every key of a config has a reader, found by running the stage.

The run is as short as its keys allow; values do not matter here.
"""

import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.experiments import configuration, train_reward
from tests import config_reads, configs_test


class ConfigKeysTest(absltest.TestCase):
  def test_train_reward_reads_every_key(self):
    config = configs_test.get_config_of("configs/rm_bt_crowd.py")("smoke")
    config.optimizer.warmup_steps = 1
    config.train.update(num_steps=2, eval_every=1, checkpoint_every=1)
    config.eval.num_samples = 2
    config = configuration.to_dataclass(train_reward.Config, config)
    workdir = epath.Path(self.enter_context(tempfile.TemporaryDirectory()))
    with config_reads.recorded(config) as unread:
      train_reward.run(config, workdir, profile=False)
    self.assertEmpty(unread)


if __name__ == "__main__":
  absltest.main()
