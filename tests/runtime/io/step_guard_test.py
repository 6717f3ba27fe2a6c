"""What stops a run and what counts its compilations."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from jaxalign.runtime.io import step_guard


class TraceCounterTest(absltest.TestCase):
  def test_counts_shapes_not_calls(self):
    counter = step_guard.TraceCounter(lambda x: x + 1)
    step = jax.jit(counter)
    for length in (4, 8, 4, 8, 8):
      step(jnp.zeros(length))
    self.assertEqual(counter.count, 2)


class StepGuardTest(absltest.TestCase):
  def metrics(self, bad_steps, loss=1.0):
    return {
      "train/loss": jnp.float32(loss),
      "train/bad_steps": jnp.int32(bad_steps),
    }

  def test_gives_out_the_step_before(self):
    guard = step_guard.StepGuard(2)
    self.assertIsNone(guard.exchange(1, self.metrics(0, 0.5), [0]))
    step, values = guard.exchange(2, self.metrics(1), [1])
    self.assertEqual((step, values["train/loss"]), (1, 0.5))
    self.assertEqual(guard.flush()[0], 2)
    self.assertIsNone(guard.flush())

  def test_stops_with_step_metric_and_batch(self):
    guard = step_guard.StepGuard(2)
    guard.exchange(1, self.metrics(1, np.nan), [7])
    guard.exchange(2, self.metrics(2, np.nan), np.array([8, 9]))
    with self.assertRaisesRegex(
      step_guard.NonFiniteError,
      r"step 2: train/loss not finite, 2 steps.*\[8, 9\]",
    ):
      guard.flush()

  def test_limit_must_be_positive(self):
    with self.assertRaisesRegex(ValueError, "max_bad_steps must be >= 1"):
      step_guard.StepGuard(0)


if __name__ == "__main__":
  absltest.main()
