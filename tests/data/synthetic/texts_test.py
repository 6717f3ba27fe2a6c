"""The text world: short texts whose qualities can be read off them."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.synthetic import texts as textworld

PROMPT = "Q: How do I clean boots?\nA:"


class QualitiesTest(parameterized.TestCase):
  @parameterized.parameters(
    # (response, warmth, brevity, topic)
    (" Wipe the boots.", -1, 1, 1),
    (" Hard to say.", -1, 1, -1),
    (" Happy to help! Wipe the boots.", 0, 10 / 24, 1),
    (" Happy to help! Wipe the boots. Enjoy!", 1, 3 / 24, 1),
    # Spamming does not pay, and neither does silence.
    (" Enjoy! Enjoy! Enjoy! Enjoy!", 1, 13 / 24, -1),
    ("", -1, 1, -1),
    ("boots" * 40, -1, -1, 1),
  )
  def test_by_hand(self, response, *expected):
    np.testing.assert_allclose(
      textworld.qualities(PROMPT, response), expected, rtol=1e-12
    )

  def test_any_text_has_qualities(self):
    self.assertTrue(np.isfinite(textworld.qualities("", "☕")).all())


class DrawTest(absltest.TestCase):
  def draw(self, split, num=2000):
    rng = np.random.default_rng(0)
    return [textworld.draw_pair(rng, split) for _ in range(num)]

  def test_texts_are_short_various_and_different(self):
    pairs = self.draw("train")
    self.assertLessEqual(max(len(p.encode()) for p, _, _ in pairs), 40)
    responses = [text for _, *texts in pairs for text in texts]
    self.assertLessEqual(max(len(r.encode()) for r in responses), 64)
    self.assertGreater(len(set(responses)), 2000)
    self.assertTrue(all(first != second for _, first, second in pairs))

  def test_splits_share_neither_prompt_nor_pair(self):
    train, test = self.draw("train"), self.draw("test")
    self.assertEmpty({p for p, _, _ in train} & {p for p, _, _ in test})
    self.assertEmpty(
      set(textworld.THINGS["train"]) & set(textworld.THINGS["test"])
    )

  def test_qualities_vary_on_their_own(self):
    values = np.array(
      [textworld.qualities(p, r) for p, *rs in self.draw("train") for r in rs]
    )
    correlation = np.corrcoef(values.T)
    # Warm words take room, so warmth costs brevity; no more than that.
    self.assertBetween(correlation[0, 1], -0.8, -0.4)
    self.assertTrue((values.std(axis=0) > 0.3).all())


if __name__ == "__main__":
  absltest.main()
