"""Stages keep what they compile; importing the library changes nothing."""

import logging
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized
from jax.experimental.compilation_cache import compilation_cache as of_jax

from jaxalign.runtime import compilation_cache
from tests import checkout


class CompilationCacheTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    before = {
      name: getattr(jax.config, name)
      for name in (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
      )
    }
    for name, value in before.items():
      self.addCleanup(jax.config.update, name, value)
    jax.config.update("jax_compilation_cache_dir", None)
    # JAX opens its folder once; here each test has one, and the suite another.
    of_jax.reset_cache()
    self.addCleanup(of_jax.reset_cache)
    environment = {
      name: value
      for name, value in os.environ.items()
      if name not in (compilation_cache.VARIABLE, "JAX_COMPILATION_CACHE_DIR")
    } | {"XDG_CACHE_HOME": str(self.folder / "caches")}
    self.enter_context(mock.patch.dict(os.environ, environment, clear=True))

  def test_a_folder_of_the_users_caches_by_default(self):
    found = compilation_cache.enable()
    self.assertEqual(found, compilation_cache.default_folder())
    self.assertTrue(found.is_relative_to(self.folder / "caches" / "jaxalign"))
    self.assertEqual(jax.config.jax_compilation_cache_dir, str(found))

  def test_another_kind_of_cpu_has_another_folder(self):
    here = compilation_cache.default_folder()
    with mock.patch.object(
      pathlib.Path, "read_text", return_value="flags\t: fpu avx512_bf16\n"
    ):
      self.assertNotEqual(compilation_cache.default_folder(), here)
    self.assertEqual(compilation_cache.default_folder(), here)

  @parameterized.parameters("argument", "variable")
  def test_it_can_be_moved(self, how):
    wanted = self.folder / "elsewhere"
    if how == "argument":
      found = compilation_cache.enable(str(wanted))
    else:
      os.environ[compilation_cache.VARIABLE] = str(wanted)
      found = compilation_cache.enable()
    self.assertEqual(found, wanted)
    self.assertTrue(wanted.is_dir())

  def test_it_can_be_switched_off(self):
    self.assertIsNone(compilation_cache.enable("off"))
    os.environ[compilation_cache.VARIABLE] = "off"
    self.assertIsNone(compilation_cache.enable())
    self.assertIsNone(jax.config.jax_compilation_cache_dir)

  def test_what_jax_was_told_stays(self):
    jax.config.update("jax_compilation_cache_dir", str(self.folder / "own"))
    self.assertIsNone(compilation_cache.enable(str(self.folder / "other")))
    self.assertEqual(
      jax.config.jax_compilation_cache_dir, str(self.folder / "own")
    )

  def test_a_folder_that_cannot_be_made_is_no_error(self):
    (self.folder / "file").write_text("in the way")
    with self.assertLogs("jaxalign", logging.WARNING) as logs:
      found = compilation_cache.enable(str(self.folder / "file" / "cache"))
    self.assertIsNone(found)
    self.assertIn("compiled programs are not kept", logs.output[0])

  def test_the_oldest_programs_go_first(self):
    for age, name in enumerate(("new", "old", "oldest")):
      (self.folder / name).write_bytes(bytes(100))
      os.utime(self.folder / name, (1e9 - age, 1e9 - age))
    with mock.patch.object(compilation_cache, "MAX_BYTES", 299):
      compilation_cache.enable(str(self.folder))
    self.assertEqual([p.name for p in self.folder.iterdir()], ["new"])
    with mock.patch.object(compilation_cache, "MAX_BYTES", 100):
      compilation_cache.enable(str(self.folder))
    self.assertEqual([p.name for p in self.folder.iterdir()], ["new"])

  def test_a_second_process_finds_what_the_first_compiled(self):
    code = """
import jax, sys
from jaxalign.runtime import compilation_cache
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
compilation_cache.enable(sys.argv[1])
jax.jit(lambda x: x * 2.5 - 1)(jax.numpy.ones(3)).block_until_ready()
print(sum(name.endswith("/cache_hits") for name in found))
"""
    hits = [
      int(
        subprocess.run(
          [sys.executable, "-c", code, str(self.folder / "shared")],
          check=True,
          capture_output=True,
          text=True,
          env=os.environ | {"PYTHONPATH": str(checkout.ROOT)},
        ).stdout
      )
      for _ in range(2)
    ]
    self.assertEqual(hits[0], 0)
    self.assertGreaterEqual(hits[1], 1)

  def test_an_entry_cut_off_by_a_kill_is_compiled_again(self):
    compilation_cache.enable(str(self.folder))
    double = lambda x: x * 2.25 + 0.125
    jax.jit(double)(jnp.ones(5)).block_until_ready()
    for path in self.folder.iterdir():
      path.write_bytes(path.read_bytes()[:20])
    jax.clear_caches()
    with self.assertWarnsRegex(UserWarning, "persistent compilation cache"):
      found = jax.jit(double)(jnp.ones(5))
    self.assertEqual(found.tolist(), [2.375] * 5)


if __name__ == "__main__":
  absltest.main()
