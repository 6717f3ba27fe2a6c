"""Documented commands find their config from any folder."""

import contextlib
import os
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.experiments.common import shipped_configs
from tests import checkout


class FindTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.folder = pathlib.Path(folder)
    self.enter_context(contextlib.chdir(folder))

  @parameterized.parameters("configs/audit.py", "audit.py", "audit")
  def test_a_shipped_config_is_found_from_anywhere(self, path):
    found = shipped_configs.find(path)
    self.assertEqual(found, os.fspath(checkout.ROOT / "configs/audit.py"))

  def test_what_lies_beside_the_configs_is_found_as_well(self):
    for path in ("configs/personas.json", "personas.json"):
      found = shipped_configs.find(path)
      self.assertEqual(
        found, os.fspath(checkout.ROOT / "configs/personas.json")
      )

  def test_a_file_of_that_name_goes_first(self):
    (self.folder / "configs").mkdir()
    for path in ("configs/audit.py", "audit.py"):
      (self.folder / path).write_text("own = True\n")
      self.assertEqual(shipped_configs.find(path), path)

  @parameterized.parameters(
    "configs/none.py", "none", "mine/audit.py", "/audit.py", "../audit.py"
  )
  def test_what_is_not_shipped_stays_as_it_is(self, path):
    self.assertEqual(shipped_configs.find(path), path)

  def test_an_installation_without_configs(self):
    with absltest.mock.patch.object(shipped_configs, "FOLDERS", ()):
      self.assertIsNone(shipped_configs.folder())
      self.assertEqual(shipped_configs.find("audit.py"), "audit.py")


class TextTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.path = pathlib.Path(folder, "a.py")

  def test_what_a_config_says_of_itself_without_running_it(self):
    self.path.write_text(
      '"""What is it?\n\npython -m jaxalign.experiments.sft --config=a.py"""\n'
      "import absent\n"
      'VARIANTS = ("full", "smoke")\nSIZES = ("small", "large")\n'
      "other = absent\n"
    )
    self.assertEqual(shipped_configs.question(self.path), "What is it?")
    self.assertEqual(shipped_configs.stage(self.path), "sft")
    sizes = ["small", "large"]
    both = ["small,full", "small,smoke", "large,full", "large,smoke"]
    self.assertEqual(
      shipped_configs.variants(self.path), ["full", "smoke", *sizes, *both]
    )

  def test_a_file_that_says_nothing(self):
    self.path.write_text("x = 1\n")
    self.assertEqual(shipped_configs.question(self.path), "")
    self.assertIsNone(shipped_configs.stage(self.path))
    self.assertEqual(shipped_configs.variants(self.path), [])


if __name__ == "__main__":
  absltest.main()
