r"""Runs stages with many command lines, at the price of one import.

    echo '[["train_reward", ["--config=FILE"]]]' | \
        python -m tests.experiments.common.command_lines

Each line runs in a fork of a process that has imported the stages and used
neither devices nor flags. The result is a JSON list of [exit status, output].
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings

from jaxalign.experiments import compile as compile_stage  # noqa: F401
from jaxalign.experiments import pipeline, serve, train_reward  # noqa: F401
from tests import checkout


def outcomes(lines: list[tuple[str, list[str]]]) -> list[tuple[int, str]]:
  """Exit status and output of stages, each with some arguments."""
  done = subprocess.run(
    [sys.executable, "-m", __name__],
    input=json.dumps(lines),
    cwd=checkout.ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise AssertionError(done.stderr)
  return [(status, text) for status, text in json.loads(done.stdout)]


def run(stage: str, arguments: list[str]) -> tuple[int, str]:
  """Exit status and output of one stage, in a fork."""
  with tempfile.TemporaryFile() as output:
    child = os.fork()
    if child == 0:
      os.dup2(output.fileno(), 1)
      os.dup2(output.fileno(), 2)
      sys.argv = [stage, *arguments]
      status = 1
      try:
        name = f"jaxalign.experiments.{stage}"
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        status = 0
      except SystemExit as end:
        status = int(end.code or 0)
      except BaseException:  # noqa: BLE001
        traceback.print_exc()
      finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    output.seek(0)
    return status, output.read().decode()


if __name__ == "__main__":
  warnings.simplefilter("ignore")  # of JAX, about forks
  found = [run(*line) for line in json.load(sys.stdin)]
  sys.stdout.write(json.dumps(found))
