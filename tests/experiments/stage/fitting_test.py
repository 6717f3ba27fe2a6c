"""What the loop asks of its batches before the first step."""

from absl.testing import absltest

from jaxalign.experiments.stage import fitting
from tests.data import batches_test


class FingerprintTest(absltest.TestCase):
  def test_all_processes_have_the_same_and_other_data_another(self):
    make, data = batches_test.make, batches_test.dataset
    first = fitting.fingerprint(make(process_count=2))
    self.assertEqual(
      fitting.fingerprint(make(process_count=2, process_index=1)), first
    )
    for other in (make(data(seed=1)), make(seed=1), make(batch_size=2)):
      self.assertNotEqual(fitting.fingerprint(other), first)


if __name__ == "__main__":
  absltest.main()
