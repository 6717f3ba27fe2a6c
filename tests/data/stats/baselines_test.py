"""Baselines by hand, and against the table that comes with the real data."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records import reader
from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines
from tests.data import real_data


def pair(chosen, rejected, **columns):
  return Record(prompt="Q", responses=(chosen, rejected), **columns)


class LengthTest(absltest.TestCase):
  def test_longer_wins_and_ties_are_half(self):
    records = [pair("aaa", "b"), pair("a", "bbb"), pair("a", "b")]
    self.assertEqual(baselines.always_longer_accuracy(records), 0.5)
    self.assertEqual(baselines.always_longer_accuracy(records[:1]), 1.0)


class BagOfWordsTest(absltest.TestCase):
  def test_reaches_the_minimum_of_its_loss(self):
    rng = np.random.default_rng(0)
    words = "red green blue dark light"
    records = [
      pair(
        *(" ".join(rng.choice(words.split(), 3)) for _ in range(2)),
        chosen_prob=float(rng.random()),
      )
      for _ in range(40)
    ]
    bag = baselines.BagOfWords.fit(records, l2=0.5, num_steps=300)

    def loss(weights):
      gaps = baselines.BagOfWords(weights).gaps(records)
      target = np.array([record.target_prob for record in records])
      nll = np.logaddexp(0, -gaps) * target + np.logaddexp(0, gaps) * (
        1 - target
      )
      return nll.sum() + 0.25 * (weights**2).sum()

    at_minimum = loss(bag.weights)
    seen = np.flatnonzero(bag.weights)
    for _ in range(20):
      step = np.zeros_like(bag.weights)
      step[seen] = rng.normal(size=len(seen)) * 1e-3
      self.assertGreater(loss(bag.weights + step), at_minimum)

  def test_word_order_counts_and_length_does_not(self):
    records = [pair("not bad", "bad not"), pair("good", "poor")] * 9
    bag = baselines.BagOfWords.fit(records)
    self.assertEqual(bag.accuracy([pair("not bad", "bad not")]), 1.0)
    self.assertEqual(bag.accuracy([pair("unseen", "words")]), 0.5)
    # Unit length: repeating oneself changes the direction, not the size.
    once = bag.gaps([pair("good", "")])
    twice = bag.gaps([pair("good good", "")])
    self.assertLess(twice[0], once[0])

  def test_a_tie_pulls_nowhere(self):
    bag = baselines.BagOfWords.fit([pair("good", "poor", tie=True)])
    np.testing.assert_array_equal(bag.weights, 0.0)

  def test_the_same_in_every_process(self):
    bag = baselines.BagOfWords.fit([pair("good", "poor")])
    # crc32("good") and crc32("poor") modulo 2**18.
    self.assertEqual(
      sorted(np.flatnonzero(bag.weights).tolist()),
      sorted([0x6C844E92 % 2**18, 0x559E94E5 % 2**18]),
    )


class RealDataTest(parameterized.TestCase):
  @parameterized.parameters(
    # (folder, always longer, bag of words) of the folder's own table
    ("humour", 0.643, 0.744),
    ("hh_helpful", 0.602, 0.604),
    ("hh_harmless", 0.462, 0.638),
  )
  def test_near_the_published_table(self, name, longer, bag_of_words):
    folder = real_data.folder(name)
    train, test = (
      reader.read_records([f"{folder}/pairs_{split}.jsonl.gz"])[0]
      for split in ("train", "test")
    )
    self.assertAlmostEqual(
      baselines.always_longer_accuracy(test), longer, delta=6e-4
    )
    bag = baselines.BagOfWords.fit(train)
    self.assertAlmostEqual(bag.accuracy(test), bag_of_words, delta=0.015)


if __name__ == "__main__":
  absltest.main()
