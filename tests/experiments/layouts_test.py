"""The same gradients and the same parameters, however the work is laid out."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import jax
import numpy as np
from absl.testing import absltest, parameterized

from tests import checkout
from tests.experiments import layouts


class LayoutsTest(parameterized.TestCase):
  expected = None

  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    if LayoutsTest.expected is None:
      LayoutsTest.expected = layouts.train("one device")

  def assert_same(self, result):
    gradient = layouts.relative(result, self.expected, "gradient")
    self.assertLess(gradient, 1e-10)
    travelled = layouts.relative(result, self.expected, "end", "start")
    self.assertLess(travelled, 1e-6)

  @parameterized.parameters(
    *(name for name in layouts.LAYOUTS if name != "one device")
  )
  def test_same_as_one_device(self, layout):
    self.assert_same(layouts.train(layout))

  def test_training_moves_the_loss(self):
    self.assertLess(float(self.expected["loss"]), 0.6)

  def test_a_gradient_eight_times_too_large_is_seen(self):
    wrong = layouts.train("one device", scale=8.0)
    gradient = layouts.relative(wrong, self.expected, "gradient")
    np.testing.assert_allclose(gradient, 7.0, rtol=1e-6)
    with self.assertRaises(AssertionError):
      self.assert_same(wrong)

  def test_two_processes_of_four_devices(self):
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{probe.getsockname()[1]}"
    path = pathlib.Path(tempfile.mkdtemp()) / "result.npz"
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    workers = [
      subprocess.Popen(
        [
          sys.executable,
          "-m",
          "tests.experiments.layouts",
          address,
          "2",
          str(process),
          str(path),
        ],
        cwd=checkout.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for process in range(2)
    ]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    self.assertEqual(
      [worker.returncode for worker in workers], [0, 0], "\n".join(outputs)
    )
    self.assert_same(dict(np.load(path)))


if __name__ == "__main__":
  absltest.main()
