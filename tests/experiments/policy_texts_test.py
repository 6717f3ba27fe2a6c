"""A policy run with texts beside, a critic that warms up, truncated samples."""

import functools
import tempfile
from unittest import mock

from absl.testing import absltest
from etils import epath

from jaxalign.experiments import train_policy
from jaxalign.experiments.reports import policy
from jaxalign.runtime.io import metric_writer
from tests import config_reads
from tests.experiments import interrupted, train_policy_test


class PolicyTextsTest(absltest.TestCase):
  def run_in(self, config, workdir=None):
    workdir = epath.Path(workdir or tempfile.mkdtemp())
    with mock.patch.object(policy, "write"):  # pictures take seconds
      train_policy.run(config, workdir)
    return workdir

  def test_texts_warm_up_and_truncation_are_resumed_bit_for_bit(self):
    config = train_policy_test.smoke_config(
      texts=dict(files=("synthetic:two_groups:train",), length=64),
      policy__text_coef=0.5,
      critic__warmup_iterations=2,
      sampling__top_k=20,
      sampling__top_p=0.9,
      sampling__truncated_loss=True,
      data__eval_files=(),
    )
    run = functools.partial(self.run_in, config)
    with config_reads.recorded(config) as unread:
      straight = run()
    self.assertEmpty(
      [n for n in unread if n.startswith(("texts.", "sampling.to", "critic.w"))]
    )
    rows = metric_writer.read_rows(straight / "metrics.jsonl")
    rows = [row for row in rows if "train/loss" in row]
    self.assertEqual([row["train/warming"] for row in rows], [1, 1, 0, 0])
    # A policy that stays has the ratio 1 to what its answers are drawn from.
    for row in rows[:2]:
      self.assertEqual(row["train/clip_fraction"], 0.0)
      self.assertLess(abs(row["train/approx_kl"]), 1e-6)
      self.assertGreater(row["train/kl"], 0.0)  # the reference is whole
    self.assertGreater(rows[3]["train/approx_kl"], rows[1]["train/approx_kl"])
    self.assertNotEqual(rows[0]["train/text_nll"], rows[1]["train/text_nll"])
    interrupted.assert_resumes(
      self,
      run,
      straight,
      ("metrics.jsonl", "model/model.safetensors"),
      step=3,
    )


if __name__ == "__main__":
  absltest.main()
