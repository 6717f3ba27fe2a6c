"""What killed runs leave half-written goes with the next run, and only that."""

import pathlib
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.runtime.io import workdir_lock

LEFT = (
  "eval.json.123.partial",
  "train.jsonl.gz.x1y2.partial",
  "model/.model.safetensors.77.tmp",
  "checkpoints/4.orbax-checkpoint-tmp/state/a",
  "restarts/0/checkpoints/2.orbax-checkpoint-tmp/b",
)
KEPT = (
  "eval.json",
  "notes.tmp",
  "model/model.safetensors",
  "checkpoints/2/state/a",
  "answers.partial.jsonl",
)
OTHERS = ("step/.lock", "step/metrics.jsonl.5.partial")


class LeftoversTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(tempfile.mkdtemp())
    for name in (*LEFT, *KEPT, *OTHERS):
      (self.workdir / name).parent.mkdir(parents=True, exist_ok=True)
      (self.workdir / name).write_text("x")

  def names(self):
    return {
      path.relative_to(self.workdir).as_posix()
      for path in self.workdir.rglob("*")
      if path.is_file()
    }

  def test_only_they_go_and_they_are_named(self):
    with self.assertLogs("jaxalign.runtime.io.workdir_lock") as logs:
      workdir_lock.remove_leftovers(self.workdir, workdir_lock.LOCK)
    self.assertEqual(self.names(), {*KEPT, *OTHERS})
    self.assertIn("eval.json.123.partial", logs.output[0])
    with self.assertNoLogs("jaxalign.runtime.io.workdir_lock"):
      workdir_lock.remove_leftovers(self.workdir, workdir_lock.LOCK)

  def test_who_holds_a_workdir_removes_them(self):
    with workdir_lock.held(epath.Path(self.workdir), is_main=True):
      self.assertEqual(self.names(), {*KEPT, *OTHERS, workdir_lock.LOCK})


if __name__ == "__main__":
  absltest.main()
