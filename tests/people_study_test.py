"""The script of the study of people: personal parts, and the table."""

import runpy

import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.experiments.reward_model import latent_groups
from tests import checkout

SCRIPT = runpy.run_path(str(checkout.ROOT / "docs/tabulate_people.py"))


class PersonalTest(absltest.TestCase):
  def test_equals_the_minimum_over_the_part_itself(self):
    rng = np.random.default_rng(0)
    apart, gaps = rng.normal(size=(9, 4)), rng.normal(size=9)

    def cost(part):
      seen = gaps[:5] + apart[:5] @ part
      return np.logaddexp(0, -seen).sum() + part @ part / (2 * 0.7)

    part = scipy.optimize.minimize(cost, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(
      SCRIPT["personal"](gaps, apart, 5, 0.7), gaps + apart @ part, atol=1e-5
    )
    self.assertIs(SCRIPT["personal"](gaps, apart, 0, 0.7), gaps)


class FamiliesTest(parameterized.TestCase):
  @parameterized.parameters(*SCRIPT["FAMILIES"])
  def test_own_pairs_tell_what_people_differ_in(self, kind):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)).astype(np.float32)
    user = np.repeat(np.arange(40), 16)
    sides = np.array([rng.choice(60, 2, False) for _ in user])
    taste = np.where(np.arange(40) % 2, 3.0, -3.0)[user]
    swap = taste * (features[sides[:, 0]] - features[sides[:, 1]])[:, 1] < 0
    sides[swap] = sides[swap][:, ::-1]
    judged = latent_groups.Judged(
      [("Q", f" {i}") for i in range(60)], *sides.T.astype(np.int32), user,
      [f"who-{u}" for u in range(40)], [None] * 40, 0,
    )  # fmt: skip
    train = np.arange(40) >= 12
    free = latent_groups.apart(judged, 5) & ~train[user]
    probs = SCRIPT["families"](
      judged, features, train, free, np.full(4, 0.01), 1e-3, kind, 0
    )
    right = (probs > 0.5).mean(axis=1, where=free)
    self.assertLess(right[0], 0.65)
    self.assertGreater(right[-1], 0.7)
    np.testing.assert_array_equal(probs[:, train[user]], 0.5)


class TableTest(absltest.TestCase):
  def run_of(self, seed, gain):
    rng = np.random.default_rng(seed)
    number = np.full(40, 10.0)
    right = rng.binomial(7, 0.9, (len(SCRIPT["METHODS"]), 4, 40)).astype(float)
    right[1] = right[0] + 10 * gain
    return {
      "right": right, "number": number, "person": rng.permutation(60)[:40],
      "layer": 18, "ridge": 0.1, "components": 2, "variance": 1.0,
      "weights": np.array([0.6, 0.4]),
    }  # fmt: skip

  def test_a_gain_of_everybody_is_certain(self):
    found = SCRIPT["summary"]([self.run_of(seed, 0.1) for seed in range(3)])
    self.assertAlmostEqual(found["gain"][1], 0.1)
    np.testing.assert_allclose(found["gain_ends"][:, 1], 0.1)
    self.assertAlmostEqual(found["least"][1], 0.0, places=9)
    self.assertEqual(found["seeds"], 3)
    self.assertAlmostEqual(found["worst"][1] - found["worst"][0], 0.1)
    row = SCRIPT["lines"]({"town": found})[-1]
    self.assertIn("+0.100 [+0.100, +0.100]", row)

  def test_no_gain_is_inside_its_interval(self):
    runs = [self.run_of(seed, 0.0) for seed in range(5)]
    rng = np.random.default_rng(9)
    for run in runs:
      run["right"][2] = np.nan  # no published groups
      run["right"][1] = rng.permuted(run["right"][0], axis=1)
    found = SCRIPT["summary"](runs)
    low, high = found["gain_ends"][:, 1]
    self.assertBetween(0.0, low, high)
    self.assertGreater(found["least"][1], 0.0)
    self.assertIn("| – |", SCRIPT["lines"]({"town": found})[-1])


if __name__ == "__main__":
  absltest.main()
