r"""What a step of each recipe costs over a step of plain Bradley-Terry.

    python -m tests.benchmarks.recipe_step

One GPT-2 of about 19M parameters, 32 pairs of 64 tokens, float32, AdamW. The
steps take turns in one process, with a pause before each turn, so that what
else the machine does falls on all of them alike. Prints JSON: seconds with
their quartiles, the ratio of medians to the plain step with the quartiles of
the ratios of neighbouring turns, and the FLOPs a recipe adds by counting the
rows that it passes forward and backward.

A new recipe is a case of `RECIPES`: changes of the config, then the rows it
passes through the network, in plain steps (a pass forward is a third).
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from jaxalign.experiments import train_reward
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from tests.benchmarks import reward_step

PAIRS, LENGTH, ROUNDS = 32, 64, 9
PAUSE = 0.3  # seconds
CANDIDATES = ("synthetic:two_groups:test_candidates",)


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the table.

  Attributes:
    changes: section -> keys to change; `recipe` and `coupling` replace the
      section.
    work: rows passed forward and backward, in those of a plain step.
    aim: largest ratio that is wanted, None for no aim.
  """

  changes: dict[str, dict[str, Any]]
  work: float
  aim: float | None = None


def meta(**changes: Any) -> dict[str, dict[str, Any]]:
  """MetaRM with as many fresh responses as there are responses in pairs."""
  base = dict(
    name="metarm",
    files=CANDIDATES,
    num_prompts=16,
    num_responses=4,
    measure=False,
  )
  return {"recipe": base | changes}


def contrast(**changes: Any) -> dict[str, dict[str, Any]]:
  return {
    "recipe": {"name": "contrastive", **changes},
    "model": {"dropout": 0.05},
  }


def mixture() -> dict[str, Any]:
  return {
    "name": "mixture",
    "num_components": 2,
    "num_users": 8,
    "steps_per_round": 30,
  }


MORE = {"name": "more", "num_sources": 4}
DENOISE = {"denoise": {"policy": "flip"}}

RECIPES = {
  "bradley_terry": Case({}, 1.0),
  "bradley_terry, dropout": Case({"model": {"dropout": 0.05}}, 1.0),
  "more": Case({"recipe": MORE}, 1.0, 1.03),
  "mean_variance": Case({"recipe": {"name": "mean_variance"}}, 1.0),
  "dprm": Case({"recipe": {"name": "dprm"}}, 1.0),
  "denoised": Case({"recipe": {"name": "denoised", "policy": "flip"}}, 1.0),
  "mixture": Case({"recipe": mixture()}, 1.0),
  "mixture with more": Case({"recipe": mixture(), "coupling": MORE}, 1.0),
  "dprm with more": Case(
    {"recipe": {"name": "dprm"}, "coupling": MORE}, 1.0, 1.03
  ),
  "personal": Case(
    {"recipe": {"name": "personal", "num_users": 8, "steps_per_round": 30}}, 1.0
  ),
  "denoised with more": Case({"recipe": MORE, "loss": DENOISE}, 1.0, 1.03),
  "denoised metarm with more": Case(
    {**meta(), "coupling": MORE, "loss": DENOISE}, 2.0, 2.2
  ),
  "contrastive": Case(contrast(), 2.0, 2.2),
  "contrastive, swav": Case(
    contrast(loss="swav", num_prototypes=50, queue_size=128), 2.0, 2.2
  ),
  "metarm": Case(meta(), 2.0, 2.2),
  "metarm, measured": Case(meta(measure=True), 2 + 2 / 3),
  "metarm, second order": Case(meta(second_order=True), 4.0),
}


def config(case: Case) -> train_reward.Config:
  """The crowd config with the network of `reward_step` and a recipe."""
  base = reward_step.config()
  cfg = dataclasses.asdict(base)
  cfg["train"]["batch_size"] = PAIRS
  for section, changes in case.changes.items():
    kept = {} if section in ("recipe", "coupling") else cfg[section]
    cfg[section] = kept | changes
  return configuration.to_dataclass(train_reward.Config, cfg)


def batch_of(built: Any) -> dict[str, np.ndarray]:
  """Full rows of random bytes for whatever the step takes."""
  rng = np.random.default_rng(0)
  special = {
    "row": np.arange(PAIRS, dtype=np.int32),
    "index": np.arange(PAIRS, dtype=np.int32),
    "source": np.arange(PAIRS, dtype=np.int32) % 4,
    "chosen_prob": np.ones(PAIRS, np.float32),
    "margin": np.zeros(PAIRS, np.float32),
    "annotator": np.arange(PAIRS, dtype=np.int32) % 8,
    "group": np.arange(PAIRS, dtype=np.int32) % 2,
  }
  batch = {}
  for name, spec in built.batch.items():
    if name in special:
      batch[name] = special[name]
    elif spec.dtype == np.bool_:
      batch[name] = np.ones(spec.shape, bool)
    elif name == "labels":
      batch[name] = rng.dirichlet(np.ones(spec.shape[-1]), spec.shape[:-1])
      batch[name] = batch[name].astype(np.float32)
    else:
      batch[name] = rng.integers(0, 256, spec.shape).astype(spec.dtype)
  return batch


def step_of(case: Case) -> Any:
  """The compiled step with its state, ready to be called again and again."""
  mesh = meshes.make_mesh(meshes.MeshConfig(1, 1, 1), jax.devices()[:1])
  built = train_reward.build(config(case), mesh)
  compiled = built.lower().compile()
  state = built.init(jax.random.key(0))
  batch = multihost.global_batch(batch_of(built), meshes.batch_sharding(mesh))

  def step() -> None:
    nonlocal state
    state, metrics = compiled(state, batch, jax.random.key(1))
    jax.block_until_ready(metrics)

  return step


def clock(function: Any) -> float:
  time.sleep(PAUSE)
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def main() -> None:
  steps = {name: step_of(case) for name, case in RECIPES.items()}
  times: dict[str, list[float]] = {name: [] for name in steps}
  for turn in range(ROUNDS + 1):
    for name, step in steps.items():
      seconds = clock(step)
      if turn:  # the first of each warms up
        times[name].append(seconds)
  plain = times["bradley_terry"]
  table = {}
  for name, case in RECIPES.items():
    own = times[name]
    low, _, high = statistics.quantiles(
      [a / b for a, b in zip(own, plain, strict=True)], n=4
    )
    ratio = statistics.median(own) / statistics.median(plain)
    table[name] = {
      **reward_step.spread(own),
      "over_plain": ratio,
      "over_plain_q1": low,
      "over_plain_q3": high,
      "work_over_plain": case.work,
      "aim": case.aim,
      "met": None if case.aim is None else ratio <= case.aim,
    }
  result = {
    "pairs": PAIRS,
    "tokens": LENGTH,
    "cores": os.cpu_count(),
    "python": sys.version.split()[0],
    "jax": jax.__version__,
    "recipes": table,
  }
  sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
