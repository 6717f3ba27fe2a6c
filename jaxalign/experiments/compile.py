r"""Ahead-of-time compilation for TPU slices: memory and cost, without a TPU.

JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
    --config=configs/rm_bt_hh.py --topology=v5e:4x4

The exit status is 0 if every program fits its devices, 3 if one does not, and
with --strict 4 if all fit but one replicates what it should not.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from rich import console, table

from jaxalign.experiments import (
  denoise,
  evaluate,
  sft,
  train_dpo,
  train_policy,
  train_reward,
)
from jaxalign.experiments.common import command_line
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reports import memory_advice
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import filesystem
from jaxalign.runtime.profiling import compiled as inspect
from jaxalign.runtime.profiling import hlo_collectives
from jaxalign.runtime.profiling import memory as memory_use

STAGES = {
  "train_reward": train_reward,
  "denoise": denoise,
  "evaluate": evaluate,
  "sft": sft,
  "train_dpo": train_dpo,
  "train_policy": train_policy,
}

FITS, DOES_NOT_FIT, WARNED = 0, 3, 4

PARTS = ("parameters", "optimizer", "batch", "kv_cache", "activations", "other")


def compile_stage(stage: str, config: Any, topology: str) -> dict[str, Any]:
  """Compiles a stage's programs for a TPU slice, ahead of time.

  Args:
    stage: a key of `STAGES`.
    config: that stage's config.
    topology: such as "v5e:4x4".

  Returns:
    `topology`, `num_devices`, `mesh`, `hbm_limit_bytes` per device, `fits`,
    and `programs`, one entry each as `compile_program` gives it.

  Raises:
    ValueError: the stage or topology is unknown, or config and mesh do not fit.
  """
  checks.one_of(STAGES, stage=stage)
  devices = inspect.tpu_topology(topology)
  mesh = meshes.make_mesh(config.mesh, devices)
  limit = inspect.hbm_limit(devices[0].device_kind)
  programs = []
  for program in STAGES[stage].build(config, mesh).programs():
    result = compile_program(
      program, limit, split=mesh.shape["data"] < mesh.size
    )
    result["suggestions"] = memory_advice.suggestions(
      dataclasses.asdict(config), mesh.shape, result["hbm_bytes"], limit
    )
    programs.append(result)
  return {
    "topology": topology,
    "num_devices": mesh.size,
    "mesh": dict(mesh.shape),
    "hbm_limit_bytes": limit,
    "fits": all(result["fits"] for result in programs),
    "programs": programs,
  }


def compile_program(
  program: memory_use.Program, limit: int, *, split: bool
) -> dict[str, Any]:
  """Compiles one program and says what it costs.

  Args:
    program: of a stage, on abstract TPU devices.
    limit: bytes that a device has.
    split: whether the mesh splits parameters, so that a whole copy of a large
      one on every device is worth a warning.

  Returns:
    `name`, `rows` (shape of the tokens), `compile_seconds`, `hbm_bytes` per
    device by part with their `total`, `fits`, `flops` of the whole program,
    `collectives` (None if it did not compile), `involuntary` reshards and
    `replicated` giants.

  Raises:
    jax.errors.JaxRuntimeError: it does not compile for another reason than
      memory.
  """
  parts = {
    name: memory_use.bytes_per_device(tree)
    for name, tree in program.parts.items()
  }
  given = sum(size for name, size in parts.items() if name != "kv_cache")
  compiled, needed = None, 0
  lowered = program.lower()
  start = time.perf_counter()
  with hlo_collectives.compiler_log() as log:
    try:
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      needed = memory_use.exceeded(str(error), given)
      if needed is None:
        raise
  seconds = time.perf_counter() - start
  if compiled is not None:
    memory = inspect.memory_report(compiled)
    needed, temporaries = memory.total, memory.temporaries
  else:
    temporaries = max(needed - given, 0)
  if "kv_cache" in parts:  # a small one may lie beside the device's memory
    parts["kv_cache"] = min(parts["kv_cache"], temporaries)
  parts["activations"] = temporaries - parts.get("kv_cache", 0)
  # Padding of layouts and what is returned in new memory, less what is given
  # but not read.
  parts["other"] = needed - sum(parts.values())
  return {
    "name": program.name,
    "rows": list(program.rows),
    "compile_seconds": seconds,
    "hbm_bytes": {**parts, "total": needed},
    "fits": compiled is not None and needed <= limit,
    "flops": program.flops,
    "collectives": None
    if compiled is None
    else [m._asdict() for m in hlo_collectives.collectives(compiled.as_text())],
    "involuntary": [
      reshard._asdict() for reshard in hlo_collectives.involuntary("".join(log))
    ],
    "replicated": [
      giant._asdict()
      for giant in memory_use.replicated_giants(
        {
          name: program.parts[name] for name in program.parts if name != "batch"
        },
        model_bytes=memory_use.model_bytes(program.parts["parameters"]),
      )
      if split
    ],
  }


def warnings(result: dict[str, Any]) -> list[str]:
  """Warnings about arrays that a program replicates for no purpose.

  Args:
    result: of `compile_program`.
  """
  found = [
    f"involuntary reshard of {one['shape']} in {one['operation'] or '?'}: each "
    f"device holds it whole on the way from {one['source']} to {one['target']}"
    for one in result["involuntary"]
  ]
  return found + [
    f"{one['path']} {tuple(one['shape'])} is whole on every device, "
    f"{_size(one['bytes'])}"
    for one in result["replicated"]
  ]


def exit_status(result: dict[str, Any], *, strict: bool) -> int:
  """What the command returns: `FITS`, `DOES_NOT_FIT` or, if strict, `WARNED`.

  Args:
    result: of `compile_stage`.
    strict: whether warnings count.
  """
  if not result["fits"]:
    return DOES_NOT_FIT
  warned = any(warnings(program) for program in result["programs"])
  return WARNED if strict and warned else FITS


def _size(number: float) -> str:
  """Bytes in the unit that suits them."""
  for unit in ("B", "KiB", "MiB"):
    if abs(number) < 1024:
      return f"{number:.3g} {unit}"
    number /= 1024
  return f"{number:.2f} GiB"


def show(result: dict[str, Any]) -> None:
  """Prints tables of what each program costs, then what is wrong with it.

  Args:
    result: of `compile_stage`.
  """
  screen = console.Console()
  limit = result["hbm_limit_bytes"]
  layout = " x ".join(f"{k} {v}" for k, v in result["mesh"].items())
  screen.print(
    f"{result['topology']}: {result['num_devices']} devices, {layout}"
  )
  for program in result["programs"]:
    screen.print(_costs(program, limit))
    if program["collectives"]:
      screen.print(_messages(program["collectives"]))
    for line in warnings(program):
      screen.print(f"warning: {line}", markup=False)
    if program["suggestions"]:
      screen.print("To make it fit, try in this order:")
    for line in program["suggestions"]:
      screen.print(f"  {line}", markup=False)


def _costs(program: dict[str, Any], limit: int) -> table.Table:
  memory = program["hbm_bytes"]
  rows = " x ".join(map(str, program["rows"]))
  cost = table.Table(title=f"{program['name']} of {rows} tokens")
  cost.add_column("per device")
  cost.add_column("", justify="right")
  for name in PARTS:
    if name in memory:
      cost.add_row(name.replace("_", " "), _size(memory[name]))
  verdict = "fits" if program["fits"] else "DOES NOT FIT"
  cost.add_row(f"HBM, {verdict} in {_size(limit)}", _size(memory["total"]))
  cost.add_row("FLOPs over all devices", f"{program['flops']:.3g}")
  cost.add_row("compilation", f"{program['compile_seconds']:.1f} s")
  return cost


def _messages(found: list[dict[str, Any]]) -> table.Table:
  total = sum(message["bytes"] * message["count"] for message in found)
  messages = table.Table(title=f"Collectives per device, {_size(total)}")
  for name in ("kind", "dtype", "shape", "count", "in all"):
    messages.add_column(
      name, justify="right" if name in ("count", "in all") else "left"
    )
  for message in sorted(found, key=lambda m: -m["bytes"] * m["count"]):
    messages.add_row(
      message["kind"],
      message["dtype"],
      str(message["shape"]),
      str(message["count"]),
      _size(message["bytes"] * message["count"]),
    )
  return messages


def _kind(argv: Sequence[str]) -> type[Any] | None:
  """The config dataclass of --stage, None where there is no such stage."""
  stage = STAGES.get(command_line.value_of(argv, "stage") or "train_reward")
  return None if stage is None else stage.Config


def main() -> None:
  """Compiles from the command line."""
  command_line.define_config()
  flags.DEFINE_enum("stage", "train_reward", list(STAGES), "Whose step.")
  flags.DEFINE_string("topology", None, "a TPU slice, such as v5e:4x4.")
  flags.DEFINE_string("workdir", None, "Folder for compile.json; optional.")
  flags.DEFINE_bool("strict", False, "Warnings change the exit status.")
  flags.mark_flags_as_required(["config", "topology"])

  def start(_: list[str]) -> int:
    values = flags.FLAGS
    kind = STAGES[values.stage].Config
    config = command_line.read_config(kind)
    result = compile_stage(values.stage, config, values.topology)
    show(result)
    if values.workdir is not None:
      folder = filesystem.open_workdir(values.workdir)
      configuration.write_json(
        folder / "compile.json",
        {**result, "config": dataclasses.asdict(config)},
      )
    return exit_status(result, strict=values.strict)

  command_line.launch(start, kind_of=_kind)


if __name__ == "__main__":
  main()
