"""Dealing rows out to micro-batches, and adding up over them."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.algorithms import update


class MicroBatchesTest(absltest.TestCase):
  def test_rows_are_dealt_in_turn(self):
    batch = {"x": jnp.arange(12.0).reshape(6, 2), "row": jnp.arange(6)}
    dealt = update.micro_batches(batch, 3)
    np.testing.assert_array_equal(dealt["row"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(dealt["x"][1], [[2.0, 3.0], [8.0, 9.0]])

  def test_an_uneven_number_is_refused(self):
    with self.assertRaisesRegex(ValueError, "6 rows and accumulation 4"):
      update.micro_batches({"row": jnp.arange(6)}, 4)


class SumOverTest(absltest.TestCase):
  def test_adds_every_leaf_in_its_own_type(self):
    batches = update.micro_batches({"x": jnp.arange(8.0)}, 4)
    function = lambda b: (jnp.sum(b["x"] ** 2), {"n": jnp.int32(b["x"].size)})
    total, counts = jax.jit(lambda b: update.sum_over(function, b))(batches)
    self.assertEqual(float(total), sum(i**2 for i in range(8)))
    self.assertEqual(int(counts["n"]), 8)
    self.assertEqual(counts["n"].dtype, jnp.int32)


if __name__ == "__main__":
  absltest.main()
