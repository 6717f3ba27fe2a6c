"""Self-BLEU against the formula read off the paper, text by text."""

import collections
import math
import random

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.stats import diversity

WORDS = "the a cat dog sat on mat . , and ran fast slow".split()


def drawn(seed, number, longest=12):
  rng = random.Random(seed)
  return [
    " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))
    for _ in range(number)
  ]


def bleu(words, others, order):
  """One text against all others, with n-grams counted one at a time."""
  product = 1.0
  for m in range(1, order + 1):
    grams = lambda w, m=m: [tuple(w[i : i + m]) for i in range(len(w) - m + 1)]
    own = collections.Counter(grams(words))
    matches = sum(
      min(count, max(grams(other).count(gram) for other in others))
      for gram, count in own.items()
    )
    if not matches and m == 1:
      return 0.0
    product *= (matches or 0.1) / max(sum(own.values()), 1)
  nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[
    1
  ]
  penalty = min(1.0, math.exp(1 - nearest / len(words)))
  return penalty * product ** (1 / order)


class SelfBleuTest(parameterized.TestCase):
  @parameterized.parameters(*range(8))
  def test_matches_the_formula(self, seed):
    texts = drawn(seed, 2 + seed)
    words = [text.split() for text in texts]
    expected = np.mean(
      [
        bleu(one, words[:i] + words[i + 1 :], order)
        for order in (2, 3, 4, 5)
        for i, one in enumerate(words)
      ]
    )
    self.assertAlmostEqual(diversity.self_bleu(texts), expected, places=12)

  def test_numbers_of_nltk(self):
    # nltk 3.10.4, sentence_bleu with SmoothingFunction().method1.
    texts = ["the cat sat on the mat", "the cat sat on a mat", "a dog ran"]
    self.assertAlmostEqual(
      diversity.self_bleu(texts, (2,)), 0.5097321606878891, places=12
    )
    self.assertAlmostEqual(
      diversity.self_bleu(texts), 0.39459269956311505, places=12
    )

  def test_ends_order_and_repeats(self):
    same = ["one two three four five six"] * 3
    self.assertAlmostEqual(diversity.self_bleu(same), 1.0)
    self.assertEqual(diversity.self_bleu(["a b c", "d e f"]), 0.0)
    texts = drawn(3, 6)
    self.assertAlmostEqual(
      diversity.self_bleu(texts), diversity.self_bleu(texts[::-1])
    )
    self.assertGreater(
      diversity.self_bleu([*texts, *texts]), diversity.self_bleu(texts)
    )

  def test_a_word_counts_as_often_as_another_text_has_it(self):
    # Of three a's one is in the other text, of two pairs (a, a) none.
    got = diversity.self_bleu(["a a a", "a b b"], (2,))
    first = math.sqrt(1 / 3 * 0.1 / 2)
    second = math.sqrt(1 / 3 * 0.1 / 2)
    self.assertAlmostEqual(got, (first + second) / 2)

  def test_texts_without_words_and_punctuation(self):
    self.assertEqual(diversity.self_bleu(["", "   ", "a b"]), 0.0)
    self.assertEqual(
      diversity.words_of("Don't stop, 3.5!"),
      ["Don", "'", "t", "stop", ",", "3", ".", "5", "!"],
    )

  def test_one_text_is_refused(self):
    with self.assertRaisesRegex(ValueError, "two texts or more, got 1"):
      diversity.self_bleu(["a"])


if __name__ == "__main__":
  absltest.main()
