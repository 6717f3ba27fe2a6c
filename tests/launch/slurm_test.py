"""launch/slurm.sh and its job script against a queue that is a folder."""

from absl.testing import absltest, parameterized

from tests.launch import fakes

NAME = ("--name=hh", "--poll=0")
STAGE = ("--", "train_reward", "--config=configs/a.py", "--workdir=runs/it's a")


class SlurmTest(fakes.LaunchTestCase):
  def slurm(self, verb, *arguments, code=0):
    return self.script("slurm.sh", verb, *NAME, *arguments, code=code)

  def asked(self):
    return [call["tool"] for call in self.calls()]

  def test_submit_makes_the_environment_and_queues_the_job(self):
    self.slurm(
      "submit", "--nodes=2", "--gpus_per_node=4", "--partition=gpu", *STAGE
    )
    self.assertEqual(self.asked(), ["squeue", "sbatch"])
    (call,) = self.calls("sbatch")
    root = str(self.root)
    self.assertEqual(
      call["argv"],
      [
        *("--parsable", "--job-name=hh", "--nodes=2", "--ntasks-per-node=4"),
        *("--time=240", "--signal=TERM@180", "--requeue", "--open-mode=append"),
        f"--chdir={root}",
        f"--output={root}/runs/slurm/hh.log",
        *("--gpus-per-node=4", "--partition=gpu"),
        f"{root}/launch/slurm_job.sh",
        f"{root}/.venv-3.11/bin/python",
        *("20", "75", *STAGE[1:]),
      ],
    )
    self.assertIn("[cuda]", (self.fakes / "python").read_text())

  def test_a_job_that_is_queued_is_left_as_it_is(self):
    self.slurm("submit", *STAGE)
    output = self.slurm("submit", *STAGE)
    self.assertEqual(self.asked().count("sbatch"), 1)
    self.assertIn("in the queue already: 41 RUNNING", output)

  def test_without_gpus_there_is_one_process_per_node(self):
    self.slurm("submit", "--gpus_per_node=0", *STAGE)
    argv = self.calls("sbatch")[0]["argv"]
    self.assertIn("--ntasks-per-node=1", argv)
    self.assertNotIn("gpus", " ".join(argv))

  @parameterized.parameters(
    ("COMPLETED\n", 0), ("COMPLETED\nTIMEOUT\n", 1), ("", 1)
  )
  def test_run_ends_as_the_job_does(self, states, code):
    self.plan(
      {"tool": "squeue", "has": ["--name=hh"], "skip": 2, "code": 0},
      {"tool": "sacct", "has": ["hh"], "code": 0, "stdout": states},
    )
    self.slurm("run", *STAGE, code=code)
    self.assertEqual(
      self.asked(), ["squeue", "sbatch", "squeue", "squeue", "sacct"]
    )

  def test_a_refused_job_is_an_error(self):
    self.plan({"tool": "sbatch", "has": [], "code": 1})
    self.assertIn("sbatch did not take hh", self.slurm("run", *STAGE, code=1))

  def test_a_queue_that_does_not_answer_is_an_error(self):
    self.plan({"tool": "squeue", "has": [], "code": 1})
    self.slurm("submit", *STAGE, code=1)
    self.assertEqual(self.asked(), ["squeue"])

  def test_cancel_twice(self):
    self.slurm("submit", *STAGE)
    self.slurm("cancel")
    self.assertEqual(self.calls("scancel")[0]["argv"], ["--me", "--name=hh"])
    self.keep("queue", {})
    self.slurm("cancel")
    self.assertLen(self.calls("scancel"), 1)

  @parameterized.parameters("submit", "wait", "run", "status", "logs", "cancel")
  def test_dry_run_asks_nothing(self, verb):
    output = self.slurm(verb, "--dry_run", *STAGE)
    self.assertEqual(self.calls(), [])
    self.assertFalse((self.root / "runs").exists())
    self.assertIn("+ ", output)

  @parameterized.parameters(
    ("--name=a b", "--name must be"),
    ("--partition=a;b", "--partition must be"),
    ("--account=$(id)", "--account must be"),
    ("--nodes=0", "--nodes must be at least 1"),
    ("--nodes=two", "--nodes must be a whole number"),
    ("--grace=99999", "must be less than --time=240 minutes"),
    ("--python=3.9", "must be one of 3.11 3.12 3.13"),
  )
  def test_refuses(self, argument, message):
    self.assertIn(message, self.slurm("submit", argument, *STAGE, code=1))
    self.assertEqual(self.calls(), [])


class JobTest(fakes.LaunchTestCase):
  def job(self, *, code, **variables):
    self.environment |= {"SLURM_JOB_ID": "41", **variables}
    return self.script(
      "slurm_job.sh",
      *(str(self.python), "2", "75", *STAGE[1:]),
      code=code,
    )

  def requeued(self):
    return [call["argv"] for call in self.calls("scontrol")]

  def test_runs_the_stage_in_every_task(self):
    self.job(code=0, SLURM_NTASKS="8")
    (call,) = self.calls("srun")
    self.assertEqual(
      call["argv"],
      [
        *("--kill-on-bad-exit=0", "--wait=120", str(self.python), "-m"),
        "jaxalign.experiments.train_reward",
        *(*STAGE[2:], "--coordinator=auto"),
      ],
    )
    self.assertEqual(self.requeued(), [])

  def test_one_task_needs_no_coordinator(self):
    self.job(code=0)
    self.assertNotIn("--coordinator", self.stages()[0])

  def test_queues_again_what_has_saved(self):
    self.turns("home", "75")
    self.job(code=75)
    self.assertEqual(self.requeued(), [["requeue", "41"]])

  def test_a_failure_is_not_queued_again(self):
    self.turns("home", "1")
    self.job(code=1)
    self.assertEqual(self.requeued(), [])

  def test_restarts_have_an_end(self):
    self.turns("home", "75")
    output = self.job(code=75, SLURM_RESTART_COUNT="2")
    self.assertEqual(self.requeued(), [])
    self.assertIn("restarted 2 times already", output)


if __name__ == "__main__":
  absltest.main()
