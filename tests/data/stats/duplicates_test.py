"""Repeats, contradictions and leakage, by hand and against every two texts."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records.record import Record
from jaxalign.data.stats import duplicates


def pair(prompt, chosen, rejected, **columns):
  return Record(prompt=prompt, responses=(chosen, rejected), **columns)


def repeats(*records):
  return duplicates.find_repeats(records, similarity=0.8)


class FoldedTest(parameterized.TestCase):
  @parameterized.parameters(
    (" Hello,  World! ", "hello world"),
    ("STRASSE straße", "strasse strasse"),
    ("?!", "?!"),
    ("", ""),
  )
  def test_by_hand(self, text, expected):
    self.assertEqual(duplicates.folded(text), expected)


class RepeatsTest(absltest.TestCase):
  def test_repeated_and_contradicted(self):
    found = repeats(
      pair("Q one", "a", "b"),
      pair("q  ONE?", "A!", "b"),  # the same again
      pair("Q one", "b", "a"),  # and the other way round
      pair("Q one", "a", "c"),
      pair("Q two", "a", "b"),
    )
    self.assertEqual(found, duplicates.Repeats(2, 2, 1, 0))

  def test_people_may_disagree_but_not_with_themselves(self):
    found = repeats(
      pair("Q", "a", "b", annotator="x"),
      pair("Q", "b", "a", annotator="y"),
      pair("Q", "a", "b", annotator="y"),
    )
    self.assertEqual((found.repeated, found.contradicted), (1, 1))

  def test_almost_the_same(self):
    words = [f"w{i}" for i in range(60)]
    other = words[:-1] + ["else"]
    found = repeats(
      pair(" ".join(words), "a", "b"),
      pair(" ".join(other), "a", "b"),
      pair(" ".join(words[::-1]), "a", "b"),
    )
    self.assertEqual(found, duplicates.Repeats(3, 0, 0, 1))


class LeakageTest(absltest.TestCase):
  def test_every_kind(self):
    words = " ".join(f"w{i}" for i in range(60))
    train = [
      pair("Q one", "a", "b", annotator="x", id="1"),
      pair(f"{words} end", "c", "d", annotator="y", id="2"),
    ]
    held_out = [
      pair("q ONE", "b", "a", annotator="z", id="3"),  # the pair, reversed
      pair("Q one", "e", "f", annotator="x", id="4"),  # prompt, annotator
      pair(f"{words} END and", "g", "h", id="2"),  # near prompt, id
      pair("Q new", "C!", "i"),  # a response
      pair("Q other", "j", "k"),
    ]
    self.assertEqual(
      duplicates.find_leakage(train, held_out, similarity=0.8),
      duplicates.Leakage(
        prompts=2, near_prompts=1, responses=2, pairs=1, annotators=1, ids=1
      ),
    )

  def test_unnamed_people_are_not_one_person(self):
    found = duplicates.find_leakage(
      [pair("a", "b", "c")], [pair("d", "e", "f")], similarity=0.8
    )
    self.assertEqual(found, duplicates.Leakage(0, 0, 0, 0, 0, 0))


class NearTest(parameterized.TestCase):
  def test_finds_what_comparing_every_two_finds(self):
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(60):
      words = rng.integers(0, 5000, 40).tolist()
      texts.append(words)
      near = list(words)
      near[int(rng.integers(40))] = 9999  # three of 38 triples change
      texts.append(near)
    order = rng.permutation(len(texts))
    texts = [" ".join(f"w{w}" for w in texts[i]) for i in order]
    sets = [{" ".join(t.split()[k : k + 3]) for k in range(38)} for t in texts]
    expected = np.full(len(texts), -1)
    for i in range(len(texts)):
      for j in range(i):
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.8:
          expected[i] = j
    self.assertEqual((expected >= 0).sum(), 60)
    np.testing.assert_array_equal(
      duplicates.near_earlier(texts, similarity=0.8), expected
    )

  def test_similarity_is_a_bound(self):
    texts = ["a b c d e", "a b c d x"]  # 2 of 4 triples in common
    for similarity, expected in ((0.51, -1), (0.5, 0)):
      found = duplicates.near_earlier(texts, similarity=similarity)
      # At one half the hashes may miss it; they must never invent it.
      self.assertIn(found[1], {expected, -1})
    np.testing.assert_array_equal(
      duplicates.near_earlier(["x", "y", "x"], similarity=1.0), [-1, -1, 0]
    )

  def test_edges(self):
    self.assertEmpty(duplicates.near_earlier([], similarity=0.5))
    with self.assertRaisesRegex(ValueError, r"similarity must be in \(0, 1\]"):
      duplicates.near_earlier(["a"], similarity=0.0)


if __name__ == "__main__":
  absltest.main()
