"""Device probe: kind of device, correctness of a step, and its speed."""

import dataclasses
import logging
import platform
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

import jaxalign
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.reward_model import fitting
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.profiling import memory

log = logging.getLogger("jaxalign")

WARM_UP, STEPS = 3, 20  # of the timing
# Largest relative difference of a loss or gradient norm from the CPU's. At
# "default" precision a TPU multiplies float32 in bfloat16.
TOLERANCES = {"default": 3e-2, "highest": 1e-3}
_NAME_BYTES = 64


class Golden(NamedTuple):
  """One step here against the same step on this machine's CPU.

  Attributes:
    precision: of matrix products, as JAX names it.
    loss: here.
    cpu_loss: on the CPU.
    gradient_norm: here.
    cpu_gradient_norm: on the CPU.
    tolerance: largest relative difference of either.
  """

  precision: str
  loss: float
  cpu_loss: float
  gradient_norm: float
  cpu_gradient_norm: float
  tolerance: float

  @property
  def gap(self) -> float:
    """The larger of the two relative differences; NaN stays NaN."""
    here = np.array([self.loss, self.gradient_norm])
    there = np.array([self.cpu_loss, self.cpu_gradient_norm])
    return float(np.max(np.abs(here - there) / np.abs(there)))

  @property
  def passed(self) -> bool:
    """Whether both are within the tolerance."""
    return self.gap <= self.tolerance


def devices_per_host() -> list[dict[str, Any]]:
  """Kind and number of devices of each process, on every process.

  Returns:
    Per process its number, `host`, number of `devices` and their `kind`.
  """

  def gathered(text: str) -> list[str]:
    cells = np.zeros(_NAME_BYTES, np.uint8)
    coded = text.encode()[:_NAME_BYTES]
    cells[: len(coded)] = np.frombuffer(coded, np.uint8)
    return [
      bytes(row).rstrip(b"\0").decode(errors="replace")
      for row in multihost.all_hosts_gather(cells)
    ]

  local = jax.local_devices()
  counts = multihost.all_hosts_gather(np.array([len(local)]))
  return [
    {"process": number, "host": host, "devices": int(count[0]), "kind": kind}
    for number, (host, count, kind) in enumerate(
      zip(
        gathered(platform.node()),
        counts,
        gathered(local[0].device_kind),
        strict=True,
      )
    )
  ]


def on_cpu(config: fitting.RewardConfig) -> training.Stage:
  """The same stage on one CPU device of this process."""
  alone = dataclasses.replace(config.mesh, data=1, fsdp=1, tensor=1)
  train = dataclasses.replace(config.train, parallel="jit")
  config = dataclasses.replace(config, mesh=alone, train=train)
  mesh = meshes.make_mesh(alone, jax.local_devices(backend="cpu")[:1])
  return fitting.build(config, mesh)


def _placed(tree: Any, like: Any) -> Any:
  """Arrays laid out as `like` says, from what every process holds whole."""
  return jax.tree.map(
    lambda leaf, shape: jax.make_array_from_callback(
      shape.shape, shape.sharding, lambda index: np.asarray(leaf)[index]
    ),
    tree,
    like,
  )


def golden(
  here: training.Stage,
  there: training.Stage,
  batch: dict[str, np.ndarray],
  state: Any,
  precision: str,
) -> Golden:
  """One step on both.

  Args:
    here: the stage on the devices in question.
    there: the same on a CPU.
    batch: all rows, [B, ...] per field.
    state: the state before the step, whole, in NumPy.
    precision: a key of `TOLERANCES`.

  Returns:
    Both results.
  """
  numbers = []
  for stage in (here, there):
    rows = stage.batch["where"].sharding
    with jax.default_matmul_precision(
      None if precision == "default" else precision
    ):
      _, metrics = stage.step(
        _placed(state, stage.state),
        jax.tree.map(
          lambda leaf, rows=rows: jax.make_array_from_callback(
            leaf.shape, rows, lambda index: leaf[index]
          ),
          batch,
        ),
        jax.random.key(1),
      )
    metrics = multihost.fetch(metrics)
    numbers.append(
      (float(metrics["train/loss"]), float(metrics["train/gradient_norm"]))
    )
  (loss, norm), (cpu_loss, cpu_norm) = numbers
  return Golden(
    precision, loss, cpu_loss, norm, cpu_norm, TOLERANCES[precision]
  )


def speed(
  stage: training.Stage, state: Any, batch: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Seconds of a step on a batch that is there already.

  Args:
    stage: the built stage.
    state: the state before the first step, whole, in NumPy.
    batch: this process's rows.

  Returns:
    `first_s` with the compilation, `step_s` as three quartiles, `steps`,
    `tokens_per_s`, `padded_tokens` and `flops_per_s_per_device`.
  """
  state = _placed(state, stage.state)
  rows = multihost.global_batch(batch, stage.batch["where"].sharding)
  seconds = []
  for _ in range(1 + WARM_UP + STEPS):
    start = time.perf_counter()
    state, metrics = stage.step(state, rows, jax.random.key(1))
    jax.block_until_ready((state.params, metrics))
    seconds.append(time.perf_counter() - start)
  quartiles = np.quantile(seconds[1 + WARM_UP :], (0.25, 0.5, 0.75)).tolist()
  flops = memory.batch_flops(stage.network, rows, stage.passes)
  (attended,) = multihost.all_hosts_sum(np.array([batch["mask"].sum()]))
  return {
    "first_s": seconds[0],
    "step_s": quartiles,
    "steps": STEPS,
    "tokens_per_s": int(attended) / quartiles[1],
    "padded_tokens": int(np.prod(rows["tokens"].shape)),
    "flops_per_s_per_device": flops / quartiles[1] / jax.device_count(),
  }


def run(
  config: fitting.RewardConfig, workdir: epath.Path, *, rank_file: str | None
) -> None:
  """Writes probe.json.

  Args:
    config: the reward stage's.
    workdir: gets probe.json; what an earlier `hardware_check` left there goes.
    rank_file: gets this process's number, on this machine, or None.
  """
  if rank_file is not None:
    epath.Path(rank_file).write_text(str(jax.process_index()))
  if multihost.is_main():
    for name in ("straight", "killed"):
      (workdir / name).rmtree(missing_ok=True)
  found = devices_per_host()
  for row in found:
    log.info("process %(process)d on %(host)s: %(devices)d x %(kind)s", row)
  config, loaded = fitting.load(config)
  stage = fitting.build(config, meshes.make_mesh(config.mesh))
  reference = on_cpu(config)
  batch = fitting.batches(config, loaded)[0]
  whole = multihost.fetch(
    multihost.global_batch(batch, stage.batch["where"].sharding)
  )
  state = multihost.fetch(reference.init(jax.random.key(config.seed)))
  # First, so that the first step is timed with its compilation.
  timing = speed(stage, state, batch)
  log.info("a step takes %.4f s", timing["step_s"][1])
  goldens = [
    golden(stage, reference, whole, state, precision)
    for precision in TOLERANCES
  ]
  for result in goldens:
    log.info("%s precision: off by %.1e", result.precision, result.gap)
  if multihost.is_main():
    configuration.write_json(
      workdir / "probe.json",
      {
        "versions": {
          "jaxalign": jaxalign.__version__,
          "jax": jax.__version__,
          "python": platform.python_version(),
        },
        "hosts": found,
        "mesh": dict(meshes.make_mesh(config.mesh).shape),
        "goldens": [
          result._asdict() | {"gap": result.gap, "passed": result.passed}
          for result in goldens
        ],
        "speed": timing,
      },
    )
  multihost.barrier("probe")
