"""docs/launch.md followed literally, from nothing to finished runs."""

import re
import subprocess

from absl.testing import absltest

from tests import checkout
from tests.launch import fakes

BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)


def words(call: dict) -> str:
  return " ".join([call["tool"], *call["argv"]])


class PageTest(fakes.LaunchTestCase):
  def follow(self):
    """Executes all blocks in one shell, as a reader would; its output."""
    page = (checkout.ROOT / "docs/launch.md").read_text()
    blocks = "".join(block[1] for block in BLOCK.finditer(page))
    # Waiting is the one thing that is not done as written.
    for script in ("tpu_vm", "gke", "slurm"):
      path = self.root / "launch" / f"{script}.sh"
      path.write_text(path.read_text().replace(" poll=30", " poll=0"))
    # The readers' python, and the one that the scripts find.
    for name in ("python", "python3", "python3.11"):
      fakes.write_tool(self.tools / name, fakes.FAKE_PYTHON)
    del self.environment["PYTHON"]
    self.plan(
      {"tool": "squeue", "has": ["--noheader"], "skip": 1, "code": 0},
      {"tool": "sacct", "has": ["State"], "code": 0, "stdout": "COMPLETED\n"},
      # During the supervised run the slice is taken away.
      {
        "tool": "gcloud",
        "has": ["host.sh wait train_reward"],
        "skip": 1,
        "states": {"first": ["SUSPENDED"]},
      },
    )
    done = subprocess.run(
      ["bash", "-euo", "pipefail", "-c", blocks],
      cwd=self.root,
      env=self.environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=900,
    )
    self.assertEqual(done.returncode, 0, done.stdout)
    return done.stdout

  def test_every_command_works_as_written(self):
    output = self.follow()
    calls = [words(call) for call in self.calls()]
    at = lambda part: [i for i, call in enumerate(calls) if part in call]
    # The slice: by hand, then supervised and taken away once.
    creates = at("queued-resources create first")
    deletes = at("queued-resources delete first")
    self.assertLen(creates, 3)
    self.assertLen(deletes, 3)
    self.assertEqual(
      sorted([*creates, *deletes]),
      [i for pair in zip(creates, deletes, strict=True) for i in pair],
    )
    starts = at("host.sh start")
    self.assertLen(starts, 4)
    self.assertIn("start hardware_check hardware_check", calls[starts[0]])
    for start in starts[1:]:
      self.assertIn("start train_reward train_reward", calls[start])
    self.assertEqual(self.state("slices"), {})
    # The cluster, XPK and the queue.
    self.assertEqual(self.state("jobs"), {})
    for order in (
      ("docker build", "docker push", "kubectl --namespace=default apply"),
      ("xpk workload create", "xpk workload list", "xpk workload delete"),
      ("sbatch", "sacct"),
    ):
      places = [at(part)[0] for part in order]
      self.assertEqual(places, sorted(places), order)
    # What ran in the end, on the slice's four hosts and here.
    stages = self.stages()
    count = lambda part: sum(part in stage for stage in stages)
    self.assertEqual(count("hardware_check --config"), 4 + 1)
    self.assertEqual(count("gs://bucket/hh"), 3 * 4)
    self.assertEqual(count("experiments.compile"), 1)
    self.assertEqual(count("experiments.pipeline"), 1)
    self.assertIn("train_reward has finished", output)
    self.assertIn("hh has finished", output)

  def test_every_script_is_on_the_page(self):
    page = (checkout.ROOT / "docs/launch.md").read_text()
    sourced = ("environment", "remote", "tpu_slice", "tpu_run")
    inner = ("host", "slurm_job", "test")  # called by others, or in the README
    for path in checkout.files("launch/*.sh"):
      if path.stem not in sourced + inner:
        self.assertIn(f"launch/{path.name}", page)

  def test_its_slices_are_those_of_the_scripts(self):
    page = (checkout.ROOT / "docs/launch.md").read_text()
    rows = re.findall(
      r"^\| `(v\w+:[\dx]+)` \| (\d+) \| ([\w-]+)[^|]*\| (\d+) \|$", page, re.M
    )
    self.assertGreater(len(rows), 4)
    for topology, chips, accelerator, hosts in rows:
      output = self.script(
        "tpu_vm.sh",
        *("create", "--project=my-project", "--zone=us-west4-a", "--name=a"),
        *(f"--topology={topology}", "--dry_run"),
      )
      self.assertIn(
        f"A slice of {accelerator} ({chips} chips on {hosts} hosts)", output
      )


if __name__ == "__main__":
  absltest.main()
