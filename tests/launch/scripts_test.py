"""launch/*.sh against an interpreter that only writes down what it is asked.

The scripts run in a copy of the checkout, so a test leaves nothing behind.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

from absl.testing import absltest, parameterized

from tests import checkout

# Answers like Python, makes environments by copying itself, logs the rest.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
  "-c import ensurepip"*) echo "${FAKE_VERSION:-3.11}" ;;
  "-c "*) ;;
  "-VV "*) echo "Python ${FAKE_VERSION:-3.11}.0 (fake)" ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *)
    echo "$*" >>"$FAKE_LOG"
    if [[ -n ${FAKE_REFUSES:-} && $* == *"$FAKE_REFUSES"* ]]; then exit 1; fi
    ;;
esac
"""


class ScriptsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.root = self.folder / "checkout"
    shutil.copytree(checkout.ROOT / "launch", self.root / "launch")
    shutil.copytree(checkout.ROOT / ".ci", self.root / ".ci")
    shutil.copy(checkout.ROOT / "setup.py", self.root)
    self.python = self.root / "python"
    self.python.write_text(FAKE_PYTHON)
    self.python.chmod(0o755)
    self.log = self.root / "log"

  def script(self, name, *arguments, code=0, **variables):
    """Runs a script from another folder; returns (asked of Python, output)."""
    self.log.write_text("")
    environment = {
      "PATH": os.environ["PATH"],
      "PYTHON": str(self.python),
      "FAKE_LOG": str(self.log),
      **variables,
    }
    done = subprocess.run(
      ["bash", self.root / name, *arguments],
      cwd="/",
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    self.assertEqual(done.returncode, code, done.stdout)
    return self.log.read_text().splitlines(), done.stdout

  def installs(self, *arguments, **variables):
    """What pip was asked to install, as its last argument."""
    asked, _ = self.script("launch/test.sh", *arguments, **variables)
    return [
      line.rpartition(" ")[2].replace(str(self.root), "")
      for line in asked
      if " pip " in line
    ]

  def test_installs_torch_first_then_the_extras_then_what_may_fail(self):
    self.assertEqual(
      self.installs(),
      ["torch==2.13.0", "[train,serve,test,lint,cloud,docs,parity]", "[tpu]"],
    )

  def test_second_run_installs_nothing(self):
    self.installs()
    self.assertEqual(self.installs(), [])

  def test_a_changed_setup_installs_again(self):
    self.installs()
    with (self.root / "setup.py").open("a") as file:
      file.write("# one more dependency\n")
    self.assertLen(self.installs(), 3)

  def test_a_moved_checkout_installs_again(self):
    self.installs()
    moved = self.folder / "moved"
    self.root = self.root.rename(moved)
    self.python, self.log = moved / "python", moved / "log"
    self.assertLen(self.installs(), 3)

  def test_without_torch_the_parity_extra_is_left_out_and_tried_again(self):
    without = ["torch==2.13.0", "[train,serve,test,lint,cloud,docs]", "[tpu]"]
    self.assertEqual(self.installs(FAKE_REFUSES="torch=="), without)
    _, output = self.script("launch/test.sh", FAKE_REFUSES="torch==")
    self.assertIn("parity tests skip by name", output)
    self.assertIn("[train,serve,test,lint,cloud,docs,parity]", self.installs())

  def test_without_libtpu_the_rest_goes_on(self):
    asked, output = self.script("launch/test.sh", FAKE_REFUSES="[tpu]")
    self.assertIn("'tpu' is not to be had here", output)
    self.assertContainsSubset(["-m mypy"], asked)

  @parameterized.parameters(
    "[train", "ruff check", "format --check", "-m mypy", "-m pytest"
  )
  def test_any_failure_fails_the_whole(self, step):
    _, output = self.script("launch/test.sh", FAKE_REFUSES=step, code=1)
    self.assertNotIn("passed on", output)

  def test_one_version_that_fails_does_not_hide_the_other(self):
    asked, output = self.script(
      "launch/test.sh",
      "--all",
      code=1,
      FAKE_REFUSES="-m pytest",
      **self.every_version(),
    )
    self.assertLen([line for line in asked if "-m pytest" in line], 3)
    self.assertLen([line for line in asked if "-m mypy" in line], 1)
    self.assertLen([line for line in asked if "torch==" in line], 1)
    self.assertIn("tests failed on Python 3.11 3.12 3.13", output)

  def every_version(self):
    """The environment of a machine with every Python that will do."""
    folder = self.root / "pythons"
    folder.mkdir()
    for version in ("3.11", "3.12", "3.13"):
      fake = folder / f"python{version}"
      fake.write_text(FAKE_PYTHON.replace(":-3.11}", f":-{version}}}"))
      fake.chmod(0o755)
    return dict(PYTHON="", PATH=f"{folder}:{os.environ['PATH']}")

  @parameterized.parameters(
    ((), ["--tier=fast"]),
    (("--tier", "slow", "--part=2/9"), ["--tier=slow --part=2/9"]),
    (("--all",), ["--tier=all"] * 3),
    (("--tier=smoke", "--second"), ["pipeline_test.py::CrowdTest"]),
  )
  def test_tiers_and_interpreters(self, arguments, ends):
    asked, _ = self.script("launch/test.sh", *arguments, **self.every_version())
    ran = [line for line in asked if "-m pytest" in line]
    self.assertLen(ran, len(ends))
    for line, end in zip(ran, ends, strict=True):
      self.assertEndsWith(line, end)

  def test_one_version_has_no_second(self):
    asked, output = self.script("launch/test.sh", "--second")
    self.assertEmpty(asked)
    self.assertIn("Python 3.11 is the only one here", output)

  def test_continuous_integration_runs_every_tier(self):
    asked, output = self.script(".ci/run", **self.every_version())
    ran = [line for line in asked if "-m pytest" in line]
    self.assertLen(ran, 3)
    self.assertEndsWith(ran[0], "--tier=fast")
    self.assertEndsWith(ran[1], "pipeline_test.py::CrowdTest")
    self.assertRegex(ran[2], r"--tier=slow --part=\d+/10$")
    self.assertIn("slow tests: part ", output)
    self.assertLen([line for line in asked if "-m mypy" in line], 1)

  def test_a_failing_tier_ends_continuous_integration(self):
    asked, _ = self.script(
      ".ci/run", code=1, FAKE_REFUSES="--tier=fast", **self.every_version()
    )
    self.assertLen([line for line in asked if "-m pytest" in line], 1)

  def test_arguments_reach_pytest(self):
    asked, _ = self.script("launch/test.sh", "-k", "loss and not slow")
    self.assertEndsWith(asked[-1], "-k loss and not slow")

  def test_local_run_shares_the_environment_and_only_adds(self):
    self.installs()
    asked, output = self.script("launch/local.sh", "--config.crowd_seed=5")
    self.assertNotIn("-m pip", " ".join(asked))
    self.assertIn("experiments.pipeline", asked[0])
    self.assertEndsWith(asked[0], "--config.crowd_seed=5")
    self.assertIn("report.html", output)

  def test_a_gpu_adds_its_extra_and_forgets_no_other(self):
    self.installs()
    smi = self.root / "gpu" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/usr/bin/env bash\n")
    smi.chmod(0o755)
    asked, _ = self.script(
      "launch/local.sh", PATH=f"{smi.parent}:{os.environ['PATH']}"
    )
    self.assertTrue(any(line.endswith("[cuda]") for line in asked))
    self.assertEqual(self.installs(), [])

  def test_local_run_writes_where_it_is_told(self):
    asked, _ = self.script("launch/local.sh", WORKDIR="gs://bucket/run")
    self.assertIn("--workdir=gs://bucket/run", asked[-1])

  def test_hardware_check_runs_where_and_what_it_is_told(self):
    asked, _ = self.script(
      "launch/hardware_check.sh",
      *("--steps=9", "--config.seed=1"),
      WORKDIR="runs/x",
      CONFIG="configs/rm_bt_hh.py:smoke",
    )
    self.assertEqual(
      asked[-1],
      "-m jaxalign.experiments.hardware_check "
      "--config=configs/rm_bt_hh.py:smoke "
      "--workdir=//runs/x --steps=9 --config.seed=1",
    )

  @parameterized.parameters(
    "launch/test.sh", "launch/local.sh", "launch/hardware_check.sh", ".ci/run"
  )
  def test_dry_run_does_nothing(self, name):
    asked, output = self.script(name, "--dry_run")
    self.assertEmpty(asked)
    self.assertIn("pip install", output)
    self.assertFalse((self.root / ".venv-3.11").exists())

  def test_what_dry_run_prints_can_be_pasted(self):
    _, output = self.script(
      "launch/test.sh", "--dry_run", "-k", "it's $HOME or [a b]"
    )
    self.assertIn("-k 'it'\\''s $HOME or [a b]'", output)

  @parameterized.parameters(
    (("--python", "3.9"), "must be one of 3.11 3.12 3.13, got '3.9'"),
    (("--python",), "needs a version"),
    (("--tier", "quick"), "must be fast, smoke or slow, got 'quick'"),
    (("--tier",), "--tier needs a name"),
  )
  def test_refuses(self, arguments, message):
    _, output = self.script("launch/test.sh", *arguments, code=1)
    self.assertIn(message, output)

  def test_says_when_no_python_will_do(self):
    _, output = self.script("launch/test.sh", FAKE_VERSION="3.9", code=1)
    self.assertIn("no Python 3.11 3.12 3.13", output)

  def test_help_names_every_option(self):
    for name in (
      "launch/test.sh",
      "launch/local.sh",
      "launch/hardware_check.sh",
    ):
      _, output = self.script(name, "--help")
      for option in ("--python", "--dry_run", "PYTHON"):
        self.assertIn(option, output)


if __name__ == "__main__":
  absltest.main()
