"""launch/Containerfile: its sources are there, its packages pinned."""

import json
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import pytest
from absl.testing import absltest
from packaging import requirements, utils

from tests import checkout


def steps() -> list[tuple[str, str]]:
  """(instruction, rest of the line), in order."""
  text = (checkout.ROOT / "launch/Containerfile").read_text()
  return re.findall(r"^([A-Z]+) +(.*)$", text.replace("\\\n", ""), re.M)


def defaults() -> dict[str, str]:
  """Arguments of the build by name."""
  return dict(step.split("=") for name, step in steps() if name == "ARG")


def pins() -> dict[str, str]:
  """Version by the name of a package."""
  text = (checkout.ROOT / "launch/constraints.txt").read_text()
  lines = [line for line in text.splitlines() if not line.startswith("#")]
  return dict(line.split("==") for line in lines)


def extras() -> dict[str, list[str]]:
  """Requirements by extra, the core's as \"\"."""
  with mock.patch("setuptools.setup") as setup:
    runpy.run_path(str(checkout.ROOT / "setup.py"))
  given = setup.call_args.kwargs
  return given["extras_require"] | {"": given["install_requires"]}


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
    (command,) = [step for name, step in steps() if name == "RUN"]
    named = re.search(r'"\.\[(.*)\]"', command)[1].split(",")
    self.assertContainsSubset(["train", "${EXTRA}"], named)
    self.assertContainsSubset({*named} - {"${EXTRA}"}, extras())
    self.assertIn(defaults()["EXTRA"], extras())
    version = defaults()["PYTHON"]
    self.assertRegex(version, r"^3\.\d+\.\d+$")
    self.assertIn(f":: {version.rpartition('.')[0]}", setup)

  def test_every_requirement_has_a_pin_that_it_allows(self):
    pinned = pins()
    for extra in ("", "train", "serve", "cloud", "tpu", "cuda"):
      for text in extras()[extra]:
        one = requirements.Requirement(text)
        version = pinned[utils.canonicalize_name(one.name)]
        self.assertTrue(one.specifier.contains(version), f"{text}: {version}")

  @pytest.mark.slow
  def test_its_command_would_install_the_pins(self):
    python = subprocess.run(
      ["bash", "-c", 'source launch/environment.sh; find_python "$0"']
      + [defaults()["PYTHON"].rpartition(".")[0]],
      cwd=checkout.ROOT,
      capture_output=True,
      text=True,
    ).stdout.strip()
    if not python:
      self.skipTest(f"no Python {defaults()['PYTHON']} to install with")
    (command,) = [step for name, step in steps() if name == "RUN"]
    # Without libtpu, which has hundreds of megabytes and says nothing here.
    command = command.replace(",${EXTRA}", "").partition(" install ")[2]
    with tempfile.TemporaryDirectory() as folder:
      report = pathlib.Path(folder) / "report.json"
      subprocess.run(
        f"{python} -m pip install --quiet --dry-run --ignore-installed "
        f"--report={report} {command}",
        shell=True,
        cwd=checkout.ROOT,
        check=True,
        capture_output=True,
      )
      found = json.loads(report.read_text())["install"]
    found = {
      utils.canonicalize_name(one["metadata"]["name"]): one["metadata"][
        "version"
      ]
      for one in found
    }
    self.assertIn("jaxalign", found)
    del found["jaxalign"]
    self.assertGreater(len(found), 80)
    self.assertEqual(found, {name: pins()[name] for name in found})


if __name__ == "__main__":
  absltest.main()
