"""Pictures of strengths are pictures, whatever they are given."""

from absl.testing import absltest

from jaxalign.runtime.plots import rewards


class AgainstStrengthTest(absltest.TestCase):
  def test_draws_groups_and_nothing(self):
    empty = rewards.against_strength([], [], label="spread")
    full = rewards.against_strength(
      [-1.0, 0.0, 2.0], [0.2, 0.5, 0.9], label="agrees", level=0.5
    )
    for png in (empty, full):
      self.assertStartsWith(png, b"\x89PNG")
    self.assertNotEqual(empty, full)

  def test_refuses_other_lengths(self):
    with self.assertRaisesRegex(ValueError, "as long, got .2,. and .1,."):
      rewards.against_strength([0.0, 1.0], [1.0], label="x")


if __name__ == "__main__":
  absltest.main()
