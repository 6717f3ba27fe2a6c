"""Tests leave nothing behind in the machine's folder of temporary files."""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from tests import temporary

MAKE = "import tempfile; print(tempfile.mkdtemp())"


class TemporaryTest(absltest.TestCase):
  def test_this_session_has_its_own_folder(self):
    for path in (tempfile.mkdtemp(), os.environ["TMPDIR"]):
      self.assertIn(temporary.PREFIX, path)

  def test_all_goes_with_the_folder(self):
    before = tempfile.gettempdir(), os.environ["TMPDIR"]
    with temporary.folder() as folder:
      own = tempfile.mkdtemp()
      of_another = subprocess.run(
        [sys.executable, "-c", MAKE], check=True, capture_output=True, text=True
      ).stdout.strip()
      for made in (own, of_another):
        self.assertEqual(str(pathlib.Path(made).parent), folder)
        (pathlib.Path(made) / "file").write_text("kept open by nobody")
    self.assertFalse(os.path.exists(folder))
    self.assertEqual((tempfile.gettempdir(), os.environ["TMPDIR"]), before)

  def test_it_goes_after_an_error(self):
    with self.assertRaises(KeyError), temporary.folder() as folder:
      raise KeyError
    self.assertFalse(os.path.exists(folder))


if __name__ == "__main__":
  absltest.main()
