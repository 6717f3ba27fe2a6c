"""Members see all their batches, in orders of their own, side by side."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.batching import ensemble_loader, loader
from tests.data.batching import loader_test

MEMBERS = 3


def make(mixing="proportional", seeds=range(MEMBERS), **kwargs):
  return ensemble_loader.MemberBatches(
    [
      loader_test.make(seed=seed, mixing=mixing, batch_size=6, **kwargs)
      for seed in seeds
    ]
  )


class MemberBatchesTest(parameterized.TestCase):
  @parameterized.parameters(*loader.MIXINGS)
  def test_every_member_sees_every_batch_of_an_epoch_once(self, mixing):
    made = make(mixing)
    for epoch in (0, 1):
      first = epoch * len(made)
      steps = range(first, first + len(made))
      for m in range(MEMBERS):
        own = [made.member_step(m, step) for step in steps]
        self.assertCountEqual(own, steps)

  @parameterized.parameters(*loader.MIXINGS)
  def test_a_member_is_its_own_source_but_for_padding(self, mixing):
    made = make(mixing, data=loader_test.dataset(num_pairs=120))
    padded = 0
    for step in range(len(made) + 2):
      batch = made[step]
      for m, source in enumerate(made.members):
        own = source[made.member_step(m, step)]
        length = own["tokens"].shape[-1]
        for name, value in own.items():
          got = batch[name][m]
          self.assertEqual(got.dtype, value.dtype)
          if name in ("tokens", "mask"):
            got = got[..., :length]
          np.testing.assert_array_equal(got, value)
        self.assertFalse(batch["mask"][m, ..., length:].any())
        padded += batch["tokens"].shape[-1] - length
        self.assertTrue(
          (batch["tokens"][m, ..., length:] == loader_test.PAD).all()
        )
    if mixing == "sequential":
      self.assertGreater(padded, 0)

  def test_orders_differ_between_members_and_epochs(self):
    made = make()
    index = made[0]["index"]
    self.assertFalse((index[0] == index[1]).all())
    again = made[len(made)]["index"]
    self.assertFalse((index == again).all())
    np.testing.assert_array_equal(make()[0]["index"], index)

  def test_members_take_batches_of_one_length_together(self):
    data = loader_test.dataset(num_pairs=300)
    made = make(data=data)
    alone = np.stack([m.batch_lengths(0) for m in made.members])
    at = [
      [made.member_step(m, step) for step in range(len(made))]
      for m in range(MEMBERS)
    ]
    together = np.take_along_axis(alone, np.array(at), axis=1)
    # Not shortest first: the order of lengths is drawn, too.
    self.assertLess(np.diff(together[0]).min(), 0)
    padded = together.max(axis=0).sum()
    # Unsorted, all would pad to the longest at most steps.
    self.assertLess(padded, 1.05 * together.sum() / MEMBERS)
    self.assertGreater(alone.max(axis=0).sum(), 1.1 * padded)

  def test_refuses_members_that_do_not_go_together(self):
    with self.assertRaisesRegex(ValueError, r"got \[8, 12\]"):
      ensemble_loader.MemberBatches(
        [loader_test.make(batch_size=6), loader_test.make(batch_size=4)]
      )
    with self.assertRaisesRegex(ValueError, r"got \[\]"):
      make(seeds=())


if __name__ == "__main__":
  absltest.main()
