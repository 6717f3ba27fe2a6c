"""Buckets against the length of a model."""

import logging

from absl.testing import absltest, parameterized

from jaxalign.runtime.reward_sources import model


class FittingTest(parameterized.TestCase):
  @parameterized.parameters(
    ((64, 128, 256, 512), 128, (64, 128), "(256, 512)"),
    ((96, 512, 160), 128, (96, 128), "(160, 512)"),
    ((256,), 128, (128,), "(256,)"),
  )
  def test_what_the_model_cannot_take_is_dropped_and_logged(
    self, buckets, limit, fitting, dropped
  ):
    with self.assertLogs("jaxalign", logging.INFO) as logs:
      found = model.fitting_buckets(buckets, limit, "my/model")
    self.assertEqual(found, fitting)
    self.assertIn(
      f"buckets {dropped} exceed the 128 positions of my/model", logs.output[0]
    )

  def test_what_fits_stays_in_silence(self):
    with self.assertNoLogs("jaxalign"):
      found = model.fitting_buckets((128, 64), 128, "my/model")
    self.assertEqual(found, (64, 128))

  @parameterized.parameters(((),), ((0, 3),))
  def test_no_length_is_an_error(self, buckets):
    with self.assertRaisesRegex(ValueError, "positive lengths, got"):
      model.fitting_buckets(buckets, 128, "my/model")


if __name__ == "__main__":
  absltest.main()
