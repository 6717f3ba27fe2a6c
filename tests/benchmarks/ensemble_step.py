r"""M models as one program against M programs, one after another.

    python -m tests.benchmarks.ensemble_step

The crowd's reward model at three widths, batches without padding, float32,
AdamW. One step of M = 8 members mapped over their first axis and eight steps of
the same model by itself take turns in one process. Prints JSON: medians with
quartiles per width, the ratio of the two ("over_singles", at most 1 is the
aim), and what the compiler says of memory: that of the ensemble over eight
times that of one.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable

import jax
import numpy as np

from jaxalign.experiments import denoise, train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import stage as training
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.profiling import compiled as inspect
from tests import shipped
from tests.benchmarks.reward_step import clock, spread

MEMBERS, PAIRS, LENGTH, ROUNDS = 8, 16, 96, 7
WIDTHS = (32, 64, 256)


def sections(width: int) -> dict:
  """The sections of the ensemble's config, at another width."""
  cfg = shipped.config("denoise_crowd")
  cfg.data.update(max_length=LENGTH, buckets=(LENGTH,))
  cfg.model.architecture.update(
    num_layers=2, embed_dim=width, mlp_dim=int(width * 2.7)
  )
  cfg.model.unroll = 2
  cfg.train.update(batch_size=PAIRS, num_steps=1000)
  cfg.optimizer.update(schedule="constant", warmup_steps=0)
  cfg.ensemble.num_members = MEMBERS
  cfg.mesh.data = 1
  return cfg


def stages(width: int) -> dict[str, training.Stage]:
  """The stage of all members and the stage of one."""
  cfg = sections(width)
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
  many = denoise.build(configuration.to_dataclass(denoise.Config, cfg), mesh)
  single = shipped.config("rm_bt_crowd")
  for name in ("data", "model", "loss", "optimizer", "mesh"):
    single[name] = cfg[name]
  single.train.update(batch_size=PAIRS, num_steps=1000)
  config = configuration.to_dataclass(train_reward.Config, single)
  return {"ensemble": many, "single": train_reward.build(config, mesh)}


def step_of(stage: training.Stage, times: int) -> tuple[Callable, object]:
  """A function that takes `times` steps, and the compiled step."""
  compiled = stage.lower().compile()
  rng = np.random.default_rng(0)
  rows = {
    name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in stage.batch.items()
  }
  rows["tokens"] = rng.integers(0, 256, rows["tokens"].shape, np.int32)
  rows["mask"][:] = rows["where"][:] = True
  batch = multihost.global_batch(rows, stage.batch["where"].sharding)
  states = [stage.init(jax.random.key(i)) for i in range(times)]

  def step() -> None:
    for i in range(times):
      states[i], metrics = compiled(states[i], batch, jax.random.key(1))
    jax.block_until_ready(metrics)

  return step, compiled


def measure(width: int) -> dict:
  turns, memory = {}, {}
  for name, stage in stages(width).items():
    turns[name], compiled = step_of(stage, MEMBERS if name == "single" else 1)
    memory[name] = inspect.memory_report(compiled).total
  times: dict[str, list[float]] = {name: [] for name in turns}
  for turn in range(ROUNDS + 1):
    for name, function in turns.items():
      seconds = clock(function)
      if turn:  # the first of each warms up
        times[name].append(seconds)
  median = {name: statistics.median(values) for name, values in times.items()}
  return {
    "ensemble": spread(times["ensemble"]),
    "singles": spread(times["single"]),
    "over_singles": median["ensemble"] / median["single"],
    "memory_over_singles": memory["ensemble"] / (MEMBERS * memory["single"]),
  }


def main() -> None:
  result = {
    "members": MEMBERS,
    "pairs": PAIRS,
    "tokens": LENGTH,
    "cores": os.cpu_count(),
    "python": sys.version.split()[0],
    "jax": jax.__version__,
    "by_width": {str(width): measure(width) for width in WIDTHS},
  }
  sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
