"""Numbers of the denoise stage against loops over pairs."""

import itertools

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.experiments.reports import denoise_numbers


def split(strength, judge=None, std=None):
  strength = np.asarray(strength, np.float32)
  number = len(strength)
  return denoise_numbers.Split(
    strength,
    np.zeros(number, np.float32) if std is None else np.asarray(std),
    np.array([0.5, 0.75]),
    np.full(number, np.nan) if judge is None else np.array(judge, np.float64),
  )


class NumbersTest(parameterized.TestCase):
  def test_published_margins(self):
    gaps = np.array(
      [
        [1.2, 0.8, 1.0, 1.4],
        [-0.5, 0.3, -0.2, 0.0],
        [0.1, -0.1, 0.3, -0.3],
        [-2.0, -1.5, -1.0, -1.5],
      ],
      np.float32,
    )  # four pairs under four models
    rewards = np.stack([gaps, np.zeros_like(gaps)], axis=1) + 3
    found = denoise_numbers.split_of(rewards, [None, 0.2, 1.0, None])
    np.testing.assert_allclose(found.strength, [1.1, -0.1, 0, -1.5], atol=1e-6)
    np.testing.assert_allclose(
      found.std, [0.2236068, 0.2915476, 0.2236068, 0.3535534], rtol=1e-5
    )
    np.testing.assert_allclose(found.accuracy, [0.5, 0.5, 0.5, 0.375])
    np.testing.assert_array_equal(found.judge_prob, [np.nan, 0.2, 1, np.nan])
    result = denoise_numbers.summarise(found, 0.5)
    # The third mean is 0 but for rounding.
    self.assertIn(result["below_0"], (0.5, 0.75))

  @parameterized.parameters(0, 1)
  def test_area_under_curve(self, seed):
    rng = np.random.default_rng(seed)
    strength = rng.integers(-4, 5, 60).astype(np.float32)  # with ties
    wrong = rng.random(60) < 0.3
    won = [
      float(a < b) + 0.5 * float(a == b)
      for a, b in itertools.product(strength[wrong], strength[~wrong])
    ]
    self.assertAlmostEqual(
      denoise_numbers.area_under_curve(strength, wrong), np.mean(won), 10
    )

  def test_no_wrong_label_has_no_curve(self):
    self.assertIsNone(
      denoise_numbers.area_under_curve(np.arange(3.0), np.zeros(3, bool))
    )

  def test_precision_and_recall_at_the_weakest_share(self):
    strength = [-3, -2, -1, 0.5, 1, 2, 3, 4, 5, 6]
    judge = [0.1, 0.9, 0.2, 0.5, 0.3, 0.8, None, 1, 1, 1]
    judge = [np.nan if p is None else p for p in judge]
    result = denoise_numbers.summarise(split(strength, judge), 0.25)["judge"]
    # 8 judged pairs; the weakest quarter are the first two of them.
    self.assertEqual(result["judged"], 8)
    self.assertAlmostEqual(result["contradicted"], 3 / 8)
    self.assertAlmostEqual(result["precision"], 1 / 2)
    self.assertAlmostEqual(result["recall"], 1 / 3)

  def test_groups_ascend_and_hold_every_pair(self):
    rng = np.random.default_rng(0)
    strength, std = rng.normal(size=200), rng.random(200)
    result = denoise_numbers.summarise(split(strength, std=std), 0.1)
    self.assertIsNone(result["judge"])
    means = [group["strength"] for group in result["groups"]]
    self.assertLen(means, 20)
    self.assertEqual(means, sorted(means))
    self.assertAlmostEqual(np.mean(means), strength.mean(), 6)
    lowest = np.argsort(strength)[:10]
    self.assertAlmostEqual(result["groups"][0]["std"], std[lowest].mean(), 6)
    self.assertAlmostEqual(result["below_0"], (strength < 0).mean())

  def test_suspects(self):
    strength = np.linspace(-1, 3, 41)
    std = np.zeros(41)
    std[[9, 11, 30]] = 1, 2, 9  # the last is far from 0
    found = denoise_numbers.suspects(split(strength, std=std), 2)
    self.assertEqual(found["suspicious"].tolist(), [0, 1])
    self.assertEqual(found["ambiguous"].tolist(), [11, 9])


if __name__ == "__main__":
  absltest.main()
