"""A plain run of `train_reward` enters no more files than it did."""

import re
import subprocess
import sys
import types

from absl.testing import absltest

from tests import checkout, entered_files

# CONTRIBUTING.md says what keeps these numbers where they are.
WHOLE, STEP = 103, 71


def call(recorder, path, name):
  """What a profiler would see of a call."""
  code = types.SimpleNamespace(
    co_filename=str(checkout.LIBRARY / path), co_name=name, co_qualname=name
  )
  recorder(types.SimpleNamespace(f_code=code), "call", None)


class EnteredFilesTest(absltest.TestCase):
  def test_files_count_once_and_the_step_begins_with_a_record(self):
    recorder = entered_files.Recorder()
    for path, name in (
      ("ops/masked.py", "<module>"),
      ("experiments/common/cli.py", "main"),
      entered_files.BEGIN,
      ("losses/pairwise.py", "loss"),
      ("losses/pairwise.py", "other"),
      entered_files.END,
      ("experiments/evaluate.py", "run"),
    ):
      call(recorder, path, name)
    step = [entered_files.BEGIN[0], "losses/pairwise.py"]
    self.assertEqual([*recorder.step], step)
    self.assertEqual(
      [*recorder.whole],
      [
        "experiments/common/cli.py",
        *step,
        entered_files.END[0],
        "experiments/evaluate.py",
      ],
    )
    self.assertEqual(recorder.whole["losses/pairwise.py"].function, "loss")

  def test_a_plain_run(self):
    done = subprocess.run(
      [sys.executable, "-m", "tests.entered_files"],
      cwd=checkout.ROOT,
      check=True,
      capture_output=True,
      text=True,
    )
    found = [int(n) for n in re.findall(r": (\d+) files", done.stdout)]
    self.assertLen(found, 2, done.stdout)
    self.assertLessEqual(
      found[0], WHOLE, "python -m tests.entered_files --list"
    )
    self.assertLessEqual(found[1], STEP, "python -m tests.entered_files --list")
    self.assertGreater(found[1], 20)


if __name__ == "__main__":
  absltest.main()
