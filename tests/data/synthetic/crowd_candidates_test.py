"""Unlabelled responses of the crowd: many, different, of either split."""

from absl.testing import absltest

from jaxalign.data.synthetic import crowd, texts


class CrowdCandidatesTest(absltest.TestCase):
  def test_responses_differ_and_are_about_their_half_of_the_things(self):
    records = crowd.records_of("two_groups:test_candidates", seed=0)
    self.assertLen(records, crowd.PROMPTS)
    topics = []
    for record in records:
      self.assertLen(set(record.responses), crowd.RESPONSES)
      words = record.prompt.removesuffix("\nA:").rstrip("?.").split()
      self.assertIn(words[-1], texts.THINGS["test"])
      topics += [
        texts.qualities(record.prompt, response)[2]
        for response in record.responses
      ]
    share = sum(topic > 0 for topic in topics) / len(topics)
    self.assertBetween(share, 0.6, 0.85)

  def test_seeds_and_splits_differ_and_votes_stay(self):
    first = crowd.records_of("two_groups:test_candidates", seed=0)
    self.assertEqual(
      first, crowd.records_of("two_groups:test_candidates", seed=0)
    )
    self.assertNotEqual(
      first, crowd.records_of("two_groups:test_candidates", seed=1)
    )
    other = crowd.records_of("two_groups:train_candidates", seed=0)
    self.assertEmpty({r.prompt for r in first} & {r.prompt for r in other})

  def test_an_unknown_split_is_still_refused(self):
    for split in ("dev_candidates", "test_candidates5", "_candidates"):
      with self.assertRaisesRegex(ValueError, "split"):
        crowd.records_of(f"two_groups:{split}", seed=0)


if __name__ == "__main__":
  absltest.main()
