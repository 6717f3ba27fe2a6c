"""What launch/tpu_vm.sh refuses, and what it prints where it is to do nothing.

No name that a shell, a cloud or a template could misread goes any further.
"""

import shlex

from absl.testing import absltest, parameterized

from tests.launch import fakes
from tests.launch.tpu_vm_test import NAMES, QUICK, SLICE, STAGE


class TpuOptionsTest(fakes.LaunchTestCase):
  def vm(self, command, *arguments, code=0):
    """Runs a command; returns what it printed."""
    return self.script(
      "tpu_vm.sh", command, *NAMES, *QUICK, *arguments, code=code
    )

  @parameterized.parameters(
    "create", "setup", "run", "supervise", "logs", "stop", "status", "delete"
  )
  def test_dry_run_asks_nothing(self, command):
    stage = STAGE if command in ("run", "supervise") else ()
    keep = ("--keep",) if command == "supervise" else ()
    output = self.vm(command, *SLICE, *keep, "--dry_run", *stage)
    self.assertEqual(self.calls(), [])
    self.assertIn("+ gcloud compute tpus", output)

  def test_dry_run_prints_what_would_be_run(self):
    dry = self.vm("supervise", *SLICE, "--delete_after", "--dry_run", *STAGE)
    self.vm("supervise", *SLICE, "--delete_after", *STAGE)
    printed = [
      shlex.split(line)[2:]
      for line in dry.splitlines()
      if line.startswith("+ gcloud ")
    ]
    # The state is asked for as often as it takes; the archive has a new name.
    same = lambda calls: [
      [word for word in call if not word.endswith(".tar.gz")]
      for call in calls
      if "describe" not in call
    ]
    ran = [call["argv"] for call in self.calls("gcloud")]
    self.assertEqual(same(printed), same(ran))

  @parameterized.parameters(
    ("--name=My Pod", "--name must be 1 to 40"),
    ("--name=pod;rm -rf", "--name must be"),
    ("--name=pod\nx", "--name must be"),
    ("--name=-pod", "--name must be"),
    ("--project=it's", "--project must be a project id"),
    ("--zone=us-west4", "--zone must be a zone such as us-west4-a"),
    ("--topology=v5e:4x4x4", "--topology must be a TPU and the chips per axis"),
    ("--topology=v9:4x4", "--topology must be"),
    ("--wait_hours=soon", "--wait_hours must be a whole number"),
    ("--service_account=$(id)", "--service_account must be an e-mail"),
    ("--network=a b", "--network must be"),
    ("--runtime=x;y", "--runtime must be"),
    ("--run_name=../x", "--run_name must be"),
    ("--reserved", "not both"),
    ("--nonsense=1", "unknown option '--nonsense=1'"),
    ("nonsense", "unknown argument 'nonsense'"),
    ("--name", "--name needs a value"),
  )
  def test_refuses(self, argument, message):
    output = self.vm("create", *SLICE, argument, code=1)
    self.assertIn(message, output)
    self.assertEqual(self.calls(), [])

  @parameterized.parameters(
    ((), "say what to run"),
    (("no_such_stage",), "there is no stage 'no_such_stage'"),
    (("../x",), "a stage is a module"),
    (("train_reward", "--workdir=runs/x"), "--workdir must be in an object"),
    (("train_reward", "--workdir=gs://b/x", "a\nb"), "control characters"),
  )
  def test_refuses_stages(self, stage, message):
    output = self.vm("run", *SLICE, "--", *stage, code=1)
    self.assertIn(message, output)
    self.assertEqual(self.calls(), [])

  def test_help_names_every_option(self):
    output = self.script("tpu_vm.sh", "--help")
    for option in ("--spot", "--delete_after", "--dry_run", "--max_restarts"):
      self.assertIn(option, output)
    self.assertIn(
      "a command is create, setup", self.script("tpu_vm.sh", code=1)
    )


if __name__ == "__main__":
  absltest.main()
