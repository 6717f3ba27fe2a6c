"""Sizes that the data decides."""

from absl.testing import absltest, parameterized

from jaxalign.algorithms import group_dro, mixture, more
from jaxalign.data.batching import pair_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.reward_model import fitting, pair_recipes


def dataset(**columns):
  """Three pairs with columns that name two or three things."""
  records = [
    Record("Q", (" a", " b"), **{k: v[i] for k, v in columns.items()})
    for i in range(3)
  ]
  return pair_dataset.encode_pairs(
    records, tokenizer_files.byte_tokenizer(), max_length=16
  )


RECIPES = {
  "num_users": (
    "annotator",
    lambda n: mixture.MixtureConfig(
      "mixture", num_components=1, steps_per_round=1, num_users=n
    ),
  ),
  "num_sources": ("source", lambda n: more.MoreConfig("more", num_sources=n)),
  "num_groups": (
    "group",
    lambda n: group_dro.GroupDroConfig("group_dro", num_groups=n),
  ),
}


class RecipeSizesTest(parameterized.TestCase):
  @parameterized.parameters(*RECIPES)
  def test_counts_what_the_pairs_name(self, key):
    column, make = RECIPES[key]
    pairs = dataset(**{column: ("x", "y", "x")})
    self.assertEqual(fitting.uncounted(make(None)), [key])
    self.assertEqual(fitting.counted(make(None), pairs), make(2))
    self.assertEqual(fitting.counted(make(2), pairs), make(2))
    # A pair of a third one would take part as if it were of the second.
    with self.assertRaisesRegex(
      ValueError, f"{key} must be the number of {column}s .* got 3 and 2"
    ):
      fitting.counted(make(3), pairs)

  @parameterized.parameters("num_users", "num_groups")
  def test_pairs_that_name_nobody(self, key):
    column, make = RECIPES[key]
    with self.assertRaisesRegex(
      ValueError, f"no pair has the column '{column}"
    ):
      fitting.counted(make(None), dataset())

  def test_other_recipes_have_nothing_to_count(self):
    plain = pair_recipes.BradleyTerryConfig("bradley_terry")
    self.assertEqual(fitting.counted(plain, dataset()), plain)

  def test_what_is_not_counted_cannot_be_built(self):
    for make in (
      lambda: group_dro.group_dro(
        None, RECIPES["num_groups"][1](None), None, dropout=False
      ),
      lambda: mixture.mixture(
        None, RECIPES["num_users"][1](None), dropout=False
      ),
      lambda: more.more(
        None,
        RECIPES["num_sources"][1](None),
        None,
        batch_size=2,
        num_features=2,
        dropout=False,
      ),
    ):
      with self.assertRaisesRegex(ValueError, "counted in the training data"):
        make()


if __name__ == "__main__":
  absltest.main()
