"""Workflows, templates and hooks of the repository: each command exists."""

import importlib.util
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import yaml
from absl.testing import absltest, parameterized

from tests import checkout

GITHUB = checkout.ROOT / ".github"
MODULES = ("mypy", "pip", "pytest", "ruff", "sphinx", "venv")
THIS = pathlib.Path(__file__).name
FORMS = sorted(GITHUB.glob("ISSUE_TEMPLATE/*.yml"))


def parsed(name: str) -> dict:
  # The base loader keeps `on` and versions such as 3.10 as they are written.
  return yaml.load((checkout.ROOT / name).read_text("utf-8"), yaml.BaseLoader)


def setup_arguments() -> dict:
  with mock.patch("setuptools.setup") as setup:
    runpy.run_path(str(checkout.ROOT / "setup.py"))
  return setup.call_args.kwargs


class WorkflowTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workflow = parsed(".github/workflows/ci.yml")

  def commands(self, job):
    steps = self.workflow["jobs"][job]["steps"]
    return [step["run"] for step in steps if "run" in step]

  def all_commands(self):
    return [one for job in self.workflow["jobs"] for one in self.commands(job)]

  def test_it_lints_tests_and_builds_on_every_change(self):
    self.assertContainsSubset(
      ["lint", "fast", "wheel", "site"], self.workflow["jobs"]
    )
    self.assertContainsSubset(["push", "pull_request"], self.workflow["on"])
    self.assertEqual(self.workflow["permissions"], {"contents": "read"})

  def test_it_lints_as_the_script_does(self):
    said = subprocess.run(
      ["bash", "launch/test.sh", "--dry_run"],
      cwd=checkout.ROOT,
      check=True,
      capture_output=True,
      text=True,
    ).stdout
    wanted = re.findall(r"^\+ \S+ (-m (?:ruff|mypy).*)$", said, re.M)
    self.assertLen(wanted, 3)
    self.assertContainsSubset(
      [f"python {one}" for one in wanted], self.commands("lint")
    )

  def test_its_pythons_are_those_of_the_package(self):
    matrix = self.workflow["jobs"]["fast"]["strategy"]["matrix"]["python"]
    supported = [
      line.rpartition(" ")[2]
      for line in setup_arguments()["classifiers"]
      if re.search(r":: 3\.\d+$", line)
    ]
    self.assertEqual(matrix, supported)
    for job in self.workflow["jobs"].values():
      for step in job["steps"]:
        version = step.get("with", {}).get("python-version", "3.11")
        self.assertIn(version, [*supported, "${{ matrix.python }}"])

  def test_its_extras_modules_and_files_exist(self):
    extras = setup_arguments()["extras_require"]
    commands = self.all_commands()
    for command in commands:
      subprocess.run(["bash", "-n", "-c", command], check=True)
      for named in re.findall(r'"\.\[([\w,]+)\]"', command):
        self.assertContainsSubset(named.split(","), extras)
      for module in re.findall(r"python -m (\w+)", command):
        self.assertIn(module, MODULES)
      for word in shlex.split(command):
        if "/" in word and word.startswith(("launch", ".ci", "tests")):
          self.assertNotEmpty(list(checkout.ROOT.glob(word)), word)
    self.assertRegex("\n".join(commands), "sphinx -W .*docs")

  def test_peers_are_installed_where_their_tests_run(self):
    asks = re.compile(
      r"[ .@]needs\(\"|importorskip\(\"trl|needs (wandb|prom|rewar)|_PYTHON is"
    )
    [run] = [one for one in self.commands("peers") if "gdpo_peers" in one]
    asking = [
      checkout.relative(path)
      for path in checkout.files("tests/*_test.py")
      if asks.search(path.read_text("utf-8")) and path.name != THIS
    ]
    self.assertCountEqual(asking, re.findall(r"tests/\S+", run))

  def test_actions_have_a_version(self):
    for job in self.workflow["jobs"].values():
      for step in job["steps"]:
        self.assertLen({"uses", "run"} & {*step}, 1)
        self.assertRegex(step.get("uses", "a/b@v1"), r"^[\w./-]+@v\d+$")


class TemplatesTest(parameterized.TestCase):
  @parameterized.parameters(*(path.name for path in FORMS))
  def test_a_form_asks_and_says_what_for(self, name):
    form = parsed(f".github/ISSUE_TEMPLATE/{name}")
    if name == "config.yml":
      self.assertEqual(form, {"blank_issues_enabled": "true"})
      return
    self.assertContainsSubset(["name", "description", "body"], form)
    ids = [field["id"] for field in form["body"]]
    self.assertLen({*ids}, len(ids))
    for field in form["body"]:
      self.assertIn(field["type"], ("textarea", "input"))
      self.assertNotEmpty(field["attributes"]["label"])
    required = [f.get("validations", {}).get("required") for f in form["body"]]
    self.assertIn("true", required)

  def test_there_are_forms_for_errors_numbers_and_wishes(self):
    self.assertContainsSubset(
      ["bug.yml", "numbers.yml", "feature.yml"], [path.name for path in FORMS]
    )


class HooksTest(absltest.TestCase):
  def hooks(self):
    (local,) = parsed(".pre-commit-config.yaml")["repos"]
    self.assertEqual(local["repo"], "local")
    return {hook["id"]: hook for hook in local["hooks"]}

  def run_hook(self, hook, *files):
    entry = shlex.split(hook["entry"].replace("python", sys.executable, 1))
    return subprocess.run(
      [*entry, *files], cwd=checkout.ROOT, capture_output=True, text=True
    ).returncode

  def test_modules_and_files_exist(self):
    for hook in self.hooks().values():
      self.assertEqual(hook["language"], "system")
      for module in re.findall(r"python -m (\w+)", hook["entry"]):
        self.assertIn(module, MODULES)
      for word in shlex.split(hook["entry"]):
        if word.startswith("tests/"):
          self.assertTrue((checkout.ROOT / word).exists(), word)
      if "files" in hook:
        names = [checkout.relative(path) for path in checkout.files()]
        self.assertTrue(any(re.search(hook["files"], name) for name in names))

  @unittest.skipUnless(importlib.util.find_spec("ruff"), "needs ruff")
  def test_they_mend_what_they_can_and_notice_the_rest(self):
    hooks = self.hooks()
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    bad, worse, script = folder / "a.py", folder / "b.py", folder / "c.sh"
    bad.write_text('"""A file."""\nimport os\n\nx = {  }\n')
    self.assertEqual(self.run_hook(hooks["ruff"], bad), 0)
    self.assertEqual(self.run_hook(hooks["format"], bad), 0)
    self.assertEqual(bad.read_text(), '"""A file."""\n\nx = {}\n')
    worse.write_text("def f():\n  print(absent)\n")
    self.assertNotEqual(self.run_hook(hooks["ruff"], worse), 0)
    script.write_text("if x\n")
    good = "launch/test.sh"
    self.assertEqual(self.run_hook(hooks["bash"], good), 0)
    self.assertNotEqual(self.run_hook(hooks["bash"], script, good), 0)


if __name__ == "__main__":
  absltest.main()
