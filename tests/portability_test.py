"""What only Linux has is used in a few places, each of which does without it.

A Mac has neither /proc nor the C library's tunables, and says of the largest
memory in bytes what Linux says in kibibytes.
"""

import builtins
import os
import pathlib
import re
import resource
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.experiments.common import host_memory
from jaxalign.runtime import compilation_cache
from jaxalign.runtime.profiling import compiled
from tests import checkout

LINUX = re.compile(
  r"/proc/|/sys/|\bresource\b\.|import resource|sched_\w+affinity|\bprctl\b"
  r"|CDLL|\bmallopt|malloc_trim|posix_fa\w+|fallocate|O_DIRECT|memfd|inotify"
  r"|eventfd|/dev/shm|os\.fork\(|MADV_|TCP_USER_TIMEOUT|CS_GNU_LIBC"
)
# File -> what stands in for it elsewhere, tested below.
GUARDED = {
  "jaxalign/runtime/profiling/compiled.py": "the peak of the process",
  "jaxalign/runtime/compilation_cache.py": "system and machine alone",
  "jaxalign/experiments/common/host_memory.py": "no settings",
}


def on_a_mac(test: absltest.TestCase) -> None:
  """This process sees neither /proc nor glibc, and is told so."""
  opened, exists = builtins.open, pathlib.Path.exists

  def without_proc(path, *args, **options):
    if str(path).startswith("/proc"):
      raise FileNotFoundError(path)
    return opened(path, *args, **options)

  for place, name, value in (
    (sys, "platform", "darwin"),
    (builtins, "open", without_proc),
    (
      pathlib.Path,
      "exists",
      lambda path: not str(path).startswith("/proc") and exists(path),
    ),
    (os, "confstr", mock.Mock(side_effect=ValueError("unrecognized name"))),
    (compilation_cache.platform, "system", lambda: "Darwin"),
    (compilation_cache.platform, "machine", lambda: "arm64"),
  ):
    test.enter_context(mock.patch.object(place, name, value))


class PortabilityTest(parameterized.TestCase):
  def test_only_guarded_files_ask_linux(self):
    found = {
      checkout.relative(path)
      for path in checkout.files("jaxalign/**/*.py", "configs/*.py")
      if LINUX.search(path.read_text(encoding="utf-8"))
    }
    self.assertEqual(found, {*GUARDED})

  @parameterized.parameters(("darwin", 1), ("freebsd14", 1024))
  def test_memory_is_the_peak_in_bytes(self, system, unit):
    on_a_mac(self)
    self.enter_context(mock.patch.object(sys, "platform", system))
    usage = mock.Mock(ru_maxrss=5 << 20)
    self.enter_context(
      mock.patch.object(resource, "getrusage", lambda who: usage)
    )
    self.assertEqual(compiled.host_memory_bytes(), (5 << 20) * unit)

  def test_the_allocator_is_left_alone(self):
    on_a_mac(self)
    self.assertEqual(host_memory.settings({}), {})

  def test_a_cpu_without_a_description_has_a_folder_of_its_own(self):
    here = compilation_cache.cpu_features()
    on_a_mac(self)
    self.assertLen(compilation_cache.cpu_features(), 12)
    self.assertNotEqual(compilation_cache.cpu_features(), here)


if __name__ == "__main__":
  absltest.main()
