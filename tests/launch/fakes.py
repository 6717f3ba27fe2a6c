"""A checkout whose launch scripts meet fake tools only.

The tools are fake_tools.py under the names of gcloud, kubectl and their kin, in
a folder that comes first on PATH.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl.testing import parameterized

from tests import checkout
from tests.launch import fake_tools

TOOLS = (
  "gcloud kubectl xpk docker sbatch squeue scancel scontrol sacct srun sudo "
  "apt-get"
).split()

# Answers like Python, makes environments by copying itself and logs the rest.
# A stage ends as the next line of FAKES/turns-HOME says: with an exit code,
# "hang" for one that ends with 75 when it is told to, or "die".
FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
  "-c import ensurepip"*) echo "${FAKE_VERSION:-3.11}" ;;
  "-c "*) ;;
  "-VV "*) echo "Python ${FAKE_VERSION:-3.11}.0 (fake)" ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m jaxalign."*)
    echo "$*" >>"$FAKES/stages"
    turns=$FAKES/turns-$(basename "$HOME")
    turn=$(head -n 1 "$turns" 2>/dev/null)
    sed -i 1d "$turns" 2>/dev/null
    echo "turn ${turn:-0} of $2"
    case $turn in
      hang)
        trap 'exit 75' TERM
        while :; do sleep 0.1; done
        ;;
      die)
        kill -KILL $PPID
        exit 1
        ;;
      *) exit "${turn:-0}" ;;
    esac
    ;;
  *)
    echo "$*" >>"$FAKE_LOG"
    if [[ -n ${FAKE_REFUSES:-} && $* == *"$FAKE_REFUSES"* ]]; then exit 1; fi
    ;;
esac
"""


def write_tool(path: pathlib.Path, text: str) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)
  return path


class LaunchTestCase(parameterized.TestCase):
  """Runs launch scripts of a copied checkout against the fakes."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    ).resolve()
    self.root = self.folder / "checkout"
    for name in ("launch", "configs"):
      shutil.copytree(checkout.ROOT / name, self.root / name)
    for name in ("setup.py", "README.md", "docs/launch.md"):
      if (checkout.ROOT / name).exists():
        (self.root / name).parent.mkdir(exist_ok=True)
        shutil.copy(checkout.ROOT / name, self.root / name)
    stages = self.root / "jaxalign" / "experiments"
    stages.mkdir(parents=True)
    for name in ("train_reward", "hardware_check"):
      (stages / f"{name}.py").write_text("")
    (self.root / ".gitignore").write_text(".venv*/\nruns/\n")
    subprocess.run(["git", "init", "--quiet", self.root], check=True)
    self.fakes = self.folder / "fakes"
    self.tools = self.folder / "bin"
    code = pathlib.Path(__file__).parent / "fake_tools.py"
    for tool in TOOLS:
      write_tool(
        self.tools / tool,
        f'#!/bin/sh\nexec {sys.executable} -I -S {code} {tool} "$@"\n',
      )
    self.fakes.mkdir()
    self.python = write_tool(self.tools / "fake_python", FAKE_PYTHON)
    self.environment = {
      "PATH": f"{self.tools}:/usr/bin:/bin",
      "HOME": str(self.folder / "home"),
      "USER": "somebody",
      "PYTHON": str(self.python),
      "FAKES": str(self.fakes),
      "FAKE_LOG": str(self.fakes / "python"),
      "LANG": "C.UTF-8",
    }
    (self.folder / "home").mkdir()
    self.addCleanup(self.end_stages)

  def end_stages(self) -> None:
    """Nothing that a test left hanging on a machine outlives it."""
    for machine in self.fakes.glob("machines/*"):
      fake_tools.end_processes(machine)

  def plan(self, *rules: dict) -> None:
    """What the tools are to do out of the ordinary; see fake_tools.planned."""
    (self.fakes / "plan.json").write_text(json.dumps(rules))

  def turns(self, host: str, *turns: str) -> None:
    """How the stage ends on a host, run by run."""
    (self.fakes / f"turns-{host}").write_text("".join(f"{t}\n" for t in turns))

  def keep(self, name: str, content: object) -> None:
    """Sets a piece of the fakes' state."""
    (self.fakes / f"{name}.json").write_text(json.dumps(content))

  def state(self, name: str) -> object:
    """Reads a piece of the fakes' state, {} if nothing wrote it."""
    path = self.fakes / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}

  def calls(self, tool: str | None = None) -> list[dict]:
    """What was asked of a tool, or of all, in order."""
    path = self.fakes / "calls.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    calls = map(json.loads, lines)
    return [call for call in calls if tool in (None, call["tool"])]

  def forget(self) -> None:
    (self.fakes / "calls.jsonl").unlink(missing_ok=True)

  def stages(self) -> list[str]:
    """The stages that ran, with their arguments."""
    path = self.fakes / "stages"
    return path.read_text().splitlines() if path.exists() else []

  def script(self, name: str, *arguments: str, code: int | None = 0) -> str:
    """Runs a launch script from another folder; returns what it printed."""
    done = subprocess.run(
      ["bash", self.root / "launch" / name, *arguments],
      cwd="/",
      env=self.environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=600,
    )
    if code is not None:
      self.assertEqual(done.returncode, code, done.stdout)
    return done.stdout
