"""launch/tpu_vm.sh against a gcloud that refuses, forgets and preempts.

The fake runs what is sent to the machines, so host.sh is tested with it. What
is asserted is what gcloud was asked, in order, not what the script says.
"""

import os
import shutil
import signal
import subprocess
import time

from absl.testing import absltest, parameterized

from tests.launch import fakes

NAMES = ("--project=my-project", "--zone=us-west4-a", "--name=pod")
SLICE = ("--topology=v5p:2x2x2", "--spot")  # 2 hosts
QUICK = ("--poll=0", "--tries=3")
STAGE = (
  "--",
  "train_reward",
  "--config=configs/rm_bt_crowd.py",
  "--workdir=gs://bucket/run",
)
SETUP = ["scp", "sh", "setup"]
RUN = ["start", "wait"]


def short(call: dict) -> str:
  """A call in a word: the verb, or what was sent over ssh."""
  group, verb = call["argv"][2:4]
  if verb != "ssh":
    return f"list {group}" if verb == "list" else verb
  command = call["argv"][-1].removeprefix("--command=")
  if command.startswith("bash jaxalign/launch/host.sh "):
    return command.split(" ")[2]
  return command.split(" ")[0]


class TpuVmTest(fakes.LaunchTestCase):
  def vm(self, command, *arguments, code=0):
    """Runs a command; returns what it printed."""
    return self.script(
      "tpu_vm.sh", command, *NAMES, *QUICK, *arguments, code=code
    )

  def asked(self, *, describes=False):
    """What gcloud was asked, in order, since the last time."""
    words = [short(call) for call in self.calls("gcloud")]
    self.forget()
    return [word for word in words if describes or word != "describe"]

  def made(self):
    """A slice that is there and set up, as create and setup leave it."""
    self.keep("slices", {"pod": {"kind": "v5p-16", "states": ["ACTIVE"]}})
    for number in (0, 1):
      home = self.fakes / "machines" / f"pod-{number}" / "jaxalign"
      shutil.copytree(self.root / "launch", home / "launch")
      environment = home / ".venv-3.11"
      fakes.write_tool(environment / "bin/python", fakes.FAKE_PYTHON)
      (environment / "jaxalign.stamp").touch()

  def exists(self):
    return "pod" in self.state("slices")

  def test_create_asks_for_what_was_said(self):
    self.vm("create", *SLICE, "--wait_hours=3", "--service_account=a@b.c")
    (call,) = [c for c in self.calls() if "create" in c["argv"]]
    self.assertEqual(
      call["argv"],
      [
        *("compute", "tpus", "queued-resources", "create", "pod"),
        "--node-id=pod",
        "--accelerator-type=v5p-16",
        "--runtime-version=v2-alpha-tpuv5",
        "--valid-until-duration=3h",
        "--labels=jaxalign=launch",
        "--spot",
        "--service-account=a@b.c",
        *("--project=my-project", "--zone=us-west4-a", "--quiet"),
      ],
    )

  def test_create_waits_until_it_is_there_and_says_that_it_costs(self):
    output = self.vm("create", *SLICE)
    self.assertEqual(
      self.asked(describes=True), ["describe", "create", *["describe"] * 4]
    )
    self.assertIn("PAID FOR until deleted: pod (ACTIVE)", output)
    self.assertIn(
      "launch/tpu_vm.sh delete --project=my-project --zone=us-west4-a "
      "--name=pod",
      output,
    )

  def test_create_again_uses_what_is_there(self):
    self.vm("create", *SLICE)
    self.forget()
    self.vm("create", *SLICE)
    self.assertEqual(self.asked(), [])

  def test_create_does_not_take_another_slice_for_it(self):
    self.vm("create", *SLICE)
    output = self.vm("create", "--topology=v5e:4x4", code=1)
    self.assertIn("is there already as v5p-16", output)

  @parameterized.parameters("SUSPENDED", "FAILED")
  def test_create_replaces_what_is_dead(self, state):
    self.keep("slices", {"pod": {"kind": "v5p-16", "states": [state]}})
    self.vm("create", *SLICE)
    self.assertEqual(self.asked(), ["delete", "create"])

  def test_without_quota_nothing_is_left(self):
    self.plan(
      {
        "tool": "gcloud",
        "has": ["create"],
        "code": 1,
        "stderr": "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptible...'\n",
      }
    )
    output = self.vm("create", *SLICE, code=1)
    self.assertIn("no quota for v5p-16 in us-west4-a", output)
    self.assertNotIn("PAID", output)
    self.assertFalse(self.exists())

  def test_a_request_that_arrived_although_gcloud_failed_is_waited_for(self):
    self.keep("slices", {"pod": {"kind": "v5p-16", "states": ["ACTIVE"]}})
    self.plan(
      {
        "tool": "gcloud",
        "has": ["describe"],
        "code": 1,
        "stderr": "NOT_FOUND\n",
      }
    )
    self.vm("create", *SLICE)
    self.assertEqual(self.asked(), ["create"])

  def test_a_request_that_fails_later_is_withdrawn(self):
    self.keep("states", ["WAITING_FOR_RESOURCES", "FAILED"])
    self.vm("create", *SLICE, code=1)
    self.assertEqual(self.asked(), ["create", "delete"])
    self.assertFalse(self.exists())

  def test_a_request_that_nobody_fills_is_withdrawn(self):
    self.keep("states", ["WAITING_FOR_RESOURCES"])
    script = self.root / "launch" / "tpu_slice.sh"
    script.write_text(script.read_text().replace("* 3600 + 600", "* 0 - 1"))
    output = self.vm("create", *SLICE, code=1)
    self.assertIn("no slice within 24 hours", output)
    self.assertFalse(self.exists())

  def test_an_answer_that_fails_once_is_asked_for_again(self):
    self.plan({"tool": "gcloud", "has": ["describe"], "code": 1, "times": 2})
    self.vm("create", *SLICE)
    self.assertEqual(self.asked(), ["create"])

  def test_no_answer_is_not_taken_for_no_slice(self):
    self.plan(
      {
        "tool": "gcloud",
        "has": ["describe"],
        "code": 1,
        "times": 9,
        "stderr": "could not reach the server\n",
      }
    )
    output = self.vm("create", *SLICE, code=1)
    self.assertEqual(self.asked(), [])
    self.assertIn("could not reach the server", output)

  def test_setup_reaches_every_host(self):
    self.vm("create", *SLICE)
    self.vm("setup")
    for number in (0, 1):
      home = self.fakes / "machines" / f"pod-{number}" / "jaxalign"
      self.assertTrue((home / "launch/host.sh").exists())
      self.assertTrue((home / ".venv-3.11/bin/python").exists())
      self.assertFalse((home / ".git").exists())
    installed = (self.fakes / "python").read_text()
    self.assertIn("[train,cloud]", installed)
    self.assertIn("[tpu]", installed)

  def test_setup_tries_again_where_one_host_is_not_ready(self):
    self.vm("create", *SLICE)
    self.plan({"tool": "gcloud", "has": ["scp"], "code": 255, "times": 2})
    self.forget()
    self.vm("setup")
    self.assertEqual(self.asked(), ["scp", "scp", *SETUP])

  def test_setup_that_goes_on_failing_says_so(self):
    self.vm("create", *SLICE)
    self.plan(
      {
        "tool": "gcloud",
        "has": ["host.sh setup"],
        "code": 255,
        "times": 9,
        "stderr": "worker 1 failed with exit status 255\n",
      }
    )
    self.forget()
    output = self.vm("setup", code=1)
    self.assertEqual(self.asked(), ["scp", "sh", *["setup"] * 3])
    self.assertIn("worker 1 failed", output)
    self.assertIn("PAID FOR until deleted", output)

  def test_a_host_without_libtpu_is_refused(self):
    self.vm("create", *SLICE)
    self.environment["FAKE_REFUSES"] = "[tpu]"
    python = self.python.read_text()
    self.python.write_text(
      python.replace(
        '"-c "*) ;;', '"-c import libtpu"*) exit 1 ;;\n  "-c "*) ;;'
      )
    )
    output = self.vm("setup", code=1)
    self.assertIn("libtpu did not install", output)

  def test_run_starts_every_host_and_ends_as_it_does(self):
    self.made()
    output = self.vm("run", *SLICE, *STAGE)
    self.assertEqual(self.asked(), RUN)
    self.assertEqual(
      self.stages(),
      [
        "-m jaxalign.experiments.train_reward "
        "--config=configs/rm_bt_crowd.py --workdir=gs://bucket/run "
        "--coordinator=auto"
      ]
      * 2,
    )
    self.assertIn("PAID FOR until deleted", output)
    self.assertTrue(self.exists())

  def test_delete_after_deletes_however_it_ends(self):
    for turn, code in (("0", 0), ("75", 75), ("3", 3)):
      with self.subTest(turn):
        self.made()
        self.turns("pod-0", turn)
        self.turns("pod-1", turn)
        output = self.vm("run", *SLICE, "--delete_after", *STAGE, code=code)
        self.assertEqual(self.asked()[-1], "delete")
        self.assertFalse(self.exists())
        self.assertNotIn("PAID FOR", output)

  def test_a_failure_shows_the_log_and_stops(self):
    self.made()
    self.turns("pod-1", "3")
    output = self.vm("run", *SLICE, *STAGE, code=3)
    # A spot slice is asked for thrice, as it could have been taken away.
    self.assertEqual(self.asked(), [*RUN, "log"])
    self.assertIn("turn 3 of jaxalign", output)

  def test_one_host_that_ends_stops_the_others(self):
    self.made()
    self.turns("pod-0", "hang")
    self.turns("pod-1", "4")
    self.vm("run", *SLICE, *STAGE, code=4)
    asked = self.asked()
    self.assertEqual(asked[-2:], ["stop", "log"])
    self.assertNotIn("start", asked[1:])

  def test_arguments_reach_the_stage_as_they_are(self):
    self.made()
    odd = "--config.data.train_files=('it''s a;b $HOME `x` \"q\" \\ *.jsonl',)"
    self.vm("run", *SLICE, *STAGE, odd)
    self.assertIn(odd, self.stages()[0])

  def background(self, command, *arguments):
    """A command that is not waited for, but killed with the test."""
    script = subprocess.Popen(
      [
        *("bash", self.root / "launch/tpu_vm.sh", command, *NAMES),
        *("--poll=1", *SLICE, *arguments, *STAGE),
      ],
      env=self.environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    self.addCleanup(lambda: script.poll() is None and script.kill())
    return script

  def hanging(self, command, *arguments):
    """The same, once its stage hangs on both hosts."""
    for host in ("pod-0", "pod-1"):
      self.turns(host, "hang")
    script = self.background(command, *arguments)
    while len(self.stages()) < 2:
      time.sleep(0.05)
    return script

  def is_running(self, machine):
    run = self.fakes / "machines" / machine / "jaxalign_runs/train_reward"
    try:
      os.kill(int((run / "child").read_text()), 0)
    except ProcessLookupError:
      return False
    return True

  def test_a_run_outlives_its_follower_and_is_not_doubled(self):
    self.made()
    first = self.hanging("run")
    os.killpg(first.pid, signal.SIGTERM)  # as a terminal that is closed
    self.assertEqual(first.wait(120), 143)
    self.assertTrue(self.exists())
    for machine in ("pod-0", "pod-1"):
      self.assertTrue(self.is_running(machine))
      home = self.fakes / "machines" / machine
      start = ["bash", "jaxalign/launch/host.sh", "start", "train_reward"]
      done = subprocess.run(
        [*start, "train_reward"],
        cwd=home,
        env=self.environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
      )
      self.assertEqual(done.stdout, "train_reward is running already\n")
    self.vm("stop", code=None)
    self.assertLen(self.stages(), 2)
    self.vm("run", *SLICE, *STAGE)  # and goes on
    self.assertLen(self.stages(), 4)

  def test_a_supervisor_that_comes_back_follows_what_runs(self):
    self.made()
    first = self.hanging("run")
    os.killpg(first.pid, signal.SIGTERM)
    first.wait(120)
    self.forget()
    second = self.background("supervise", "--keep")
    while sum("describe" not in c["argv"] for c in self.calls("gcloud")) < 2:
      time.sleep(0.05)
    self.vm("stop", code=None)
    self.assertEqual(second.wait(300), 0)  # it saved, and was started again
    asked = self.asked()
    self.assertEqual(asked[:2], ["wait", "wait"])  # and nothing was copied
    self.assertEqual(asked[-6:], ["wait", *SETUP, *RUN])
    self.assertLen(self.stages(), 4)

  def test_interrupted_with_delete_after_it_is_deleted(self):
    self.made()
    script = self.hanging("run", "--delete_after")
    script.send_signal(signal.SIGTERM)
    self.assertEqual(script.wait(120), 143)
    self.assertFalse(self.exists())

  def test_supervise_from_nothing_to_a_finished_run(self):
    self.vm("supervise", *SLICE, "--delete_after", *STAGE)
    self.assertEqual(self.asked(), ["create", *SETUP, *RUN, "delete"])
    self.assertFalse(self.exists())

  def test_supervise_must_be_told_what_happens_to_the_slice(self):
    output = self.vm("supervise", *SLICE, *STAGE, code=1)
    self.assertIn("say --delete_after, or --keep", output)
    self.assertEqual(self.asked(), [])

  def test_supervise_starts_again_what_has_saved(self):
    self.turns("pod-0", "75", "0")
    self.turns("pod-1", "75", "0")
    self.vm("supervise", *SLICE, "--keep", *STAGE)
    again = ["wait", *SETUP, *RUN]  # the slice is there: it is asked first
    self.assertEqual(self.asked(), ["create", *SETUP, *RUN, *again])
    self.assertLen(self.stages(), 4)

  def test_supervise_replaces_a_slice_that_is_taken_away(self):
    self.turns("pod-0", "hang")
    self.plan(
      {
        "tool": "gcloud",
        "has": ["host.sh wait"],
        "states": {"pod": ["SUSPENDING", "SUSPENDED"]},
      }
    )
    self.vm("supervise", *SLICE, "--delete_after", *STAGE)
    self.assertEqual(
      self.asked(),
      [
        *("create", *SETUP, *RUN),
        *("delete", "create", *SETUP, *RUN),
        "delete",
      ],
    )

  def test_machines_that_die_before_the_state_says_so_are_no_failure(self):
    self.turns("pod-0", "die")
    self.turns("pod-1", "134")  # a process that lost its peer
    self.plan(
      {  # the third question after both have ended
        "tool": "gcloud",
        "has": ["describe"],
        "skip": 7,
        "states": {"pod": ["SUSPENDED"]},
      }
    )
    self.vm("supervise", *SLICE, "--delete_after", *STAGE)
    self.assertEqual(self.asked().count("create"), 2)

  def test_supervise_survives_a_slice_lost_during_setup(self):
    self.plan(
      {
        "tool": "gcloud",
        "has": ["scp"],
        "states": {"pod": ["SUSPENDED"]},
      }
    )
    self.vm("supervise", *SLICE, "--delete_after", *STAGE)
    self.assertEqual(
      self.asked(),
      ["create", "scp", "delete", "create", *SETUP, *RUN, "delete"],
    )

  def test_supervise_stops_at_a_failure(self):
    self.turns("pod-0", "1")
    self.vm("supervise", *SLICE, "--delete_after", *STAGE, code=1)
    self.assertEqual(self.asked()[-2:], ["log", "delete"])
    self.assertFalse(self.exists())

  def test_a_failure_beside_hosts_that_saved_is_a_failure(self):
    self.turns("pod-0", "75")
    self.turns("pod-1", "1")
    self.vm("supervise", *SLICE, "--delete_after", *STAGE, code=1)
    self.assertEqual(self.asked().count("start"), 1)

  def test_supervise_ends_after_so_many_restarts(self):
    for host in ("pod-0", "pod-1"):
      self.turns(host, *["75"] * 9)
    output = self.vm(
      "supervise", *SLICE, "--delete_after", "--max_restarts=2", *STAGE, code=1
    )
    self.assertLen(self.stages(), 6)
    self.assertIn("was restarted 2 times", output)
    self.assertFalse(self.exists())

  def test_a_host_that_stops_answering_is_an_error(self):
    self.made()
    self.turns("pod-0", "hang")
    self.turns("pod-1", "hang")
    self.plan(
      {"tool": "gcloud", "has": ["host.sh wait"], "code": 255, "times": 9}
    )
    output = self.vm("run", *SLICE, *STAGE, code=1)
    self.assertEqual(self.asked().count("wait"), 3)
    self.assertIn("some host of pod has not answered", output)
    self.vm("stop", code=None)

  def test_delete_is_finished_only_when_it_is_gone(self):
    self.made()
    self.plan({"tool": "gcloud", "has": ["delete"], "code": 1, "times": 2})
    self.vm("delete")
    self.assertEqual(self.asked(), ["delete"] * 3)
    self.vm("delete")
    self.assertEqual(self.asked(), [])

  def test_a_slice_that_will_not_go_is_said_to_cost(self):
    self.made()
    self.plan({"tool": "gcloud", "has": ["delete"], "code": 1, "times": 99})
    output = self.vm(
      "run", *SLICE, "--delete_after", "--tries=1", *STAGE, code=1
    )
    self.assertIn("MAY BE PAID FOR: pod", output)
    self.assertEqual(self.asked(), [*RUN, *["delete"] * 4])
    self.vm("delete", "--tries=1", code=1)

  def test_status_lists_all_that_costs(self):
    self.vm("create", *SLICE)
    self.forget()
    output = self.script("tpu_vm.sh", "status", *NAMES[:2])
    self.assertEqual(self.asked()[:2], ["list queued-resources", "list tpu-vm"])
    self.assertIn("to delete pod: launch/tpu_vm.sh delete --project=", output)


if __name__ == "__main__":
  absltest.main()
