"""The command `jaxalign`: what it says before a stage is chosen, and after."""

import ast
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

import jaxalign
from jaxalign import __main__ as command
from jaxalign.experiments.common import shipped_configs
from tests import checkout


def run(*arguments, core_alone=False, path=checkout.ROOT):
  """Exit status and output; without any package where the core is alone."""
  done = subprocess.run(
    [sys.executable, *(["-S"] if core_alone else []), "-m", "jaxalign"]
    + [*arguments],
    cwd="/",
    env=os.environ | {"PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout + done.stderr


class MainTest(parameterized.TestCase):
  def test_the_version(self):
    for core_alone in (False, True):
      said = run("--version", core_alone=core_alone)
      self.assertEqual(said, (0, f"jaxalign {jaxalign.__version__}\n"))

  @parameterized.parameters((["--help"],), ([],))
  def test_help_has_a_line_for_every_stage(self, arguments):
    status, said = run(*arguments, core_alone=True)
    self.assertEqual(status, 0, said)
    stages = [
      path.stem
      for path in checkout.files("jaxalign/experiments/*.py")
      if path.parent == checkout.LIBRARY / "experiments"
      and path.stem != "__init__"
    ]
    for stage in stages:
      self.assertRegex(said, rf"(?m)^  {stage} +[A-Z].*[.?]$")
    text = (checkout.LIBRARY / "experiments/score.py").read_text("utf-8")
    question = ast.get_docstring(ast.parse(text)).partition("\n")[0]
    self.assertRegex(said, rf"(?m)^  score +{re.escape(question)}$")

  def test_configs_with_their_question_stage_and_variants(self):
    status, said = run("configs", core_alone=True)
    self.assertEqual(status, 0, said)
    self.assertIn(
      "configs/rm_bt_hh.py\n  What can a very small reward model learn of "
      "helpful and harmless at once?\n  train_reward: full, pretrained, smok",
      said,
    )
    found = re.findall(r"^configs/(\w+)\.py$", said, re.M)
    names = [path.stem for path in checkout.files("configs/*.py")]
    # All but those that another file has under a size.
    self.assertEqual({*names} - {*found}, ALIAS)
    self.assertIn("opt_2_7b, opt_6_7b, llama_7b, opt_2_7b,full", said)

  def test_nothing_heavy_is_loaded_to_help(self):
    for arguments in ("--help", "--version", "configs", "score --help"):
      code = f"""
import runpy, sys
sys.argv = ["jaxalign", *{arguments.split()!r}]
try:
  runpy.run_module("jaxalign", run_name="__main__")
except SystemExit as end:
  heavy = [m for m in ("jax", "numpy", "absl", "transformers") if
           m in sys.modules]
  sys.stderr.write(repr((end.code, heavy)))
"""
      done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout.ROOT,
        capture_output=True,
        text=True,
        check=True,
      )
      self.assertEqual(done.stderr, "(0, [])")

  @parameterized.parameters(
    ("train_reward", r"train_reward needs the extra train: pip install "),
    ("serve", r"'jaxalign\[train,serve\]' \(missing: .*starlette, uvicorn\)"),
    ("verify", r"'jaxalign\[train,parity\]' \(missing: absl, .*, torch\)"),
  )
  def test_the_core_alone_names_the_extra(self, stage, message):
    status, said = run(stage, "--help", core_alone=True)
    self.assertEqual(status, 2)
    self.assertRegex(said, rf"^error: .*{message}")
    self.assertEqual(said.count("\n"), 1)

  def test_an_unknown_stage(self):
    status, said = run("train_rewards", core_alone=True)
    self.assertEqual(status, 2)
    self.assertEqual(
      said,
      "error: there is no stage train_rewards; did you mean train_reward?\n",
    )

  def test_a_stage_runs_as_its_module_does(self):
    argv = ["jaxalign", "score", "--config=a", "--workdir=b"]
    with (
      mock.patch.object(sys, "argv", argv),
      mock.patch.object(runpy, "run_module") as module,
    ):
      self.assertEqual(command.main(), 0)
    module.assert_called_once_with(
      "jaxalign.experiments.score", run_name="__main__", alter_sys=True
    )
    self.assertEqual(argv, ["jaxalign", "--config=a", "--workdir=b"])

  def test_a_stage_starts_in_a_process_that_keeps_its_memory(self):
    with (
      mock.patch.object(command.host_memory, "start_again") as again,
      mock.patch.object(command, "main", return_value=7),
    ):
      for argv, times in (("score", 1), ("--help", 1), ("configs", 1)):
        with mock.patch.object(sys, "argv", ["jaxalign", argv]):
          self.assertEqual(command.command(), 7)
        self.assertEqual(again.call_count, times)
      again.side_effect = ValueError("no")
      with mock.patch.object(sys, "argv", ["jaxalign", "score"]):
        self.assertEqual(command.command(), 2)
    setup = (checkout.ROOT / "setup.py").read_text()
    self.assertIn('"jaxalign=jaxalign.__main__:command"', setup)

  def test_extras_are_those_of_setup(self):
    setup = (checkout.ROOT / "setup.py").read_text()
    listed = re.search(r"^TRAIN = \[(.*?)^\]", setup, re.M | re.S).group(1)
    wanted = re.findall(r'^  "([\w-]+)', listed, re.M)
    names = {"absl-py": "absl", "orbax-checkpoint": "orbax"}
    self.assertCountEqual(
      [names.get(name, name.replace("-", "_")) for name in wanted],
      command.EXTRAS["train"],
    )
    for extra in ("serve", "parity"):
      for name in command.EXTRAS[extra]:
        self.assertRegex(setup, rf'"{extra}": \[.*"{name}>=')

  def test_a_built_package_brings_its_configs(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    subprocess.run(
      [sys.executable, "setup.py", "-q"]
      + ["egg_info", "--egg-base", folder]
      + ["build_py", "--build-lib", folder],
      cwd=checkout.ROOT,
      check=True,
      capture_output=True,
    )
    helped = run("score", "--help", path=folder)
    self.assertEqual(helped[0], 0, helped[1])
    self.assertIn("\nmodel: str, required\n", helped[1])
    inside = pathlib.Path(folder, "jaxalign/configs")
    self.assertTrue((inside / "personas.json").exists())
    status, said = run("configs", core_alone=True, path=folder)
    self.assertEqual(status, 0, said)
    self.assertEqual(said, run("configs", core_alone=True)[1])

  def test_an_installation_without_configs(self):
    with mock.patch.object(shipped_configs, "folder", return_value=None):
      self.assertEqual(command.configs_text(), "\n")


ALIAS = {
  "rm_dprm_llama_7b",
  "rm_dprm_opt_2_7b",
  "rm_dprm_opt_6_7b",
  "rm_more_pythia_1_4b",
  "rm_more_pythia_2_8b",
}


if __name__ == "__main__":
  absltest.main()
