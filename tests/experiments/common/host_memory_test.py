"""Allocator settings: when they are made, and that a run starts under them."""

import os
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.experiments.common import host_memory
from tests import checkout

SCRIPT = """
import os, sys
print(sys.argv[1:], os.getpid())
from jaxalign.experiments.common import host_memory
host_memory.start_again()
print(os.environ.get("GLIBC_TUNABLES"))
"""


class HostMemoryTest(parameterized.TestCase):
  def settings(self, environment, glibc=True, devices=()):
    with (
      mock.patch.object(host_memory, "_has_glibc", return_value=glibc),
      mock.patch.object(host_memory.glob, "glob", return_value=devices),
    ):
      return host_memory.settings(environment)

  def test_a_cpu_keeps_its_memory(self):
    expected = {"GLIBC_TUNABLES": host_memory.TUNABLES}
    self.assertEqual(self.settings({}), expected)
    self.assertEqual(self.settings({"JAXALIGN_MALLOC": "keep"}), expected)

  def test_who_decides_otherwise(self):
    self.assertEqual(self.settings({"JAXALIGN_MALLOC": "system"}), {})
    self.assertEqual(self.settings({"GLIBC_TUNABLES": ""}), {})
    self.assertEqual(self.settings({}, glibc=False), {})
    self.assertEqual(self.settings({}, devices=["/dev/nvidia0"]), {})
    with self.assertRaisesRegex(ValueError, "keep or system, got 'off'"):
      self.settings({"JAXALIGN_MALLOC": "off"})

  @parameterized.parameters(("keep", 2), ("system", 1))
  def test_a_process_starts_again_once_as_it_was(self, wish, starts):
    if not host_memory.settings({}):
      self.skipTest("another C library, or an accelerator")
    environment = {
      **os.environ,
      "JAXALIGN_MALLOC": wish,
      "PYTHONPATH": str(checkout.ROOT),
    }
    environment.pop("GLIBC_TUNABLES", None)
    said = subprocess.run(
      [sys.executable, "-u", "-c", SCRIPT, "--a=b c", "d"],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.splitlines()
    *begun, ended = said
    self.assertLen(begun, starts)
    self.assertLen(set(begun), 1)
    self.assertStartsWith(begun[0], "['--a=b c', 'd'] ")
    kept = {"keep": host_memory.TUNABLES, "system": "None"}
    self.assertEqual(ended, kept[wish])


if __name__ == "__main__":
  absltest.main()
