"""What the loop asks of its batches before the first step."""

import gc
import tempfile
import weakref
from unittest import mock

import jax.numpy as jnp
from absl.testing import absltest
from etils import epath

from jaxalign.experiments.common import loop
from tests.data.batching import loader_test


class FingerprintTest(absltest.TestCase):
  def test_all_processes_have_the_same_and_other_data_another(self):
    make, data = loader_test.make, loader_test.dataset
    first = loop.fingerprint(make(process_count=2))
    self.assertEqual(
      loop.fingerprint(make(process_count=2, process_index=1)), first
    )
    for other in (make(data(seed=1)), make(seed=1), make(batch_size=2)):
      self.assertNotEqual(loop.fingerprint(other), first)


class RememberingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.calls = []

    def score(params):
      self.calls.append(float(params["w"][0]))
      return len(self.calls)

    self.remembered = loop.remembering(score)

  def test_the_same_parameters_are_scored_once(self):
    one, other = {"w": jnp.ones(2)}, {"w": jnp.zeros(2)}
    self.assertEqual([self.remembered(one) for _ in range(3)], [1, 1, 1])
    self.assertEqual(self.remembered({**one}), 1)
    self.assertEqual([self.remembered(other), self.remembered(one)], [2, 3])
    self.assertEqual(self.calls, [1.0, 0.0, 1.0])

  def test_equal_values_are_not_the_same_parameters(self):
    self.remembered({"w": jnp.ones(2)})
    self.assertEqual(self.remembered({"w": jnp.ones(2)}), 2)

  def test_parameters_are_not_kept_alive(self):
    leaf = jnp.ones(2)
    gone = weakref.ref(leaf)
    self.remembered({"w": leaf})
    del leaf
    gc.collect()
    self.assertIsNone(gone())


class CheckRowsTest(absltest.TestCase):
  def test_a_run_goes_on_with_the_rows_that_it_began_with(self):
    make = loader_test.make
    workdir = epath.Path(tempfile.mkdtemp())
    loop.check_rows(make(), workdir, 0)
    loop.check_rows(make(process_count=2, process_index=1), workdir, 4)
    (left,) = workdir.iterdir()
    before = left.read_bytes()
    saved = mock.Mock(latest=lambda: 4)
    with self.assertRaisesRegex(ValueError, "training data read otherwise"):
      loop.fit(  # before it looks at anything else
        None,
        make(loader_test.dataset(seed=1)),
        None,
        saved,
        workdir,
        seed=0,
        prefetch=0,
      )
    self.assertEqual(left.read_bytes(), before)


if __name__ == "__main__":
  absltest.main()
