"""The source archive: what somebody gets who has no checkout."""

import pathlib
import subprocess
import sys
import tarfile
import tempfile

from absl.testing import absltest

from tests import checkout

TOP = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "pyproject.toml")


class SdistTest(absltest.TestCase):
  def test_it_holds_what_a_checkout_holds(self):
    made = self.enter_context(tempfile.TemporaryDirectory())
    # The list of files goes beside the archive and not into the checkout.
    subprocess.run(
      [
        sys.executable,
        "setup.py",
        "--quiet",
        "egg_info",
        f"--egg-base={made}",
        "sdist",
        f"--dist-dir={made}",
      ],
      cwd=checkout.ROOT,
      check=True,
      capture_output=True,
    )
    (archive,) = pathlib.Path(made).glob("*.tar.gz")
    with tarfile.open(archive) as tar:
      held = {name.partition("/")[2] for name in tar.getnames()}
    for folder in ("jaxalign", "configs", "docs", "launch", "tests"):
      files = [
        path.relative_to(checkout.ROOT).as_posix()
        for path in (checkout.ROOT / folder).rglob("*")
        if path.is_file()
        and path.suffix in (".py", ".md", ".json", ".jinja", ".sh", ".txt")
        and "__pycache__" not in path.parts
      ]
      self.assertNotEmpty(files)
      self.assertContainsSubset(set(files), held)
    self.assertContainsSubset({*TOP, "jaxalign/py.typed"}, held)
    self.assertFalse([name for name in held if name.endswith(".pyc")])


if __name__ == "__main__":
  absltest.main()
