"""What an iteration logs."""

from absl.testing import absltest

from jaxalign.experiments.policies import rollouts


class RolloutsTest(absltest.TestCase):
  def test_a_kl_that_is_none_is_left_out(self):
    logged = {"train/kl/a": 1.0, "train/kl/b": float("nan"), "train/kl": 2.0}
    self.assertEqual(
      rollouts.measured(3, logged), (3, {"train/kl/a": 1.0, "train/kl": 2.0})
    )

  def test_what_went_wrong_is_kept(self):
    _, kept = rollouts.measured(1, {"train/kl": float("nan")})
    self.assertIn("train/kl", kept)


if __name__ == "__main__":
  absltest.main()
