"""launch/Containerfile: what it copies is there, and enough to install."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from absl.testing import absltest

from tests import checkout


def steps() -> list[tuple[str, str]]:
  """(instruction, rest of the line), in order."""
  text = (checkout.ROOT / "launch/Containerfile").read_text()
  return re.findall(r"^([A-Z]+) +(.*)$", text, re.M)


def copied(step: str) -> list[str]:
  return step.split()[:-1]


class ContainerTest(absltest.TestCase):
  def test_every_source_is_in_the_checkout(self):
    sources = [
      s for name, step in steps() if name == "COPY" for s in copied(step)
    ]
    self.assertContainsSubset(["jaxalign", "configs", "launch"], sources)
    for source in sources:
      self.assertTrue((checkout.ROOT / source).exists(), source)

  def test_the_files_before_the_installation_are_all_that_setup_reads(self):
    with tempfile.TemporaryDirectory() as folder:
      for name, step in steps():
        if name == "RUN":
          break
        if name == "COPY":
          for source in copied(step):
            target = pathlib.Path(folder) / source
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout.ROOT / source, target)
      done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=folder,
        capture_output=True,
        text=True,
      )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stdout, r"^\d+\.\d+")

  def test_its_extras_and_its_python_are_in_setup(self):
    setup = (checkout.ROOT / "setup.py").read_text()
    text = (checkout.ROOT / "launch/Containerfile").read_text()
    (extras,) = re.findall(r'"\.\[(.*)\]"', text)
    default = re.search(r"^ARG EXTRA=(\w+)", text, re.M)[1]
    for extra in [*extras.replace("${EXTRA}", default).split(","), "cuda"]:
      self.assertIn(f'"{extra}": ', setup)
    version = re.search(r"^ARG PYTHON=(.*)$", text, re.M)[1]
    self.assertIn(f":: {version}", setup)


if __name__ == "__main__":
  absltest.main()
