"""Sentiment against scores worked by hand, and against what people marked."""

import math
import os
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records import reader
from jaxalign.data.synthetic import text_rewards
from tests.data import real_data

VALENCES = {"good": 1.9, "great": 3.1, "bad": -2.5, "no": -1.2}


def squashed(total: float) -> float:
  return total / math.sqrt(total * total + 15)


class CompoundTest(parameterized.TestCase):
  @parameterized.parameters(
    ("", 0.0),
    ("A table.", 0.0),
    ("Good!", 1.9),
    ("good, GREAT and bad", 1.9 + 3.1 - 2.5),
    ("goodness", 0.0),  # another word
    ("not good", -0.74 * 1.9),
    ("It isn't good.", -0.74 * 1.9),
    ("It isn’t good.", -0.74 * 1.9),
    ("never was it good", -0.74 * 1.9),  # three words before
    ("never once was it good", 1.9),  # four
    ("good? not", 1.9),  # behind it
    ("no good", -0.74 * 1.9),  # and nothing for "no" itself
    ("not bad and good", 0.74 * 2.5 - 0.74 * 1.9),
    ("not not good", -0.74 * 1.9),  # as in VADER, once is enough
  )
  def test_worked_by_hand(self, text, total):
    found = text_rewards.compound(text, VALENCES)
    self.assertAlmostEqual(found, squashed(total), places=12)

  def test_stays_below_one(self):
    self.assertBetween(
      text_rewards.compound("great " * 1000, VALENCES), 0.999, 1
    )


class LexiconTest(absltest.TestCase):
  def lexicon(self, text: str) -> str:
    path = os.path.join(tempfile.mkdtemp(), "lexicon.txt")
    with open(path, "w", encoding="utf-8") as file:
      file.write(text)
    return path

  def test_tokens_and_valences(self):
    path = self.lexicon("good\t1.9\t0.9\t[2, 2]\nodd one\t-1\ngood\t2\n")
    self.assertEqual(
      text_rewards.read_lexicon(path), {"good": 2.0, "odd one": -1.0}
    )

  def test_a_bad_line_is_named(self):
    for line in ("good 1.9", "", "good\tfine"):
      path = self.lexicon(f"bad\t-2.5\n{line}\n")
      with self.assertRaisesRegex(ValueError, f"^{path}:2: expected a token"):
        text_rewards.read_lexicon(path)


class RealTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = real_data.folder("vader_sentiment")

  def test_reviews_are_zero_and_one(self):
    (prompts, responses) = (
      [],
      [
        record.responses[0]
        for record in reader.RecordStream(
          (f"{self.folder}/snippets_train.jsonl.gz",)
        )
      ],
    )
    both = text_rewards.sentiment_and_conciseness(prompts, responses)
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(both.std(axis=0), 1, atol=1e-9)
    np.testing.assert_array_equal(
      both.T,
      [
        text_rewards.sentiment(prompts, responses),
        text_rewards.conciseness(prompts, responses),
      ],
    )
    # A character costs the same everywhere.
    costs = text_rewards.conciseness([], ["", "a" * 7, "a" * 8])
    self.assertAlmostEqual((costs[0] - costs[1]) / 7, costs[1] - costs[2])
    lengths = np.array([len(text) for text in responses])
    self.assertAlmostEqual(costs[1] - costs[2], 1 / lengths.std())

  def test_no_text_and_any_company(self):
    self.assertEqual(
      text_rewards.sentiment_and_conciseness([], []).shape, (0, 2)
    )
    texts = ["A good day.", "A bad, bad day."]
    together = text_rewards.sentiment_and_conciseness(["p", "q"], texts)
    alone = [
      text_rewards.sentiment_and_conciseness(["r"], [text])[0] for text in texts
    ]
    np.testing.assert_array_equal(together, alone)
    self.assertGreater(together[0, 0], together[1, 0])
    self.assertGreater(together[0, 1], together[1, 1])

  def test_agrees_with_people_as_far_as_published(self):
    # VADER's own r on these two is 0.42 and 0.57.
    lexicon = text_rewards.read_lexicon(
      str(self.folder / "vader_lexicon.txt.gz")
    )
    self.assertAlmostEqual(
      text_rewards.compound("good", lexicon), 0.4404, places=4
    )
    found, marks = {}, {}
    for record in reader.RecordStream(
      (f"{self.folder}/snippets_test.jsonl.gz",)
    ):
      score = text_rewards.compound(record.responses[0], lexicon)
      found.setdefault(record.group, []).append(score)
      (mark,) = record.ratings["sentiment"]
      marks.setdefault(record.group, []).append(mark)
    r = {
      group: np.corrcoef(found[group], marks[group])[0, 1] for group in found
    }
    self.assertAlmostEqual(r["movie"], 0.39, delta=0.02)
    self.assertAlmostEqual(r["amazon"], 0.56, delta=0.02)


if __name__ == "__main__":
  absltest.main()
