"""Entropy and agreement of votes, by hand and by asking every two people."""

import itertools

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import rater_agreement, vote_entropy


class EntropyTest(parameterized.TestCase):
  @parameterized.parameters(
    ([5.0, 0.0], 0.0),
    ([2.0, 2.0], 1.0),
    ([1.0, 1.0, 1.0, 1.0], 2.0),
    ([3.0, 1.0], 0.8112781244591328),
    ([0.0, 0.0, 0.0], 0.0),
  )
  def test_by_hand(self, counts, expected):
    self.assertAlmostEqual(float(vote_entropy(np.float32(counts))), expected, 6)

  def test_matches_reference_in_any_shape(self):
    counts = np.random.default_rng(0).integers(0, 9, (4, 3, 5)).astype(float)
    p = counts / counts.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
      expected = -np.nansum(p * np.log2(p), axis=-1)
    with jax.enable_x64(True):
      got = jax.jit(vote_entropy)(counts)
      np.testing.assert_allclose(got, expected, rtol=1e-12)
      np.testing.assert_allclose(jax.vmap(vote_entropy)(counts), got)

  def test_whole_numbers_are_refused_by_name(self):
    with self.assertRaisesRegex(TypeError, "counts must be floating point"):
      vote_entropy(np.array([1, 2]))


class AgreementTest(absltest.TestCase):
  def test_equals_asking_every_two_people(self):
    rng = np.random.default_rng(1)
    votes = [rng.integers(0, 3, rng.integers(1, 8)) for _ in range(30)]
    pairs = [p for v in votes for p in itertools.combinations(v.tolist(), 2)]
    counts = np.array([np.bincount(v, minlength=3) for v in votes], np.float32)
    total, count = rater_agreement(counts)
    self.assertEqual(float(total), sum(a == b for a, b in pairs))
    self.assertEqual(float(count), len(pairs))

  def test_sums_add_up_over_batches(self):
    counts = np.float32([[3, 1], [0, 1], [2, 2]])
    whole = np.array(rater_agreement(counts))
    parts = [np.array(rater_agreement(counts[i : i + 1])) for i in range(3)]
    np.testing.assert_allclose(whole, sum(parts))
    np.testing.assert_array_equal(parts[1], 0.0)  # nobody to agree with


if __name__ == "__main__":
  absltest.main()
