"""launch/gke.sh and launch/xpk.sh: what YAML and the tools read."""

import signal
import subprocess
import time

import yaml
from absl.testing import absltest, parameterized

from tests.launch import fakes

STAGE = ("--", "train_reward", "--config=configs/a.py", "--workdir=gs://b/run")
JOB = ("--name=hh", "--image=region-docker.pkg.dev/p/r/jaxalign:1.0")
QUICK = ("--poll=0", "--tries=3")
ODD = (
  "--config.data.train_files=('it''s @name@ $HOME `x` \"q\" \\ a: b # ü {}',)"
)


class GkeTest(fakes.LaunchTestCase):
  def gke(self, verb, *arguments, code=0):
    return self.script("gke.sh", verb, *JOB, *QUICK, *arguments, code=code)

  def render(self, *arguments):
    """The JobSet as a cluster would read it."""
    return yaml.safe_load(self.gke("render", *arguments))

  def verbs(self):
    """What kubectl was asked, in order."""
    return [call["argv"][1] for call in self.calls("kubectl")]

  @parameterized.parameters(
    ("v5e:4x4", 4, 4, "tpu-v5-lite-podslice"),
    ("v5e:2x4", 1, 8, "tpu-v5-lite-podslice"),
    ("v5e:1x1", 1, 1, "tpu-v5-lite-podslice"),
    ("v6e:16x16", 64, 4, "tpu-v6e-slice"),
    ("v4:2x2x4", 4, 4, "tpu-v4-podslice"),
    ("v5p:2x2x1", 1, 4, "tpu-v5p-slice"),
  )
  def test_asks_for_the_machines_of_the_slice(
    self, topology, hosts, chips, label
  ):
    job = self.render(f"--topology={topology}", *STAGE)
    job = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    self.assertEqual((job["parallelism"], job["completions"]), (hosts, hosts))
    (container,) = pod["containers"]
    self.assertEqual(
      container["resources"]["limits"], {"google.com/tpu": chips}
    )
    self.assertEqual(
      pod["nodeSelector"],
      {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology.partition(":")[2],
      },
    )

  def test_arguments_reach_the_stage_as_they_are(self):
    job = self.render("--topology=v5e:4x4", *STAGE, ODD)
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    self.assertEqual(
      [word.replace("$$", "$") for word in container["args"]],
      [*STAGE[2:], ODD, "--coordinator=auto"],
    )
    self.assertNotIn("$H", container["args"][2].replace("$$", ""))
    self.assertEqual(
      container["command"],
      ["python", "-m", "jaxalign.experiments.train_reward"],
    )

  def test_restarts_what_has_saved_and_ends_what_failed(self):
    job = self.render("--topology=v5e:4x4", "--max_restarts=7", *STAGE)
    policy = job["spec"]["failurePolicy"]
    self.assertEqual(policy["maxRestarts"], 7)
    self.assertEqual(
      policy["rules"],
      [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    )
    spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    disrupted, failed = spec["podFailurePolicy"]["rules"]
    self.assertEqual(disrupted["action"], "Count")
    self.assertEqual(failed["action"], "FailJob")
    self.assertEqual(failed["onExitCodes"]["operator"], "NotIn")
    self.assertIn(75, failed["onExitCodes"]["values"])
    self.assertNotIn(1, failed["onExitCodes"]["values"])
    self.assertEqual(spec["backoffLimit"], 0)
    # podFailurePolicy is refused with any other.
    self.assertEqual(spec["template"]["spec"]["restartPolicy"], "Never")

  def test_what_is_not_asked_for_is_left_out(self):
    plain = self.render("--topology=v5e:4x4", *STAGE)
    self.assertNotIn("kueue.x-k8s.io/queue-name", plain["metadata"]["labels"])
    full = self.render(
      "--topology=v5e:4x4", "--spot", "--queue=q", "--service_account=k", *STAGE
    )
    self.assertEqual(
      full["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "q"
    )
    of = lambda job: job["spec"]["replicatedJobs"][0]["template"]["spec"][
      "template"
    ]["spec"]
    self.assertNotIn("tolerations", of(plain))
    self.assertNotIn("serviceAccountName", of(plain))
    self.assertEqual(of(full)["serviceAccountName"], "k")
    self.assertEqual(
      of(full)["nodeSelector"]["cloud.google.com/gke-spot"], "true"
    )
    self.assertEqual(
      of(full)["tolerations"][0]["key"], "cloud.google.com/gke-spot"
    )

  def test_run_applies_and_waits_until_it_has_finished(self):
    self.keep("conditions", [[], ["StartupPolicyInProgress"], ["Completed"]])
    output = self.gke("run", "--topology=v5e:4x4", *STAGE)
    self.assertEqual(
      [call["argv"][1:] for call in self.calls("kubectl")],
      [
        ["apply", "--filename=-"],
        *[
          [
            "get",
            "jobset/hh",
            '--output=jsonpath={.status.conditions[?(@.status=="True")].type}',
          ]
        ]
        * 3,
      ],
    )
    self.assertIn("hh has finished", output)
    self.assertNotIn("PAID FOR", output)

  def test_a_failure_shows_the_logs(self):
    self.keep("conditions", [["Failed"]])
    self.gke("run", "--topology=v5e:4x4", "--delete_after", *STAGE, code=1)
    self.assertEqual(self.verbs(), ["apply", "get", "logs", "delete"])
    self.assertEqual(self.state("jobs"), {})

  def test_create_says_what_it_leaves(self):
    output = self.gke("create", "--topology=v5e:4x4", *STAGE)
    self.assertIn("PAID FOR", output)
    self.assertIn("launch/gke.sh delete --name=hh --namespace=default", output)

  def test_a_refused_manifest_is_an_error(self):
    self.plan({"tool": "kubectl", "has": ["apply"], "code": 1})
    output = self.gke("run", "--topology=v5e:4x4", *STAGE, code=1)
    self.assertEqual(self.verbs()[:1], ["apply"])
    self.assertIn("delete it first", output)

  def test_no_answer_is_asked_for_again(self):
    self.plan({"tool": "kubectl", "has": ["get"], "code": 1, "times": 2})
    self.gke("run", "--topology=v5e:4x4", *STAGE)
    self.plan({"tool": "kubectl", "has": ["get"], "code": 1, "times": 9})
    output = self.gke("wait", code=1)
    self.assertIn("does not say how hh stands", output)

  def test_waiting_for_nothing_is_an_error(self):
    self.assertIn("there is no JobSet hh", self.gke("wait", code=1))

  def test_interrupted_with_delete_after_it_is_deleted(self):
    self.keep("conditions", [[]])
    script = subprocess.Popen(
      [
        *("bash", self.root / "launch/gke.sh", "run", *JOB, "--poll=1"),
        *("--topology=v5e:4x4", "--delete_after", *STAGE),
      ],
      env=self.environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    while "get" not in self.verbs():
      time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    self.assertEqual(script.wait(30), 143)
    self.assertEqual(self.verbs()[-1], "delete")

  def test_delete_and_status_name_the_cluster(self):
    where = ["--context=ctx", "--namespace=team"]
    self.gke("delete", *where)
    self.gke("status", *where)
    for call in self.calls("kubectl"):
      self.assertEqual(call["argv"][:2], where)
    asked = [call["argv"][2:] for call in self.calls("kubectl")]
    self.assertEqual(asked[0], ["delete", "jobset/hh", "--ignore-not-found"])
    self.assertEqual(
      asked[-1],
      ["get", "nodes", "--selector=cloud.google.com/gke-tpu-accelerator"],
    )

  @parameterized.parameters(
    "render", "create", "wait", "run", "status", "logs", "delete"
  )
  def test_dry_run_asks_nothing(self, verb):
    output = self.gke(verb, "--topology=v5e:4x4", "--dry_run", *STAGE)
    self.assertEqual(self.calls(), [])
    self.assertIn("kubectl" if verb != "render" else "JobSet", output)

  @parameterized.parameters(
    ("--name=a b", "--name must be"),
    ("--namespace=a;b", "--namespace must be"),
    ("--image=a b", "--image must be an image"),
    ("--image=$(id)", "--image must be an image"),
    ("--service_account=a: b", "--service_account must be"),
    ("--queue=@name@", "--queue must be"),
    ("--context=a b", "--context must be"),
    ("--topology=v5e:16", "--topology must be"),
  )
  def test_refuses(self, argument, message):
    output = self.gke("create", "--topology=v5e:4x4", argument, *STAGE, code=1)
    self.assertIn(message, output)
    self.assertEqual(self.calls(), [])


class XpkTest(fakes.LaunchTestCase):
  WHERE = ("--cluster=c", "--project=my-project", "--zone=us-west4-a")

  def xpk(self, verb, *arguments, code=0):
    return self.script("xpk.sh", verb, *JOB, *self.WHERE, *arguments, code=code)

  def verbs(self):
    return [call["argv"][1] for call in self.calls("xpk")]

  def test_create_says_all_of_it(self):
    self.xpk("create", "--topology=v5e:4x4", *STAGE, ODD)
    (call,) = self.calls("xpk")
    command = call["argv"].pop(9)
    self.assertEqual(
      call["argv"],
      [
        *("workload", "create", "--workload=hh", *self.WHERE),
        *(
          "--tpu-type=v5litepod-16",
          "--num-slices=1",
          f"--docker-{JOB[1][2:]}",
        ),
        "--max-restarts=20",
        "--restart-on-exit-codes=75",
        "--termination-grace-period-seconds=120",
      ],
    )
    # A shell of the container reads it, after Kubernetes has.
    words = subprocess.run(
      [
        *(
          "bash",
          "-c",
          f"set -- {command.partition('=')[2]}".replace("$$", "$")
          + "; printf '%s\\0' \"$@\"",
        ),
      ],
      capture_output=True,
      text=True,
      check=True,
    ).stdout.split("\0")[:-1]
    self.assertEqual(
      words,
      [
        *("python", "-m", "jaxalign.experiments.train_reward", *STAGE[2:]),
        *(ODD, "--coordinator=auto"),
      ],
    )

  def test_run_ends_as_the_workload_does(self):
    self.plan(
      {"tool": "xpk", "has": ["--wait-for-job-completion=hh"], "code": 125}
    )
    self.xpk("run", "--topology=v6e:4x4", "--delete_after", *STAGE, code=125)
    self.assertEqual(self.verbs(), ["create", "list", "delete"])

  def test_one_of_that_name_is_left_as_it_is(self):
    self.plan(
      {
        "tool": "xpk",
        "has": ["create"],
        "code": 1,
        "stdout": "hh already exists, XPK will not create this workload.\n",
      }
    )
    self.xpk("run", "--topology=v6e:4x4", *STAGE)
    self.assertEqual(self.verbs(), ["create", "list"])

  def test_a_refusal_is_an_error_and_says_how_to_end_it(self):
    self.plan({"tool": "xpk", "has": ["create"], "code": 1})
    output = self.xpk("run", "--topology=v6e:4x4", *STAGE, code=1)
    self.assertEqual(self.verbs(), ["create"])
    self.assertIn("launch/xpk.sh delete --name=hh", output)

  @parameterized.parameters("create", "wait", "run", "status", "delete")
  def test_dry_run_asks_nothing(self, verb):
    output = self.xpk(verb, "--topology=v5e:4x4", "--dry_run", *STAGE)
    self.assertEqual(self.calls(), [])
    self.assertIn("+ xpk workload", output)


if __name__ == "__main__":
  absltest.main()
