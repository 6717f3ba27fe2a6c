"""Columns of one record that imply or contradict each other."""

from absl.testing import absltest, parameterized

from jaxalign.data.records import record


class TogetherTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, {}),
    ({"votes_chosen": 2, "votes_rejected": 1}, {}),
    ({"votes_chosen": 2, "n_votes": 5}, {"votes_rejected": 3}),
    (
      {"votes_chosen": 2, "votes_tie": 1, "n_votes": 5},
      {"votes_rejected": 2},
    ),
  )
  def test_implies_the_votes_left_over(self, given, expected):
    self.assertEqual(record.implied_votes(given, 2), expected)

  @parameterized.parameters(
    ({"tie": False}, 3, "tie belongs to a pair, got 3 responses"),
    ({"tie": True, "chosen_prob": 0.6}, 2, "chosen_prob is 0.6, not 0.5"),
    ({"votes_tie": 1}, 2, "votes_tie is given without votes_chosen"),
    ({"votes_chosen": 1}, 2, "needs votes_rejected or n_votes"),
    ({"votes_chosen": 0, "votes_rejected": 0}, 2, "are all 0"),
    ({"votes_chosen": 3, "n_votes": 2}, 2, "votes sum to 3, more than"),
  )
  def test_notices_votes_that_contradict(self, given, number, message):
    with self.assertRaisesRegex(ValueError, message):
      record.implied_votes(given, number)

  def test_distributions_have_one_form(self):
    votes = ((1, 3), (2, 2))
    shares = record.shares_of(votes)
    self.assertEqual(shares, ((0.25, 0.75), (0.5, 0.5)))
    record.check_classes({"labels": shares, "label_votes": votes})
    with self.assertRaisesRegex(ValueError, "got 2 x 2 and 1 x 2"):
      record.check_classes({"labels": shares, "label_votes": votes[:1]})

  def test_a_prompt_alone_has_names_only(self):
    record.check_alone({"prompt": "Q", "group": "g", "id": "i"})
    for name in record.OF_RESPONSES:
      with self.assertRaisesRegex(ValueError, f"{name} belongs to responses"):
        record.check_alone({"prompt": "Q", name: 1})


if __name__ == "__main__":
  absltest.main()
