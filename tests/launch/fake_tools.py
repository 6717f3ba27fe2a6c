"""A cloud, a cluster and a queue in a folder, behind the tools' own names.

    FAKES=FOLDER python fake_tools.py TOOL ARGUMENT...

writes the call to FOLDER/calls.jsonl, does what FOLDER/plan.json says of it or
else what the tool would do: `gcloud` keeps queued resources with their states
and runs what is sent over ssh, in a home folder per machine.
"""

import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

FOLDER = pathlib.Path(os.environ.get("FAKES", "."))
HOSTS = {"v5litepod-16": 4, "v5p-16": 2, "v5litepod-4": 1, "v6e-16": 4}
STATES = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
ALIVE = "ACTIVE"


def load(name: str, default):
  path = FOLDER / f"{name}.json"
  return json.loads(path.read_text()) if path.exists() else default


def store(name: str, content) -> None:
  (FOLDER / f"{name}.json").write_text(json.dumps(content))


def give_up(message: str, code: int = 1) -> None:
  sys.stderr.write(f"ERROR: {message}\n")
  sys.exit(code)


def planned(tool: str, line: str) -> None:
  """Carries out the first rule of the plan that fits this call."""
  plan = load("plan", [])
  for rule in plan:
    if rule["tool"] != tool or not all(part in line for part in rule["has"]):
      continue
    if rule.get("skip", 0) > 0:
      rule["skip"] -= 1
      break
    if rule.get("times", 1) == 0:
      continue
    rule["times"] = rule.get("times", 1) - 1
    store("plan", plan)
    for name, states in rule.get("states", {}).items():
      change_states(name, states)
    if "raises" in rule:
      os.kill(os.getppid(), getattr(signal, rule["raises"]))
    if "code" not in rule:
      return
    sys.stdout.write(rule.get("stdout", ""))
    sys.stderr.write(rule.get("stderr", ""))
    sys.exit(rule["code"])
  store("plan", plan)


def change_states(name: str, states: list[str]) -> None:
  slices = load("slices", {})
  slices[name]["states"] = states
  store("slices", slices)
  if states[0] != ALIVE:
    end_machines(name)


def end_processes(machine: pathlib.Path) -> None:
  """Kills what runs on a machine, by the numbers that host.sh wrote down."""
  for file in machine.glob("jaxalign_runs/*/[pc][ih]*d"):  # pid, child
    try:
      number = int(file.read_text())
      command = pathlib.Path(f"/proc/{number}/cmdline").read_bytes()
      # The number of a process that has ended may be another's by now.
      if str(machine).encode() in command:
        os.kill(number, signal.SIGKILL)
    except (OSError, ValueError):
      continue


def end_machines(name: str) -> None:
  """A machine that is taken away takes its processes and its disk along."""
  for machine in FOLDER.glob(f"machines/{name}-*"):
    end_processes(machine)
    shutil.rmtree(machine, ignore_errors=True)


def option(arguments: list[str], name: str) -> str | None:
  for argument in arguments:
    if argument.startswith(f"--{name}="):
      return argument.partition("=")[2]
  return None


def queued_resources(verb: str, rest: list[str]) -> None:
  slices = load("slices", {})
  name = rest[0]
  if verb == "list":
    sys.stdout.write("".join(f"{name}\n" for name in slices))
    return
  if verb == "create":
    if name in slices:
      give_up(f"ALREADY_EXISTS: {name}")
    slices[name] = {
      "kind": option(rest, "accelerator-type"),
      "states": load("states", STATES),
    }
  elif name not in slices:
    give_up(f"NOT_FOUND: Resource {name} was not found")
  elif verb == "delete":
    del slices[name]
    end_machines(name)
  elif verb == "describe":
    found = slices[name]
    wanted = option(rest, "format") or ""
    if "acceleratorType" in wanted:
      sys.stdout.write(f"{found['kind']}\n")
      return
    sys.stdout.write(f"{found['states'][0]}\n")
    if len(found["states"]) > 1:
      found["states"].pop(0)
  store("slices", slices)


def tpu_vm(verb: str, rest: list[str]) -> None:
  if verb == "list":
    return
  name = rest[1].partition(":")[0] if verb == "scp" else rest[0]
  found = load("slices", {}).get(name)
  if found is None:
    give_up(f"NOT_FOUND: node {name}")
  if found["states"][0] != ALIVE:
    give_up(f"{name} is not READY")
  code = 0
  for number in range(HOSTS[found["kind"]]):
    home = FOLDER / "machines" / f"{name}-{number}"
    home.mkdir(parents=True, exist_ok=True)
    if verb == "scp":
      shutil.copy(rest[0], home / rest[1].partition(":")[2])
      continue
    done = subprocess.run(
      ["bash", "-c", option(rest, "command")],
      cwd=home,
      env=os.environ | {"HOME": str(home)},
      stdin=subprocess.DEVNULL,
    )
    code = code or done.returncode
  sys.exit(code)


def gcloud(arguments: list[str]) -> None:
  group, verb, *rest = arguments[2:]
  {"queued-resources": queued_resources, "tpu-vm": tpu_vm}[group](verb, rest)


def kubectl(arguments: list[str], text: str) -> None:
  """Keeps JobSets by name, with their conditions look by look."""
  jobs = load("jobs", {})
  line = " ".join(arguments)
  if "apply" in arguments:
    name = re.search(r'^  name: "?([^"\n]*)', text, re.M).group(1)
    sys.stdout.write(f"jobset.jobset.x-k8s.io/{name} created\n")
    jobs[name] = load("conditions", [[], ["Completed"]])
  elif "delete" in arguments:
    jobs.pop(line.partition("jobset/")[2].split()[0], None)
  elif "get" in arguments and "jobset/" in line:
    name = line.partition("jobset/")[2].split()[0]
    if name not in jobs:
      give_up(f'NotFound: jobsets "{name}" not found')
    sys.stdout.write(f"{' '.join(jobs[name][0])}\n")
    if len(jobs[name]) > 1:
      jobs[name].pop(0)
  store("jobs", jobs)


def slurm(tool: str, arguments: list[str]) -> None:
  """Numbers what is submitted; squeue lists it until scancel."""
  queue = load("queue", {})
  if tool == "sbatch":
    queue["41"] = option(arguments, "job-name")
    sys.stdout.write("41\n")
  elif tool == "squeue":
    name = option(arguments, "name")
    for number, other in queue.items():
      if other == name:
        sys.stdout.write(f"{number} RUNNING\n")
  elif tool == "scancel":
    queue.pop(arguments[-1], None)
  elif tool == "srun":
    command = [*itertools.dropwhile(lambda a: a.startswith("-"), arguments)]
    sys.exit(subprocess.run(command).returncode)
  store("queue", queue)


def main() -> None:
  tool, *arguments = sys.argv[1:]
  call = {"tool": tool, "argv": arguments}
  if tool == "kubectl" and "apply" in arguments:
    call["stdin"] = sys.stdin.read()
  with (FOLDER / "calls.jsonl").open("a") as calls:
    calls.write(f"{json.dumps(call)}\n")
  planned(tool, " ".join(arguments))
  if tool == "gcloud":
    gcloud(arguments)
  elif tool == "kubectl":
    kubectl(arguments, call.get("stdin", ""))
  elif tool in ("sbatch", "squeue", "scancel", "scontrol", "sacct", "srun"):
    slurm(tool, arguments)


if __name__ == "__main__":
  main()
