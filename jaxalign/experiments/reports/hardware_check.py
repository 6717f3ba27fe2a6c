"""The report of `hardware_check`: Markdown, to be pasted into an issue."""

import json
import signal
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from jaxalign.runtime.distributed import preemption


class Check(NamedTuple):
  """A line of the report.

  Attributes:
    name: what was looked at.
    found: what was seen, in words.
    passed: whether it is as it should be.
  """

  name: str
  found: str
  passed: bool


def devices(hosts: list[dict[str, Any]]) -> Check:
  """Every host sees devices, as many and of the same kind as the others."""
  kinds = {(row["devices"], row["kind"]) for row in hosts}
  total = sum(row["devices"] for row in hosts)
  found = f"{len(hosts)} processes, {total} devices"
  if len(kinds) > 1:
    found += ", not the same everywhere"
  return Check("devices", found, len(kinds) == 1 and total > 0)


def golden(row: Mapping[str, Any]) -> Check:
  """A step against the CPU."""
  return Check(
    f"one step against the CPU, {row['precision']} precision",
    f"loss {row['loss']:.6g} and {row['cpu_loss']:.6g}, gradient norm "
    f"{row['gradient_norm']:.6g} and {row['cpu_gradient_norm']:.6g}: off by "
    f"{row['gap']:.1e}, at most {row['tolerance']:.0e}",
    bool(row["passed"]),
  )


def _ending(ended: Mapping[str, Any]) -> str:
  """An exit status in words."""
  if ended["status"] < 0:
    return f"ended by {signal.Signals(-ended['status']).name}"
  return f"exit code {ended['status']}"


def resumed(trained: Mapping[str, Any]) -> Check:
  """The killed run is the straight one.

  Args:
    trained: of `hardware_check.kill_and_resume`.

  Returns:
    The check.
  """
  name = "kill -9 and resume"
  for run in ("straight", "resumed"):
    if trained[run]["status"] != 0:
      found = f"the {run} run failed: {_ending(trained[run])}"
      return Check(name, found, False)
  at, steps = trained["killed_at"], trained["steps"]
  if trained["killed"]["status"] != 0 and at == 0:
    found = f"it ended before it had saved: {_ending(trained['killed'])}"
    return Check(name, found, False)
  if trained["killed"]["status"] == 0 or at >= steps:
    found = f"nothing was killed: it had ended; give more than --steps={steps}"
    return Check(name, found, False)
  curve = trained["curve"]
  found = (
    f"killed when step {at} of {steps} was saved, resumed; of {curve['rows']} "
    f"rows of metrics {curve['equal']} are equal bit for bit"
  )
  whole = curve["equal"] == curve["rows"] > 0 and not curve["more"]
  return Check(name, found, whole)


def noticed(trained: Mapping[str, Any]) -> Check:
  """The run saved and asked to be started again when it was told to go.

  Args:
    trained: of `hardware_check.kill_and_resume`.

  Returns:
    The check.
  """
  name = "SIGTERM"
  ended, at = trained["noticed"], trained["noticed_at"]
  if ended["status"] == 0 or at >= trained["steps"]:
    found = "it had ended before; give more than "
    return Check(name, f"{found}--steps={trained['steps']}", False)
  found = f"{_ending(ended)}, step {at} saved"
  asked = ended["status"] == preemption.EXIT_STATUS
  return Check(name, found, asked and at > trained["killed_at"])


def _speed(speed: Mapping[str, Any]) -> str:
  low, middle, high = (1e3 * seconds for seconds in speed["step_s"])
  return (
    f"A step takes {middle:.2f} ms ({low:.2f} to {high:.2f}, quartiles of "
    f"{speed['steps']}), {speed['tokens_per_s']:.3g} tokens/s, "
    f"{speed['flops_per_s_per_device'] / 1e12:.3g} TFLOP/s per device by "
    f"formula. The first one, with its compilation, took "
    f"{speed['first_s']:.1f} s."
  )


def page(
  probe: epath.Path | None,
  trained: Mapping[str, Any] | None,
  *,
  command: str,
) -> tuple[str, bool]:
  """The whole report.

  Args:
    probe: probe.json, or None if the probe failed.
    trained: of `kill_and_resume`, or None if it did not come to it.
    command: the flags.

  Returns:
    Markdown, and whether everything passed.
  """
  lines = ["# Hardware check", ""]
  checks = []
  measured = {} if probe is None else json.loads(probe.read_text())
  if measured:
    versions = ", ".join(f"{k} {v}" for k, v in measured["versions"].items())
    mesh = " x ".join(f"{k} {v}" for k, v in measured["mesh"].items())
    checks.append(devices(measured["hosts"]))
    checks += [golden(row) for row in measured["goldens"]]
    lines += [f"{versions}; mesh {mesh}; `{command}`; {_now()}", ""]
  else:
    checks.append(Check("probe", "it failed, see its log", False))
    lines += [f"`{command}`; {_now()}", ""]
  if trained is not None:
    checks += [resumed(trained), noticed(trained)]
  lines += ["| check | found | |", "|---|---|---|"]
  lines += [
    f"| {check.name} | {check.found} | {'pass' if check.passed else 'FAIL'} |"
    for check in checks
  ]
  if measured:
    lines += ["", _speed(measured["speed"]), ""]
    lines += ["| process | host | devices | kind |", "|---|---|---|---|"]
    lines += [
      f"| {row['process']} | {row['host']} | {row['devices']} | {row['kind']} |"
      for row in measured["hosts"]
    ]
  if trained is not None:
    seconds = ", ".join(
      f"{run} {trained[run]['seconds']:.0f} s"
      for run in ("straight", "killed", "noticed", "resumed")
    )
    lines += ["", f"Training runs from start to end: {seconds}."]
  return "\n".join(lines) + "\n", all(check.passed for check in checks)


def _now() -> str:
  return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
