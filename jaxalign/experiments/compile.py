r"""A config and a TPU topology in, the cost of a step out; no TPU needed.

JAX_PLATFORMS=cpu python -m jaxalign.experiments.compile \
    --config=configs/rm_bt_hh.py --topology=v5e:4x4
"""

import dataclasses
import math
import time
from typing import Any

from absl import app, flags
from etils import epath
from ml_collections import config_flags
from rich import console, table

from jaxalign.experiments import (
  configuration,
  denoise,
  evaluate,
  sft,
  train_reward,
)
from jaxalign.ops import checks
from jaxalign.runtime import inspect
from jaxalign.runtime import mesh as meshes

STAGES = {
  "train_reward": train_reward,
  "denoise": denoise,
  "evaluate": evaluate,
  "sft": sft,
}


def compile_step(stage: str, config: Any, topology: str) -> dict[str, Any]:
  """Compiles a stage's step for a TPU slice, ahead of time.

  Args:
    stage: a key of `STAGES`.
    config: that stage's config.
    topology: such as "v5e:4x4".

  Returns:
    `topology`, `num_devices`, `mesh`, `batch` (shape of the tokens),
    `compile_seconds`, `hbm_bytes` per device with its parts, `hbm_limit_bytes`,
    `fits`, `flops` of the whole step by formula, and `collectives`.

  Raises:
    ValueError: the stage or topology is unknown, or config and mesh do not fit.
  """
  checks.one_of(STAGES, stage=stage)
  devices = inspect.tpu_topology(topology)
  mesh = meshes.make_mesh(config.mesh, devices)
  built = STAGES[stage].build(config, mesh)
  start = time.perf_counter()
  compiled = built.lower().compile()
  seconds = time.perf_counter() - start
  memory = inspect.memory_report(compiled)
  limit = inspect.hbm_limit(devices[0].device_kind)
  shape = built.batch["tokens"].shape
  return {
    "topology": topology,
    "num_devices": mesh.size,
    "mesh": dict(mesh.shape),
    "batch": list(shape),
    "compile_seconds": seconds,
    "hbm_bytes": memory._asdict(),
    "hbm_limit_bytes": limit,
    "fits": memory.total <= limit,
    "flops": inspect.decoder_flops(
      built.network,
      math.prod(shape),
      shape[-1],
      passes=built.passes,
      num_outputs=built.network.num_outputs,
    ),
    "collectives": [
      message._asdict() for message in inspect.collectives(compiled.as_text())
    ],
  }


def _size(number: float) -> str:
  """Bytes in the unit that suits them."""
  for unit in ("B", "KiB", "MiB"):
    if number < 1024:
      return f"{number:.3g} {unit}"
    number /= 1024
  return f"{number:.2f} GiB"


def show(result: dict[str, Any]) -> None:
  """Prints the result as two tables."""
  memory = result["hbm_bytes"]
  cost = table.Table(
    title=f"{result['topology']}: {result['num_devices']} devices, "
    + " x ".join(f"{k} {v}" for k, v in result["mesh"].items())
  )
  cost.add_column("per device")
  cost.add_column("", justify="right")
  for name in ("arguments", "temporaries", "outputs", "aliases"):
    cost.add_row(name, _size(memory[name]))
  verdict = "fits" if result["fits"] else "DOES NOT FIT"
  cost.add_row(
    f"HBM, {verdict} in {_size(result['hbm_limit_bytes'])}",
    _size(memory["total"]),
  )
  cost.add_row("FLOPs of the whole step", f"{result['flops']:.3g}")
  cost.add_row("compilation", f"{result['compile_seconds']:.1f} s")
  messages = table.Table(title="Collectives of one step, per device")
  for name in ("kind", "dtype", "shape", "count", "in all"):
    messages.add_column(
      name, justify="right" if name in ("count", "in all") else "left"
    )
  for message in sorted(
    result["collectives"], key=lambda m: -m["bytes"] * m["count"]
  ):
    messages.add_row(
      message["kind"],
      message["dtype"],
      str(message["shape"]),
      str(message["count"]),
      _size(message["bytes"] * message["count"]),
    )
  screen = console.Console()
  screen.print(cost)
  if result["collectives"]:
    screen.print(messages)


def main() -> None:
  """Compiles from the command line; exit status 1 if it does not fit."""
  config_flags.DEFINE_config_file("config", None, "FILE.py[:variant].")
  flags.DEFINE_enum("stage", "train_reward", list(STAGES), "Whose step.")
  flags.DEFINE_string("topology", None, "TPU slice, such as v5e:4x4.")
  flags.DEFINE_string("workdir", None, "Folder for compile.json; optional.")
  flags.mark_flags_as_required(["config", "topology"])

  def start(_: list[str]) -> int:
    values = flags.FLAGS
    kind = STAGES[values.stage].Config
    config = configuration.to_dataclass(kind, values.config)
    result = compile_step(values.stage, config, values.topology)
    show(result)
    if values.workdir is not None:
      folder = epath.Path(values.workdir)
      folder.mkdir(parents=True, exist_ok=True)
      configuration.write_json(
        folder / "compile.json",
        {**result, "config": dataclasses.asdict(config)},
      )
    return 0 if result["fits"] else 1

  app.run(start)


if __name__ == "__main__":
  main()
