"""What the rows of a family table say by default."""

from absl.testing import absltest

from jaxalign.models.hf import family


class FamilyTest(absltest.TestCase):
  def test_a_field_is_required_and_written_unless_it_says_otherwise(self):
    field = family.Field("hidden_size", ("embed_dim",))
    self.assertIs(field.default, family.Required)
    self.assertFalse(field.optional)
    self.assertIsNone(field.words)

  def test_a_tensor_is_laid_out_as_ours_unless_it_says_otherwise(self):
    self.assertFalse(family.Tensor("score.weight", ("score/kernel",)).transpose)


if __name__ == "__main__":
  absltest.main()
