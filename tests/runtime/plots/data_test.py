"""Pictures of data: they are drawn, differ with the data and stand the edge."""

import io

import numpy as np
from absl.testing import absltest, parameterized
from matplotlib import image

from jaxalign.runtime.plots import data

RNG = np.random.default_rng(0)
DRAWN = {
  "spread": lambda values: data.spread(
    {"chosen": values, "rejected": 2 * values}, label="characters"
  ),
  "win_rates": lambda values: data.win_rates(
    1 + values, (values > 0.5).astype(float)
  ),
  "ranked_counts": lambda values: data.ranked_counts(
    np.ceil(100 * values), label="annotators", unit="pairs"
  ),
  "vote_shares": lambda values: data.vote_shares(values),
}


def pixels(png):
  return image.imread(io.BytesIO(png))


class FiguresTest(parameterized.TestCase):
  @parameterized.parameters(*DRAWN)
  def test_more_than_a_blank_sheet_and_the_same_every_time(self, name):
    values = RNG.random(200)
    png = DRAWN[name](values)
    self.assertGreater(pixels(png).std(), 0.03)
    self.assertEqual(DRAWN[name](values), png)
    self.assertNotEqual(DRAWN[name](values**4), png)

  @parameterized.parameters(*DRAWN)
  def test_nothing_and_one_value_are_drawn_too(self, name):
    for size in (0, 1):
      self.assertGreater(pixels(DRAWN[name](np.ones(size))).size, 0)

  def test_lengths_must_match(self):
    with self.assertRaisesRegex(ValueError, "ratio and wins must be as long"):
      data.win_rates([1.0], [1.0, 0.0])


if __name__ == "__main__":
  absltest.main()
