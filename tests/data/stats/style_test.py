"""Style features: length by hand, words by the spectrum of their counts."""

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.record import Record
from jaxalign.data.stats import baselines, style
from jaxalign.data.synthetic import crowd


def pair(first, second):
  return Record(prompt="Q", responses=(first, second))


class StyleTest(absltest.TestCase):
  def test_length_is_a_ratio_of_mean_square_one(self):
    records = [pair("aaa", "b"), pair("c", "ddd"), pair("ee", "ff")]
    length = style.style_features(records)[:, 0]
    np.testing.assert_allclose(length, [1.5**0.5, -(1.5**0.5), 0], atol=1e-12)

  def test_swapping_responses_swaps_every_sign(self):
    records = crowd.records_of("two_groups:test", seed=0)[:200]
    swapped = [
      Record(prompt=r.prompt, responses=r.responses[::-1]) for r in records
    ]
    np.testing.assert_allclose(
      style.style_features(swapped), -style.style_features(records), atol=1e-6
    )

  def test_words_span_the_strongest_directions(self):
    records = crowd.records_of("two_groups:test", seed=0)[:100]
    matrix = baselines.gap_matrix(records)
    used = np.unique(matrix.columns)
    dense = np.zeros((100, len(used)))
    for k, column in enumerate(used):
      unit = np.zeros(baselines.NUM_FEATURES)
      unit[column] = 1.0
      dense[:, k] = matrix.times(unit)
    left, _, _ = np.linalg.svd(dense, full_matrices=False)
    features = style.style_features(records, num_words=4)[:, 1:]
    # Nearly all of the first direction is in the span of the features.
    basis, _ = np.linalg.qr(features)
    self.assertGreater(np.linalg.norm(basis.T @ left[:, 0]), 0.98)

  def test_what_is_not_there_is_zero(self):
    features = style.style_features([pair("a b", "a c")] * 3, num_words=5)
    self.assertEqual(features.shape, (3, 6))
    self.assertTrue(np.isfinite(features).all())
    np.testing.assert_array_equal(features[:, 0], 0.0)
    self.assertLessEqual((np.abs(features) > 0).any(axis=0).sum(), 1)


if __name__ == "__main__":
  absltest.main()
